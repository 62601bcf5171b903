"""Weights from elsewhere: PyTorch and ONNX files, Keras archives, the official ones fetched."""
