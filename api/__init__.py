"""The matting service, installed as `keras_matting_api`."""
