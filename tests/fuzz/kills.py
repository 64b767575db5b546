"""End ``ablation_modes`` at random moments, run the same command again, and look at what is there.

    python tests/fuzz/kills.py --trials 100 --seed 0            # a small grid, in forked processes
    python tests/fuzz/kills.py --trials 10 --real               # --preset smoke, as users run it

A trial is one to three runs that end badly - SIGTERM, SIGINT, SIGKILL, a full disk (no file may
grow any more), no memory (the address space may not grow any more), or a run that is stopped, and
woken up when another one has done its work - and one that nothing happens to. Rows, weights and
files must be those of an undisturbed run, bit by bit; no row twice, no half line, no half file, no
lock that anybody waits for. Moments are of the run's own CPU time, so that they do not depend on
what else the machine does.

A run that hangs is a fault, but for one without memory: the limit, which comes from outside, may
come while a thread is being started, and Python 3.11 then waits for ever for a thread that found
no memory to say that it runs. Such a run is killed, and counts as killed.

A cell that ran out of memory is a result, ``oom``, which the same command lets stand. Where runs
were without memory and such rows are all that is not ok, the trial ends with one more run that
does these cells again, with ``--force``.
"""

from __future__ import annotations

import argparse
import collections
import importlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np

from bench.config import ExitCode
from bench.records import RunFolder, latest

__all__ = ["FAULTS", "Grid", "table", "trials"]

ROOT = Path(__file__).resolve().parents[2]
FAULTS = ("SIGTERM", "SIGINT", "SIGKILL", "full disk", "no memory", "SIGSTOP")
LEASE_S = 2.0
_PATIENCE = 20.0
"""How many times longer than the undisturbed run the last one may take."""
_HUNG_S = 60.0
"""Without any CPU time, before a run counts as hung and is killed."""
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Grid:
    """What is run.

    Attributes:
        arguments: of ``protocols/ablation_modes.py``, without ``--out``.
        start: (arguments, home, log) -> process id, as a child of this process.
    """

    arguments: tuple[str, ...]
    start: Callable[[list[str], Path, Path], int]

    def begin(self, place: Path, *further: str) -> int:
        """Start the command, with further flags, on a place of its own: results, home, log."""
        arguments = [*self.arguments, *further, "--out", str(place / "out")]
        return self.start(arguments, place / "home", place / "log")


def real_grid() -> Grid:
    """The smoke preset on the shipped sample, which is built anew in every trial."""

    def start(arguments: list[str], home: Path, log: Path) -> int:
        command = [sys.executable, str(ROOT / "protocols" / "ablation_modes.py"), *arguments]
        environment = {**os.environ, "NODIFF_BENCH_HOME": str(home),
                       "NODIFF_BENCH_LEASE": str(LEASE_S), "OMP_NUM_THREADS": "1"}  # fmt: skip
        with log.open("ab") as out:
            process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
        process.returncode = 0  # waited for by its id
        return process.pid

    return Grid(("--preset", "smoke", "--seed", "0", "--device", "cpu"), start)


def small_grid(data: Path) -> Grid:
    """Three small cells on a toy data set, without a report, in forks of this process."""
    import torch

    from bench.running import presenting
    from bench.training import loop
    from protocols import ablation_modes
    from tests.cli import toy

    for name in ("scipy.stats", "torch._dynamo", "bench.cells.experiments"):
        importlib.import_module(name)  # once, here, and not in every fork
    torch.set_num_threads(1)  # a pool of threads does not survive a fork
    loop._CHECKPOINT_EVERY_S = 0.0  # a state every ten steps
    presenting.present = lambda *_, **__: None
    toy.write(data)

    def start(arguments: list[str], home: Path, log: Path) -> int:
        if child := os.fork():
            return child
        code = 70
        try:
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(out, 1)
            os.dup2(out, 2)
            os.environ["NODIFF_BENCH_HOME"] = str(home)
            os.environ["NODIFF_BENCH_LEASE"] = str(LEASE_S)
            sys.argv = ["protocols/ablation_modes.py", *arguments]
            ablation_modes.STUDY.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            with suppress(Exception):
                sys.stderr.flush()
            os._exit(code)

    arguments = ("--preset", "smoke", "--dataset", str(data), "--sensor", "QB", "--device", "cpu",
                 "--seed", "0", "--modes", "2", "--scheme", "one_stage", "two_stage",
                 "--override", "patch=32", "sampler.tile=32", "backbone.width=8",
                 "backbone.layers=2", "evaluation.convention=none", "steps=40")  # fmt: skip
    return Grid(arguments, start)


def trials(grid: Grid, count: int, seed: int, keep: Path | None = None) -> Iterator[dict]:
    """Yield the faults, exit codes and outcome of each of ``count`` trials.

    Args:
        grid: what is run.
        count: how many.
        seed: of faults and moments; when a moment finds what depends on the machine.
        keep: folder for the places of trials that went wrong.
    """
    with tempfile.TemporaryDirectory() as name:
        reference = Path(name, "reference")
        reference.mkdir()
        began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        code = _wait(grid.begin(reference), 3600)
        seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        if code != ExitCode.OK:
            raise RuntimeError(f"the undisturbed run failed: {(reference / 'log').read_text()}")
        wanted = _found(reference)
        for number in range(count):
            place = Path(name, str(number))
            place.mkdir()
            rng = random.Random(f"{seed} {number}")
            faults, codes = [], []
            for _ in range(rng.choice((1, 1, 2, 3))):
                # The first fault of each trial takes its turn, so that all get their share.
                fault = FAULTS[number % len(FAULTS)] if not faults else rng.choice(FAULTS)
                faults.append(fault)
                moment = rng.uniform(0, 1.0) * cpu
                codes.append(_disturbed(grid, place, fault, moment, _PATIENCE * seconds + 10))
            began = time.monotonic()
            codes.append(_wait(grid.begin(place), _PATIENCE * seconds + 10))
            forced = "no memory" in faults and _out_of_memory(place)
            if forced:
                codes.append(_wait(grid.begin(place, "--force"), _PATIENCE * seconds + 10))
            outcome = _judged(place, faults, codes, wanted, forced)
            yield {
                "number": number, "faults": faults, "codes": codes, "forced": forced,
                "outcome": outcome, "seconds": round(time.monotonic() - began, 1),
            }  # fmt: skip
            if keep and outcome != "the same":
                shutil.copytree(place, keep / str(number), dirs_exist_ok=True)
            shutil.rmtree(place, ignore_errors=True)


def _disturbed(grid: Grid, place: Path, fault: str, after: float, limit: float) -> int | None:
    """Run once with a fault ``after`` so much CPU time; return the exit code, None if it hung."""
    process = grid.begin(place)
    while (used := _cpu_seconds(process)) is not None and used < after:
        time.sleep(0.005)
    with suppress(OSError, IndexError):  # it has ended already
        if fault == "full disk":
            resource.prlimit(process, resource.RLIMIT_FSIZE, (0, 0))
        elif fault == "no memory":
            pages = int(Path(f"/proc/{process}/statm").read_text().split()[0])
            limit = pages * resource.getpagesize()
            resource.prlimit(process, resource.RLIMIT_AS, (limit, limit))
        else:
            os.kill(process, getattr(signal, fault))
        if fault == "SIGSTOP":
            code = _wait(grid.begin(place), limit)
            os.kill(process, signal.SIGCONT)
            woken = _wait(process, limit)
            return woken if code == ExitCode.OK else code
    return _wait(process, limit)


def _wait(process: int, limit: float) -> int | None:
    """Return the exit code of a child, None and end it where it takes too long."""
    deadline = time.monotonic() + limit
    seen, seen_at = None, time.monotonic()
    while time.monotonic() < min(deadline, seen_at + _HUNG_S):
        if (used := _cpu_seconds(process)) != seen:
            seen, seen_at = used, time.monotonic()
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None


def _cpu_seconds(process: int) -> float | None:
    """Return the CPU time of a process, to a hundredth; None once it has ended."""
    with suppress(OSError):
        state, *parts = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        if state != "Z":
            return (int(parts[10]) + int(parts[11])) / _TICK
    return None


def _found(place: Path) -> dict[str, object]:
    """Return what a place holds that must be the same after every trial."""
    folder = RunFolder(place / "out")
    rows = latest(folder.rows())
    found: dict[str, object] = {
        f"row {row.protocol} {row.key}": (row.status, repr(row.value), str(row.samples))
        for row in rows
        if row.unit != "s"
    }
    for row in rows:
        if row.artefact is not None:
            with np.load(folder.path / row.artefact, allow_pickle=False) as arrays:
                content = {name: arrays[name].tobytes() for name in sorted(arrays)}
            found[f"artefact {row.key}"] = content
    for path in sorted((place / "home" / "runs" / "checkpoints").rglob("*")):
        if path.is_file() and path.name == "weights.safetensors":
            found[f"weights {path.parent.name}"] = path.read_bytes()
    data = place / "home" / "data"
    for path in sorted(data.rglob("*.h5")) if data.is_dir() else ():
        found[f"data {path.name}"] = path.read_bytes()
    return found


def _out_of_memory(place: Path) -> bool:
    """Return whether rows say so of a cell, and nothing worse is in any other."""
    statuses = {row.status for row in latest(RunFolder(place / "out").rows())}
    return statuses <= {"ok", "oom"} and "oom" in statuses


def _judged(
    place: Path,
    faults: list[str],
    codes: list[int | None],
    wanted: dict[str, object],
    forced: bool,
) -> str:
    """Say what a trial came to: ``the same``, or what is wrong."""
    log = (place / "log").read_text(errors="replace")
    if codes[-1] is None:
        return "blocked"
    if any(c is None and f != "no memory" for f, c in zip(faults, codes, strict=False)):
        return "hung"
    if codes[-1] != ExitCode.OK:
        return f"exit code {codes[-1]} of the last run"
    content = (place / "out" / "rows.jsonl").read_bytes()
    if not content.endswith(b"\n"):
        return "torn line"
    try:
        for line in content.splitlines():
            json.loads(line)
        rows = RunFolder(place / "out").rows()
        found = _found(place)
    except Exception as error:
        return f"unreadable: {error}"
    # --force adds what it does again to what was there, as a run of its own.
    times = collections.Counter(
        (row.protocol, row.key, row.run_id if forced else "") for row in rows if row.status == "ok"
    )
    if twice := [key for key, number in times.items() if number > 1]:
        return f"rows twice: {twice[0]}"
    if found.keys() != wanted.keys():
        return f"more or less than wanted: {sorted(found.keys() ^ wanted.keys())[0]}"
    if other := [name for name in wanted if wanted[name] != found[name]]:
        return f"another {other[0]}"
    left = [
        path.name
        for path in (place / "out", place / "home")
        for path in path.rglob("*")
        if path.suffix in (".lease", ".part", ".tmp") or path.name.startswith("step-")
    ]
    if left:
        return f"left behind: {left[0]}"
    # A want of memory may come anywhere; every other end is one line.
    if "Traceback" in log and "memory" not in log.lower():
        return "traceback"
    return "the same"


def table(results: list[dict]) -> str:
    """Return the trials by their first fault as a Markdown table."""
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for result in results:
        for name in (result["faults"][0], "all"):
            counts[name]["trials"] += 1
            counts[name]["runs"] += len(result["faults"])
            runs = result["codes"][: len(result["faults"])]
            counts[name]["ended early"] += sum(code != 0 for code in runs)
            counts[name]["hung"] += sum(code is None for code in result["codes"])
            counts[name]["forced"] += result["forced"]
            counts[name]["the same"] += result["outcome"] == "the same"
    columns = ("trials", "runs", "ended early", "hung", "forced", "the same")
    lines = [f"| first fault | {' | '.join(columns)} |", "| --- |" + " --: |" * len(columns)]
    for name in (*FAULTS, "all"):
        lines.append(f"| {name} | {' | '.join(str(counts[name][c]) for c in columns)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--real", action="store_true", help="the smoke preset, as users run it")
    parser.add_argument("--keep", type=Path, help="folder for the trials that went wrong")
    flags = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as name:
        grid = real_grid() if flags.real else small_grid(Path(name, "toy"))
        for result in trials(grid, flags.trials, flags.seed, flags.keep):
            results.append(result)
            print(json.dumps(result), file=sys.stderr, flush=True)
    print(table(results))
    return int(any(result["outcome"] != "the same" for result in results))


if __name__ == "__main__":
    sys.exit(main())
