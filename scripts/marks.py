"""Tables in the documentation that scripts write: each stands between two marks on its page."""

from __future__ import annotations

from pathlib import Path


def replace_between(page: Path, mark: str, text: str) -> None:
    """Replaces what stands between `<!-- mark -->` and `<!-- /mark -->` on a page.

    Raises:
        ValueError: the page does not have both marks.
    """
    begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    content = page.read_text(encoding="utf-8")
    if begin not in content or end not in content:
        raise ValueError(f"{page} has no {begin} … {end}")
    before, after = content[: content.index(begin)], content[content.index(end) :]
    page.write_text(f"{before}{begin}\n{text}\n{after}", encoding="utf-8")
