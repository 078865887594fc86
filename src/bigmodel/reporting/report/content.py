"""What a report is made of: sections of blocks, all of plain text that the page makes safe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bigmodel.reporting.report.coloured_text import ColouredText
from bigmodel.reporting.report.drawing import Drawing

_MOST_LETTERS = 600  # of a text


def cut(text: str, most: int = _MOST_LETTERS) -> str:
    """A text, cut to `most` letters."""
    return text if len(text) <= most else f"{text[:most]}…"


@dataclass(frozen=True)
class Note:
    """A sentence; `warning` if it needs attention."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class Facts:
    """Labels with their texts."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Code:
    """Text as it is typed or generated, line by line."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table; cells of columns in `numbers` are aligned to the right."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Chart:
    """A drawing with a name for its file, such as `roc`."""

    name: str
    drawing: Drawing


@dataclass(frozen=True)
class Charts:
    """Charts beside each other."""

    charts: Sequence[Chart]


@dataclass(frozen=True)
class Exhibit:
    """A sample as what it is, with words below it.

    Attributes:
        description: of the picture, for those who do not see it.
        lines: label and text of each line below.
        png: the picture as a PNG file, or None.
        drawing: or as a drawing.
        text: or as a text, after `before`, which was given.
        smooth: whether the picture's pixels may be blurred.
    """

    description: str
    lines: Sequence[tuple[str, str]]
    png: bytes | None = None
    drawing: Drawing | None = None
    text: str | None = None
    before: str = ""
    smooth: bool = False


@dataclass(frozen=True)
class Exhibits:
    """Samples beside each other."""

    exhibits: Sequence[Exhibit]


@dataclass(frozen=True)
class ColouredTexts:
    """Texts below each other, whose pieces are coloured by numbers."""

    texts: Sequence[ColouredText]


@dataclass(frozen=True)
class Folded:
    """Blocks that are seen once `label` is clicked."""

    label: str
    blocks: Sequence[Block]


Block = Note | Facts | Code | Table | Charts | Exhibits | ColouredTexts | Folded


@dataclass(frozen=True)
class Section:
    """Blocks under a heading."""

    heading: str
    blocks: Sequence[Block]


@dataclass
class RunReport:
    """A run's part of a report.

    Attributes:
        name: of the run, as other runs of the report do not have it.
        title: such as `cnn on digits`.
        sections: what is told of it.
    """

    name: str
    title: str
    sections: list[Section] = field(default_factory=list)

    def add(self, heading: str, *blocks: Block) -> None:
        """Adds a section; one without blocks is left out."""
        if blocks:
            self.sections.append(Section(heading, blocks))


def charts_of(sections: Sequence[Section]) -> Iterator[Chart]:
    """All charts."""
    for section in sections:
        for block in section.blocks:
            if isinstance(block, Charts):
                yield from block.charts
