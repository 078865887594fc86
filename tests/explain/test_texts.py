"""What of a sample is explained: one text, of those that share a row."""

from dataclasses import replace

import torch

from bigmodel.data.packing import Documents, PackedDocuments
from bigmodel.data.preprocessing import Preprocessing
from bigmodel.explain.subject import Subject
from bigmodel.explain.texts import read_text
from bigmodel.runtime.device import Runtime
from bigmodel.spec import DataSpec, NextTokens, PackedTokens
from tests.models.cases import build


def test_of_a_packed_row_the_first_text_is_explained() -> None:
    rows = Documents(torch.arange(1, 10), torch.tensor([0, 5]), torch.tensor([4, 3]), 0)
    spec = DataSpec("toy", PackedTokens(8, 11, pad=0), NextTokens(11))
    model = build("transformer", spec, dim=8, dropout=0.0)
    runtime = Runtime(torch.device("cpu"), "fp32")
    subject = Subject(model, Preprocessing(spec), runtime, PackedDocuments.packed(rows, 8))
    text = read_text(subject, 0)
    assert text.inputs.tolist() == [[1, 2, 3, 4]]
    assert (text.tokens, text.following) == ([1, 2, 3, 4], [2, 3, 4, 5])
    assert read_text(replace(subject, part=rows), 1).tokens == [6, 7, 8]
