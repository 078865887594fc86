"""Families of pretrained models: what each calls its settings and weights. A new one is a file here."""

from bigmodel.models.families.bert import BERT
from bigmodel.models.families.gpt2 import GPT2
from bigmodel.models.families.llama import LLAMA
from bigmodel.models.families.vit import VIT

FAMILIES = {family.model_type: family for family in (BERT, GPT2, LLAMA, VIT)}
"""By the `model_type` of a config.json."""

__all__ = ["FAMILIES"]
