"""Reports of a run: console, TensorBoard and JSON lines, sinks with one small interface."""
