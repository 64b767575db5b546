"""Tables in the README are the published ones, to the letter."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
MARKED = re.compile(r"<!-- (results/published/\S+\.md) -->\n((?:\|.*\n)+)")


def test_tables_equal_the_published_ones():
    marked = MARKED.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(marked) >= 3
    for path, table in marked:
        published = (ROOT / path).read_text(encoding="utf-8").splitlines()
        lines = table.splitlines()
        assert len(lines) > 2
        assert [line for line in lines if line not in published] == [], path


def test_pictures_are_there():
    pictures = re.findall(r"\]\((results/\S+\.png)\)", (ROOT / "README.md").read_text("utf-8"))
    assert len(pictures) >= 3
    assert [path for path in pictures if not (ROOT / path).is_file()] == []
