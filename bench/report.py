"""Verb: result folders -> CSV, LaTeX, Markdown, HTML, figures. Works without torch."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tyro.conf import Positional

from bench.config import ExitCode, results_home, run_command


@dataclass(frozen=True)
class Flags:
    """Turn the rows of result folders into tables, figures and one HTML page."""

    results: Annotated[tuple[Path, ...], Positional]
    """Result folders, folders of them, or rows.jsonl files."""
    out: Path | None = None
    """Where to write; results/reports/<name of the first folder> by default."""
    files: bool = True
    """Write every figure as PNG and PDF beside the page, which shows them all the same."""
    json: bool = False
    """Print the written files as JSON instead of the tables."""
    quiet: bool = False
    """No log below warnings."""


def main(flags: Flags) -> int:
    """Write the report; print its tables, then the path of its page."""
    from bench.config import UsageError
    from bench.records import load_rows, load_runs, load_views, result_folders
    from bench.reporting.build import write_report
    from bench.reporting.figures import FORMATS
    from bench.reporting.terminal import print_report

    if not flags.results:
        raise UsageError("no result folder named, e.g. results/published")
    rows, runs = load_rows(*flags.results), load_runs(*flags.results, broken=True)
    views = load_views(*result_folders(*flags.results))
    name = flags.results[0].resolve().name
    out = flags.out or results_home() / "reports" / name
    studies = {row.protocol for row in rows}
    title = f"Results: {name}"
    if len(studies) == 1 and (view := views.get(*studies)):
        title = view.title
    formats = FORMATS if flags.files else ()
    report = write_report(rows, runs, views, out, title=title, formats=formats)
    if flags.json:
        print(json.dumps([str(path) for path in report.paths], indent=2))
    else:
        print_report(report)
    return ExitCode.OK


if __name__ == "__main__":
    run_command(Flags, main, prog="report")
