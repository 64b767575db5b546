"""Verb: run folders (shards of a grid, several machines) -> one, conflicts refused. No torch.

python bench/merge.py results/runs/grid results/runs/grid/shard-*
python bench/merge.py results/merged from-one-machine from-another
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tyro.conf import Positional

from bench.config import ExitCode, run_command


@dataclass(frozen=True)
class Flags:
    """Put run folders into one: every cell once, with its configuration, runs and files.

    Refused, a line each: one cell with other numbers, or other settings under one id, and studies
    of different versions. Reports run on the merged folder as on any other.
    """

    out: Annotated[Path, Positional]
    """The run folder that gets them; rows that it has are merged with the others."""
    folders: Annotated[tuple[Path, ...], Positional]
    """Run folders, or folders of them."""
    keep: Literal["first", "last"] | None = None
    """Where folders have other numbers for a cell: take it, whole, from the first or the last."""
    json: bool = False
    """Print the counts as JSON."""
    quiet: bool = False
    """No log below warnings."""


def main(flags: Flags) -> int:
    """Merge; print what there is now."""
    from bench.config import UsageError
    from bench.records import merge_folders

    if not flags.folders:
        raise UsageError("no run folder to merge named, e.g. shard-1-of-2 shard-2-of-2")
    merged = merge_folders(flags.out, flags.folders, flags.keep)
    if flags.json:
        print(json.dumps(asdict(merged)))
    else:
        counts = ", ".join(f"{n} {name}" for name, n in asdict(merged).items())
        print(f"{flags.out}: {counts}")
    return ExitCode.OK


if __name__ == "__main__":
    run_command(Flags, main, prog="merge")
