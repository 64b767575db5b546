"""Feed readers broken files, by the thousand, and say how each took it.

    python tests/fuzz/torture.py --count 2000 --seed 0

Every file is made anew from the seed and its number, and read in a process that may ask for 2 GiB
and take 10 seconds. Outcomes: clear (one line, as meant for users), right (the sound file's
values, or what stands where pixels stand), traceback, memory, hang, crash, code (a file's code was
run), changed (other values, and not a word).
"""

from __future__ import annotations

import argparse
import collections
import importlib
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np

from tests.fuzz.kinds import Kind
from tests.fuzz.mutations import mutate

__all__ = ["BAD", "MODULES", "OUTCOMES", "table", "torture"]

MODULES = ("tests.fuzz.data_files", "tests.fuzz.record_files")
"""Modules whose ``KINDS`` take part."""
OUTCOMES = ("clear", "right", "traceback", "memory", "hang", "crash", "code", "changed")
BAD = ("traceback", "memory", "hang", "crash", "code")
_MEMORY = 2 << 30
_SECONDS = 10
_ODD_SHARE = 0.3
_MARK = "code-was-run"


def kinds(only: str = "") -> list[Kind]:
    found = [kind for name in MODULES for kind in importlib.import_module(name).KINDS]
    return [kind for kind in found if only.lower() in kind.name.lower()]


def torture(
    count: int, seed: int, *, only: str = "", keep: Path | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the number, reader, fault, outcome and words of each of ``count`` files.

    Args:
        count: files; readers take turns.
        seed: equal seeds, equal files.
        only: part of the readers' names; empty: all of them.
        keep: folder for the files whose outcome is bad or ``changed``.
    """
    start = 0
    while start < count:
        command = [sys.executable, __file__, "--worker", str(start)]
        command += ["--count", str(count), "--seed", str(seed), "--only", only]
        command += ["--keep", str(keep.resolve())] if keep else []
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as worker:
            for result in _results(worker):
                yield result
                start = result["number"] + 1
            ended = worker.poll()
            worker.kill()
        if start < count:
            outcome, words = ("hang", "") if ended is None else ("crash", f"exit code {ended}")
            kind = kinds(only)[start % len(kinds(only))].name
            yield {"number": start, "kind": kind, "fault": "", "outcome": outcome, "words": words}
            start += 1


def _results(worker: subprocess.Popen) -> Iterator[dict[str, Any]]:
    """Yield what a worker says, until it ends or says nothing for too long."""
    pending = b""
    patience = 60.0  # until it has imported everything
    while select.select([worker.stdout], [], [], patience)[0]:
        more = os.read(worker.stdout.fileno(), 65536)
        if not more:
            worker.wait()
            return
        *lines, pending = (pending + more).split(b"\n")
        for line in lines:
            yield json.loads(line)
        patience = 3.0 * _SECONDS


def table(results: list[dict[str, Any]]) -> str:
    """Return the outcomes by reader as a Markdown table."""
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for result in results:
        counts[result["kind"]][result["outcome"]] += 1
        counts["all"][result["outcome"]] += 1
    lines = [f"| reader | files | {' | '.join(OUTCOMES)} |", "| --- |" + " --: |" * 9]
    for name in sorted(counts, key=lambda name: (name == "all", name)):
        numbers = [sum(counts[name].values()), *(counts[name][outcome] for outcome in OUTCOMES)]
        lines.append(f"| {name} | {' | '.join(map(str, numbers))} |")
    return "\n".join(lines)


def work(start: int, count: int, seed: int, only: str, keep: Path | None) -> None:
    """Make and read files ``start`` to ``count``; print a line of JSON for each."""
    found = kinds(only)
    sound = {}
    limit = _address_space() + _MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGALRM, _too_long)
    for number in range(start, count):
        kind = found[number % len(found)]
        rng = np.random.default_rng([seed, number])
        with tempfile.TemporaryDirectory() as name:
            os.chdir(name)
            folder = Path(name, "case")
            folder.mkdir()
            fault, pixels = _break(kind, folder, rng, sound)
            outcome, words = _read(kind, folder, None if fault[0] == "odd" else sound[kind.name])
            # Strange files have no sound one to be compared with; pixels are not what we guard.
            if outcome == "changed" and (pixels or fault[0] == "odd"):
                outcome = "right"
            if Path(_MARK).exists() or (folder / _MARK).exists():
                outcome = "code"
            if keep and outcome in (*BAD, "changed"):
                shutil.copytree(folder, keep / f"{number}-{outcome}", dirs_exist_ok=True)
            os.chdir("/")
        print(
            json.dumps(
                {"number": number, "kind": kind.name, "fault": " ".join(fault), "outcome": outcome,
                 "words": words}
            ),
            flush=True,
        )  # fmt: skip


def _break(
    kind: Kind, folder: Path, rng: np.random.Generator, sound: dict[str, str]
) -> tuple[list[str], bool]:
    """Write a broken input; return its faults, and whether they hit nothing but pixels."""
    path = kind.write(folder, np.random.default_rng(0))
    if kind.name not in sound:
        sound[kind.name] = kind.read(folder)
    if kind.odd and rng.random() < _ODD_SHARE:
        which = int(rng.integers(len(kind.odd)))
        path.unlink()
        kind.odd[which](folder, rng)
        return ["odd", str(which)], False
    before = path.read_bytes()
    runs = [(before.find(run), len(run)) for run in kind.raw(folder)]
    content = bytearray(before)
    names = mutate(content, rng)
    path.write_bytes(content)
    # Equal but for the runs of pixels, and for what follows the end?
    after = content[: len(before)]
    for start, length in runs:
        if start >= 0:
            after[start : start + length] = before[start : start + length]
    return names, len(content) >= len(before) and after == before


def _read(kind: Kind, folder: Path, expected: str | None) -> tuple[str, str]:
    from bench.config import BenchError

    signal.alarm(_SECONDS)
    try:
        got = kind.read(folder)
    except BenchError as error:
        words = str(error).replace(str(folder), "")
        if "more memory than there is" in words:
            return "memory", words
        return ("clear" if len(words.splitlines()) == 1 else "traceback"), words
    except _TooLongError:
        return "hang", traceback.format_exc()
    except BaseException:
        return "traceback", traceback.format_exc()
    finally:
        signal.alarm(0)
    return ("right" if got == expected else "changed"), ""


class _TooLongError(BaseException):
    """Past every handler of Exception."""


def _too_long(*_: object) -> None:
    raise _TooLongError


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000, help="files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="part of a reader's name")
    parser.add_argument("--keep", type=Path, help="folder for files with a bad outcome")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.worker is not None:
        work(flags.worker, flags.count, flags.seed, flags.only, flags.keep)
        return 0
    results = []
    for result in torture(flags.count, flags.seed, only=flags.only, keep=flags.keep):
        results.append(result)
        if result["outcome"] in (*BAD, "changed"):
            print(json.dumps(result), file=sys.stderr)
    print(table(results))
    return int(any(result["outcome"] in BAD for result in results))


if __name__ == "__main__":
    sys.exit(main())
