"""A model and its preprocessing as ONNX."""
