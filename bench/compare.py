"""Verb: two result sets -> differences, intervals and verdicts."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tyro.conf import Positional

from bench.config import ExitCode, run_command

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Flags:
    """Tell whether and how much two result sets differ.

    A verdict on accuracy needs several training runs (seeds) of both sides; cost is compared within
    one class of machine only. Compare two variants of one folder by naming it twice: compare X X
    --where-b backbone=conv_unet
    """

    a: Annotated[Path, Positional]
    """Result folder A."""
    b: Annotated[Path, Positional]
    """Result folder B; differences are B - A, ratios B / A."""
    kind: Literal["accuracy", "cost"] = "accuracy"
    """What to compare."""
    where_a: tuple[str, ...] = ()
    """Rows of A to take, e.g. backbone=fno backbone.modes=12; the end of a name is enough."""
    where_b: tuple[str, ...] = ()
    """Rows of B to take."""
    out: Path | None = None
    """Folder for the table as CSV, LaTeX, HTML and Markdown."""
    json: bool = False
    """Print the comparisons as JSON."""
    quiet: bool = False
    """No log below warnings."""


def main(flags: Flags) -> int:
    """Print the comparison; 1 when something could not be compared."""
    from bench.records import load_rows, load_runs
    from bench.reporting.comparison import compare_rows, comparison_table, select_rows
    from bench.reporting.terminal import print_table

    comparisons, left_out = compare_rows(
        select_rows(load_rows(flags.a), flags.where_a),
        select_rows(load_rows(flags.b), flags.where_b),
        load_runs(flags.a, flags.b),
        kind=flags.kind,
    )
    table = comparison_table(comparisons, name="comparison", title=f"B against A: {flags.kind}")
    if flags.out is not None:
        table.write(flags.out)
        logger.info("%s", flags.out)
    if flags.json:
        print(table.values.to_json(orient="records", indent=2))
    else:
        print_table(table)
    for line in left_out:
        logger.warning("not compared: %s", line)
    return ExitCode.SOME_FAILED if left_out else ExitCode.OK


if __name__ == "__main__":
    run_command(Flags, main, prog="compare")
