"""What pages take from code and committed results: a mark in a page becomes Markdown.

A mark is a comment on a line of its own, ``<!-- fact: presets -->`` or, with arguments,
``<!-- fact: command ablation_modes -->``. Nothing that code or results hold is written twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import facts_of_code
import facts_of_results

from backbones.names import UnknownNameError

__all__ = ["FACTS", "MARK", "filled"]

MARK = re.compile(r"^<!-- fact: (\w+) ?(.*?) -->$", re.MULTILINE)
FACTS: dict[str, Callable[..., str]] = {
    fact.__name__: fact for module in (facts_of_code, facts_of_results) for fact in module.FACTS
}


def filled(page: str) -> str:
    """Return a page with every mark replaced by the fact it names.

    Raises:
        UnknownNameError: a mark names no fact.
    """
    return MARK.sub(_fact, page)


def _fact(mark: re.Match[str]) -> str:
    name, arguments = mark[1], mark[2].split()
    if name not in FACTS:
        raise UnknownNameError("fact", name, FACTS)
    return FACTS[name](*arguments)
