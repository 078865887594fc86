"""What `bigmodel predict` writes: rows, and texts."""
