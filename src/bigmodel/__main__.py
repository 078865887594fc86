"""`python -m bigmodel` is `bigmodel-train`."""

from bigmodel.cli import entry, imports

imports.leave_start_folder()
entry.bigmodel_train()
