"""bigmodel: train neural networks from configurations, on the user's own data."""

__version__ = "0.1.0"
