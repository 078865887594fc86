"""The public name of `bigmodel.optim.optimizers`, for plugins."""
