# The types of what `__init__.py` imports when it is first asked for.
from bigmodel import sklearn as sklearn
from bigmodel.api.trained_run import TrainedRun as TrainedRun
from bigmodel.api.trained_run import load as load
from bigmodel.api.training import train as train

__version__: str
