"""The verb `serve`."""

import argparse

from keras_matting.cli.shared import MODEL_HELP
from keras_matting.cli.status import OK
from keras_matting.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serve`; what is not given comes from the environment (see the service's settings)."""
    parser.add_argument("--model", action="append", help=f"{MODEL_HELP}; several times for several models")
    parser.add_argument("--engine", help="engine, or auto (default); see: keras-matting engines")
    parser.add_argument(
        "--host",
        action="append",
        help="default: 127.0.0.1; several times for several; :: is every address, of IPv4 too unless one is given",
    )
    parser.add_argument("--port", type=int, help="default: 8000")


def serve(arguments: argparse.Namespace) -> int:
    """Serve models over HTTP until interrupted."""
    try:
        from keras_matting_api.server import run
        from keras_matting_api.settings import read_settings
    except ImportError as error:
        raise UsageError(f"Serving needs {error.name}: pip install 'keras-matting[serve]'.") from None
    run(
        read_settings(
            models=arguments.model and tuple(arguments.model),
            engine=arguments.engine,
            host=arguments.host and tuple(arguments.host),
            port=arguments.port,
        )
    )
    return OK
