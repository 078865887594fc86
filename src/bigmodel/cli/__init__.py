"""The command lines: `bigmodel-train` and `bigmodel VERB`."""
