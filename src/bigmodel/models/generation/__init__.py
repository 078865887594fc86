"""Text from a model, token by token: language models go on with a text, encoder–decoders translate one.

The model reads each token once and keeps what it needs of it (`Writer`). What comes out is what reading
all of the text anew at every step would give, whatever else is in the batch.
"""

from bigmodel.models.generation.sampling import Sampling, probabilities
from bigmodel.models.generation.texts import window_start
from bigmodel.models.generation.writing import (
    ENDED,
    OnTokens,
    UndefinedTextsError,
    generate,
    translate,
)

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
