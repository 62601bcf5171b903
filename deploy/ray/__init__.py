"""The service on a Ray cluster: `python -m deploy.ray`, or `serve run deploy.ray.app:app`."""
