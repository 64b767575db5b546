"""Markdown from plain values."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

__all__ = ["fenced", "plain", "starred", "table"]


def table(
    header: Sequence[str], lines: Iterable[Sequence[object]], right: Collection[str] = ()
) -> str:
    """Return a Markdown table; columns whose heading is in ``right`` are right-aligned."""
    rule = ["--:" if heading in right else "---" for heading in header]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in (header, rule, *lines))


def _cell(value: object) -> str:
    text = "–" if value is None or value == "" else str(value)
    return re.sub(r"[ \n]+", " ", text).replace("|", "\\|")  # hard spaces stay


def plain(docstring: str | None) -> str:
    """Return a docstring's text in Markdown: one backtick where it has two, roles left out."""
    text = (docstring or "").replace("``", "`")
    for role in (":class:", ":func:", ":meth:", ":data:", ":mod:"):
        text = text.replace(role, "")
    return text


def starred(text: str) -> str:
    """Return Markdown whose stars are stars: globs and products, not emphasis."""
    parts = text.split("`")  # every other one is code
    return "`".join(part if i % 2 else part.replace("*", r"\*") for i, part in enumerate(parts))


def fenced(text: str, language: str) -> str:
    """Return a code block."""
    return f"```{language}\n{text.rstrip()}\n```"
