"""Text from a model, token by token: language models continue a text, encoder–decoders translate one.

The model reads each token once and caches what it needs of it (`Writer`). The output is the same as if
the whole text were read again at every step, whatever else is in the batch.
"""

from bigmodel.models.generation.decoding import window_start
from bigmodel.models.generation.sampling import Sampling, probabilities
from bigmodel.models.generation.writing import ENDED, OnTokens, UndefinedTextsError, generate, translate

__all__ = [
    "ENDED",
    "OnTokens",
    "Sampling",
    "UndefinedTextsError",
    "generate",
    "probabilities",
    "translate",
    "window_start",
]
