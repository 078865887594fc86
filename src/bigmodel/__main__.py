"""`python -m bigmodel` is `bigmodel-train`."""

from bigmodel.cli.entry import bigmodel_train

bigmodel_train()
