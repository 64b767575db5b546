"""One HTML page that needs nothing else: tables, figures as SVG inside, provenance."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from bench.records import commit_words, machine_class
from bench.reporting.figures import render_figure
from bench.reporting.tables import Table

__all__ = ["Section", "render_html"]

_TEMPLATES = Path(__file__).with_name("templates")
_SHOWN_VERSIONS = ("python", "torch", "numpy", "nodiff-bench")


@dataclass
class Section:
    """One part of a report."""

    title: str
    tables: list[Table] = field(default_factory=list)
    figures: dict[str, Figure] = field(default_factory=dict)
    """By the stem of their files, which is also the picture's alternative text."""


def render_html(title: str, sections: Sequence[Section], runs: Iterable[Mapping[str, Any]]) -> str:
    """Return the page. ``runs`` are the records of ``run-<run_id>.json``."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), undefined=StrictUndefined, trim_blocks=True
    )
    shown = [
        {
            "title": section.title,
            "tables": section.tables,
            "figures": [_picture(*item) for item in section.figures.items()],
        }
        for section in sections
    ]
    template = environment.get_template("report.html.j2")
    return template.render(title=title, sections=shown, runs=[_run(run) for run in runs])


def _picture(name: str, figure: Figure) -> dict[str, str]:
    return {"alt": name, "data": base64.b64encode(render_figure(figure, "svg")).decode()}


def _run(record: Mapping[str, Any]) -> dict[str, str]:
    versions = record["versions"]
    return {
        "run_id": record["run_id"],
        "status": record["status"],
        "machine": machine_class(record["machine"]),
        "system": record["machine"].get("os", ""),
        "commit": commit_words(record["commit"]),
        "versions": ", ".join(f"{n} {versions[n]}" for n in _SHOWN_VERSIONS if n in versions),
        "command": " ".join(record["command"]),
    }
