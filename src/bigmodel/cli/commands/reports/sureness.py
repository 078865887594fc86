"""What a report tells of how sure a run is: intervals, sets and temperatures, put to the test."""

from __future__ import annotations

from torch import Tensor

from bigmodel.cli.commands.loaded_run import LoadedRun
from bigmodel.errors import CheckpointError, counted
from bigmodel.metrics import choose_metrics, parse_metrics
from bigmodel.metrics.calibration import Calibration
from bigmodel.metrics.conformal import class_sets, intervals, least_samples
from bigmodel.metrics.temperature import scale
from bigmodel.metrics.threshold import move
from bigmodel.reporting.formatting import figure
from bigmodel.reporting.report.content import Block, Facts, Note, Table, cut
from bigmodel.spec import Classes, Flags, Target, Values
from bigmodel.training.calibration import read_calibration

_LEVELS = (0.8, 0.9, 0.95, 0.99)
_MOST_VALUES = 4  # that are shown
_MOST_LABELS = 10


def sureness_blocks(loaded: LoadedRun, outputs: Tensor, targets: Tensor) -> list[Block]:
    """Tables of what was promised and what is so; empty if the run holds no calibration.

    Args:
        outputs, targets: of samples that the calibration has not seen, defined.
    """
    target = loaded.preprocessing.spec.target
    try:
        known = read_calibration(loaded.run_path.folder, loaded.step, target)
    except CheckpointError as error:
        return [Note(str(error), warning=True)]
    if known is None:
        return []
    learnt = Note(f"Learnt from {counted(known.samples, 'validation sample')}.")
    levels = [level for level in _LEVELS if least_samples(level) <= known.samples]
    if isinstance(target, Values):
        table = _of_values(outputs, targets, target, known, levels)
        return [table, learnt] if levels else []
    blocks: list[Block] = []
    if isinstance(target, Classes) and levels:
        predicted = move(outputs, loaded.cuts, target).argmax(1)
        blocks.append(_of_classes(outputs, targets, predicted, known, levels))
    if isinstance(target, Classes | Flags) and known.temperatures is not None:
        blocks.append(Facts(_probabilities(outputs, targets, target, known.temperatures)))
    return [*blocks, learnt]


def _of_values(
    outputs: Tensor, targets: Tensor, target: Values, known: Calibration, levels: list[float]
) -> Table:
    rows = []
    for level in levels:
        lower, upper = intervals(outputs, known.predicted, known.scores, level)
        held = ((lower <= targets) & (targets <= upper)).double().mean(0)
        widths = (upper - lower).median(0).values
        for index, name in enumerate(target.names[:_MOST_VALUES]):
            width = figure(float(widths[index]) * target.std[index])
            rows.append([f"{level:g}", cut(name), f"{float(held[index]):.3f}", width])
    return Table(["interval", "value", "holds the truth", "median width"], rows, frozenset({0, 2, 3}))


def _of_classes(
    outputs: Tensor, targets: Tensor, predicted: Tensor, known: Calibration, levels: list[float]
) -> Table:
    rows = []
    for level in levels:
        members = class_sets(outputs, predicted, known.scores, level)
        held = float(members.gather(1, targets[:, None]).double().mean())
        sizes = members.sum(1).double()
        one = float((sizes == 1).double().mean())
        rows.append([f"{level:g}", f"{held:.3f}", f"{float(sizes.mean()):.2f}", f"{one:.3f}"])
    heads = ["set", "holds the truth", "classes in it, mean", "of one class"]
    return Table(heads, rows, frozenset(range(4)))


def _probabilities(
    outputs: Tensor, targets: Tensor, target: Target, temperatures: list[float]
) -> list[tuple[str, str]]:
    """The temperatures, and the log loss without and with them."""
    metrics = choose_metrics(parse_metrics(["log_loss"]), target)
    losses = []
    for given in (outputs, scale(outputs, temperatures)):
        metrics.reset()
        metrics.update(given, targets)
        losses.append(metrics.compute([metrics.gathered()]).values["log_loss"])
    if isinstance(target, Flags):
        pairs = list(zip(target.names, temperatures, strict=True))
        more = ", …" if len(pairs) > _MOST_LABELS else ""
        shown = ", ".join(f"{cut(n)} {t:.3g}" for n, t in pairs[:_MOST_LABELS]) + more
    else:
        shown = f"{temperatures[0]:.3g}"
    before, after = (figure(loss) for loss in losses)
    return [("Temperature", shown), ("Log loss", f"{before}, calibrated {after}")]
