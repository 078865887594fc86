"""`python -m bigmodel` is `bigmodel-train`, and with a verb `bigmodel`."""

from bigmodel.cli import entry, imports

imports.leave_start_folder()
entry.python_m()
