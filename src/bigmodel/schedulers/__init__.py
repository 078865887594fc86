"""The public name of `bigmodel.optim.schedulers`, for plugins."""
