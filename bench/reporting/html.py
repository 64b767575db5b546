"""One HTML page that needs nothing else: tables, figures as SVG inside, provenance."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from bench.records import commit_words, machine_class
from bench.reporting.figures import render_figure
from bench.reporting.tables import Table

__all__ = ["UNKNOWN_MACHINE", "Section", "machine_of", "render_html"]

log = logging.getLogger(__name__)

UNKNOWN_MACHINE = "unknown machine"

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
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        autoescape=True,
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
    """Return a line of provenance; what a broken record does not say is left out."""
    run = dict.fromkeys(("status", "machine", "system", "commit", "versions", "command"), "")
    run["run_id"] = str(record.get("run_id", ""))
    try:
        run["status"] = record["status"]
        run["command"] = " ".join(record["command"])
        run["machine"] = machine_of(record)
        run["system"] = record["machine"].get("os", "")
        run["commit"] = commit_words(record["commit"])
        versions = record["versions"]
        run["versions"] = ", ".join(f"{n} {versions[n]}" for n in _SHOWN_VERSIONS if n in versions)
    except Exception as error:  # anybody's file
        log.warning("run %s: not a whole record: %r", run["run_id"], error)
    return run


def machine_of(record: Mapping[str, Any]) -> str:
    """Return the class of machine of a run, whatever its record holds."""
    try:
        return machine_class(record["machine"])
    except Exception:  # anybody's file; what it says stands in the provenance
        return UNKNOWN_MACHINE
