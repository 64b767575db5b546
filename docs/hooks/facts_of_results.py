"""What committed results and the paper say: tables, figures, how long runs took."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from writing import table

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "results" / "published"
_SPREAD = "\u00a0±\u00a0"  # a mean and its deviation stay on one line, and so does an interval
_INTERVAL = re.compile(r" \[([^],|]*), ([^],|]*)\]")
_PICTURES = (".svg", ".webp", ".png")
_LEFT_OUT = {"--out": 1, "--quiet": 0, "--jobs": 1}
"""Flags of a command, with the number of their values, that say nothing of what it ran."""


def rows(path: str) -> str:
    """A committed table, ``folder/stem``, with what its file says below it folded away."""
    text = (PUBLISHED / _parted(path, "tables", (".md",))).read_text(encoding="utf-8")
    text = _INTERVAL.sub("\u00a0[\\1,\u00a0\\2]", text.replace(" ± ", _SPREAD))
    title, _, rest = text.partition("\n\n")
    body, _, below = rest.partition("\n\n")
    notes = "".join(f"    - {line}\n" for line in below.splitlines() if line.strip())
    folded = f'\n\n??? note "Below this table, in its file"\n{notes}' if notes else ""
    return f"{title}\n\n{body.strip()}{folded}"


def ranking(path: str, metric: str) -> str:
    """The lines of a committed table in order of one metric, the best first."""
    from bench.records import METRIC_SPECS

    with (PUBLISHED / _parted(path, "tables", (".csv",))).open(encoding="utf-8") as file:
        lines = [line for line in csv.DictReader(file) if line["metric"] == metric]
    found = {line["method"]: float(line["center"]) for line in lines if line["center"]}
    if len(found) < 2:
        raise ValueError(f"fact ranking: {path} has no {metric} of two methods")
    best = METRIC_SPECS[metric].direction == "higher"
    order = sorted(found, key=found.__getitem__, reverse=best)
    said = ", ".join(f"`{method}` {found[method]:.3f}" for method in order)
    return f"Ours in order of {METRIC_SPECS[metric].label}: {said}."


def figure(path: str, *words: str) -> str:
    """A committed figure, ``folder/stem``, in words for who cannot see it; a click enlarges it."""
    if not words:
        raise ValueError(f"fact figure {path}: expected words that describe it")
    found = _parted(path, "figures", _PICTURES)
    return f"[![{' '.join(words)}](/published/{found})](/published/{found})"


def _parted(path: str, room: str, suffixes: Sequence[str]) -> str:
    """Return ``folder/room/stem.suffix``, the first that is committed."""
    folder, _, stem = path.partition("/")
    for suffix in suffixes:
        if (PUBLISHED / folder / room / f"{stem}{suffix}").is_file():
            return f"{folder}/{room}/{stem}{suffix}"
    raise FileNotFoundError(f"no {path} ({' or '.join(suffixes)}) in {room} of results/published")


def bill(*studies: str) -> str:
    """How long committed runs took from start to end, of the first study that has any.

    The studies after the first share its trainings.
    """
    for study in studies:
        runs = list(_runs(study))
        if runs:
            break
    else:
        return (
            f"- **On a laptop**: not measured; no run of `{studies[0]}` is committed yet.\n"
            "- **On a GPU**: not measured."
        )
    said = ""
    if study != studies[0]:
        said = (
            f"No run of `{studies[0]}` is committed yet. Its trainings are those of `{study}`, "
            "which are:\n\n"
        )
    lines = [
        f"- {_duration(run)} for {cells} cells of `{_command(run)}` ({_machine(run['machine'])})"
        for run, cells in runs
    ]
    if not any(run["machine"].get("gpu") for run, _ in runs):
        lines.append("- **On a GPU**: not measured.")
    return said + "\n".join(lines)


def _runs(study: str) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield the finished runs of a study that added cells, and how many each added."""
    for path in sorted(PUBLISHED.glob("*/run-*.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        if Path(run["command"][0]).stem != study or not run.get("ended_at"):
            continue
        with (path.parent / "rows.jsonl").open(encoding="utf-8") as lines:
            parsed = map(json.loads, lines)
            cells = {row["cell_id"] for row in parsed if row["run_id"] == run["run_id"]}
        if cells:
            yield run, len(cells)


def _command(run: dict[str, Any]) -> str:
    words, skip = [], 0
    for word in run["command"]:
        if skip:
            skip -= 1
        elif word in _LEFT_OUT:
            skip = _LEFT_OUT[word]
        else:
            words.append(word)
    return shlex.join(["python", *words])


def _duration(run: dict[str, Any]) -> str:
    start, end = (datetime.fromisoformat(run[key]) for key in ("started_at", "ended_at"))
    minutes = (end - start).total_seconds() / 60
    return f"{minutes / 60:.1f} h" if minutes >= 90 else f"{minutes:.0f} min"


def _machine(machine: dict[str, Any]) -> str:
    gpu = machine.get("gpu")
    name = gpu.get("name", gpu) if isinstance(gpu, dict) else gpu
    return name or f"{machine['cpu']}, {machine['cores']} cores, {machine['ram_gib']:.0f} GiB"


def paper_table(number: str) -> str:
    """A table of the paper: mean ± standard deviation over its test images."""
    cells: dict[str, dict[tuple[str, ...], str]] = {}
    with (ROOT / "results" / "paper" / f"table{number}.csv").open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            key = (line["dataset"], line["split"], line["metric"])
            spread = f"{_SPREAD}{line['std']}" if line["std"] else ""
            row = cells.setdefault(line["method"], {})
            row[key] = f"{line['mean']}{spread}"
    keys = list(dict.fromkeys(key for row in cells.values() for key in row))
    places = {key[:2] for key in keys}
    header = [key[2] if len(places) == 1 else f"{key[2]}, {_place(key, places)}" for key in keys]
    lines = [(method, *(row.get(key) for key in keys)) for method, row in cells.items()]
    return table(("method", *header), lines, right=header)


def _place(key: tuple[str, ...], places: set[tuple[str, ...]]) -> str:
    """Return what tells a column's place from the others': data set or resolution."""
    return key[0] if len({dataset for dataset, _ in places}) > 1 else key[1]


def paper_words(number: str) -> str:
    """What the paper's text says of a figure that prints no numbers."""
    with (ROOT / "results" / "paper" / "figures.csv").open(encoding="utf-8") as file:
        lines = [
            (f"{line['value']} {line['setting']}", line["words"])
            for line in csv.DictReader(file)
            if line["figure"] == number
        ]
    return table(("setting", "the paper's words"), lines)


def ratios(path: str, reference: str, other: str) -> str:
    """How many times more one backbone costs than another, by size, from a committed cost table."""
    values: dict[tuple[str, str, str], dict[str, float]] = {}
    with (PUBLISHED / _parted(path, "tables", (".csv",))).open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            if line["center"]:
                key = (line["size"], line["batch"], line["metric"])
                values.setdefault(key, {})[line["backbone"]] = float(line["center"])
    lines = [
        (_label(metric), size, batch, f"{of[other] / of[reference]:.2g}")
        for (size, batch, metric), of in values.items()
        if {reference, other} <= set(of) and size == next(iter(values))[0] and metric != "params"
    ]
    header = ("what", "pixels", "batch", f"{other} / {reference}")
    return table(header, lines, right=header[1:])


def _label(metric: str) -> str:
    from bench.records import METRIC_SPECS

    return METRIC_SPECS[metric].label


FACTS = (rows, ranking, figure, bill, paper_table, paper_words, ratios)
