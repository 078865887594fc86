"""What is found by trying: a learning rate, and how large batches can be. The run is left as it was."""
