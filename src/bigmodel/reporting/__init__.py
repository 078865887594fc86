"""Where figures go: console, TensorBoard and JSON lines, sinks behind one small interface."""
