"""What `bigmodel explain` asks a model, prints and writes."""
