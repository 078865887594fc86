"""Where figures go: console, TensorBoard, JSON lines. Sinks behind one small interface."""
