"""A run's model as a folder that Hugging Face's transformers loads."""
