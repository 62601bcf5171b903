"""The verb `serve`."""

from keras_matting.cli.status import OK
from keras_matting.errors import UsageError


def add_arguments(parser):
    """Declare the options of `serve`."""
    parser.add_argument("--model", default="u2netp", help="folder or name (default: u2netp, fetched at first use)")
    parser.add_argument("--engine", default="auto", help="engine, or auto (default); see: keras-matting engines")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)


def serve(arguments):
    """Serve a model over HTTP until interrupted."""
    try:
        import uvicorn
        from keras_matting_api.app import create_app
    except ImportError:
        raise UsageError("Serving needs FastAPI and uvicorn: pip install 'keras-matting[serve]'.") from None
    uvicorn.run(create_app(arguments.model, arguments.engine), host=arguments.host, port=arguments.port)
    return OK
