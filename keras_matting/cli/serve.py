"""The verb `serve`."""

from keras_matting.cli.status import OK, say
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
    from keras_matting.matting import open_session

    # Opened before the server: a wrong model or engine is one sentence, and the port is never open without a model.
    session = open_session(arguments.model, arguments.engine, say)
    uvicorn.run(create_app(session), host=arguments.host, port=arguments.port)
    return OK
