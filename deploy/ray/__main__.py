"""`python -m deploy.ray`: start a cluster here, or join the one at RAY_ADDRESS, and serve until interrupted."""

import argparse
import os
import signal
import sys
import threading

_TELEMETRY = "RAY_USAGE_STATS_ENABLED"  # Ray reports usage over the internet unless this is 0


def main():
    """Serve at KERAS_MATTING_HOST and KERAS_MATTING_PORT."""
    os.environ.setdefault(_TELEMETRY, "0")  # before Ray is imported
    import ray
    from keras_matting_api import observability
    from keras_matting_api.settings import read_settings
    from pydantic import ValidationError
    from ray import serve

    from deploy.ray.app import app
    from deploy.ray.scale import Scale
    from keras_matting.errors import MattingError

    parser = argparse.ArgumentParser(prog="python -m deploy.ray", description=__doc__)
    for name, field in Scale.model_fields.items():
        text = f"{field.description} (default: {field.default})"
        parser.add_argument(f"--{name.replace('_', '-')}", type=field.annotation, default=field.default, help=text)
    try:
        scale, settings = Scale(**vars(parser.parse_args())), read_settings()
    except ValidationError as error:
        first = error.errors()[0]
        parser.error(" ".join((*first["loc"], first["msg"])))
    except MattingError as error:
        parser.error(str(error))
    if len(settings.host) > 1:
        parser.error(f"Ray listens at one host; KERAS_MATTING_HOST has {', '.join(settings.host)}")
    (host,) = settings.host
    observability.log_to_stderr(settings.log_level)
    ray.init(**({} if "RAY_ADDRESS" in os.environ else {"include_dashboard": False}))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    serve.start(http_options={"host": host, "port": settings.port})
    try:
        serve.run(app(scale), name="keras-matting")
    except RuntimeError as error:  # an engine cannot be opened; Ray has printed why
        sys.exit(str(error))
    observability.log("listening", url=f"http://{host}:{settings.port}")
    stop.wait()
    serve.shutdown()


if __name__ == "__main__":
    main()
