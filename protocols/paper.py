"""Every table and figure of the paper, one study after the other; what is done stays done.

    python protocols/paper.py --dataset PanCollection/WV3 --sensor WV3 --preset paper

Each study has a result folder of its own under the results' home, with its tables, figures and
page, as if it had been run alone; trainings that two of them share are done once. The last page
shows all of them; the files of its figures are the studies' own.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, fields
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench.config import CommonFlags, ExitCode, UsageError, results_home, run_command
from bench.report import Flags as ReportFlags
from bench.report import main as report
from bench.running import Desk, Study
from protocols import (
    ablation_finetuning,
    ablation_layers,
    ablation_modes,
    ablation_sampler,
    efficiency,
    full_resolution,
    operator_roles,
    reduced_resolution,
    visuals,
)

STUDIES: tuple[Study, ...] = (
    ablation_modes.STUDY,
    reduced_resolution.STUDY,
    full_resolution.STUDY,
    ablation_finetuning.STUDY,
    ablation_layers.STUDY,
    ablation_sampler.STUDY,
    operator_roles.STUDY,
    visuals.STUDY,
    efficiency.STUDY,
)
_OWN = ("backbone", "backbone_module", "override")
"""Flags that belong to one study and not to another."""
_JOBS = 4
"""Cells at once at smoke, whose times claim nothing, unless told otherwise."""


@dataclass(frozen=True)
class Flags(CommonFlags):
    """Run every study of the paper on one data set, at one preset."""

    only: tuple[str, ...] = ()
    """Studies by name; all by default."""


def main(flags: Flags) -> ExitCode:
    """Run the studies in turn; one that fails does not stop the others."""
    given = {f.name: getattr(flags, f.name) for f in fields(CommonFlags)}
    if given.pop("out") is not None:
        raise UsageError("--out: every study has a folder of its own; set NODIFF_BENCH_HOME")
    if given["launcher"] is not None:
        raise UsageError("--launcher: runs one study; run each alone")
    for name in _OWN:
        default = next(f.default for f in fields(CommonFlags) if f.name == name)
        if given.pop(name) != default:
            raise UsageError(f"--{name}: belongs to one study; run it alone")
    if given["jobs"] is None and flags.preset == "smoke":
        given["jobs"] = min(os.cpu_count() or 1, _JOBS)
    wanted = [study for study in STUDIES if not flags.only or study.name in flags.only]
    if unknown := set(flags.only) - {study.name for study in STUDIES}:
        known = ", ".join(study.name for study in STUDIES)
        raise UsageError(f"--only {' '.join(sorted(unknown))}: the studies are {known}")
    worst, folders = ExitCode.OK, []
    for study in wanted:
        own = study.flags(**given)
        worst = max(worst, study.run(own))
        folders.append(Desk(own, study.name).folder)
    if not (flags.dry_run or flags.list):
        out = results_home() / "reports" / f"paper-{folders[0].name}"
        shown = {"json": flags.json, "quiet": flags.quiet}
        report(ReportFlags(tuple(folders), out, files=False, **shown))
    return worst


if __name__ == "__main__":
    run_command(Flags, main, prog="paper")
