"""Rows, cells, records of runs and views of anybody, read and shown as a report reads and shows."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np

from bench.records import Row, RunFolder, View, load_rows, load_runs, load_views, write_view
from bench.reporting.build import build_sections
from tests.fuzz.kinds import Kind, Rng

__all__ = ["KINDS"]


def _folder(name: str, folder: Path, _rng: Rng) -> Path:
    run = RunFolder(folder)
    run_id = run.begin(["x"], {}, {"cpu": "Xeon", "cores": 2}, {"python": "3"}, None)
    (folder / f"run-{run_id}.json").rename(folder / "run-r.json")
    record = json.loads((folder / "run-r.json").read_text())
    (folder / "run-r.json").write_text(json.dumps({**record, "run_id": "r"}))
    for modes in (8, 12):
        common = {"run_id": "r", "cell_id": f"c{modes}", "protocol": "p", "method": "m",
                  "backbone": "fno", "dataset": "d", "split": "reduced", "seed": 0}  # fmt: skip
        rows = [
            Row(**common, kind="accuracy", metric="PSNR", value=30.0 + modes, unit="dB",
                direction="higher", samples=[30.0, 31.0], n=2),
            Row(**common, kind="training", metric="train_seconds", value=3.0, unit="s",
                direction="lower"),
        ]  # fmt: skip
        run.append(rows, {"backbone": {"modes": modes}, "sampler": {"tile": None}})
    write_view(View("p", "P", axis="backbone.modes", reference={"backbone.modes": 8}), folder)
    return folder / name


def _read(folder: Path) -> str:
    rows = load_rows(folder)
    runs = load_runs(folder, broken=True)
    sections = build_sections(rows, runs, load_views(folder))
    return repr([table.cells.to_csv() for section in sections for table in section.tables])


def _line(name: str, change: dict, folder: Path, rng: Rng) -> None:
    """Write the file anew with some fields of its first record changed."""
    path = _folder(name, folder / "again", rng)
    text = path.read_text()
    first, *rest = text.splitlines() if name.endswith("l") else [text]
    record = json.loads(first)
    (folder / name).write_text("\n".join([json.dumps({**record, **change}), *rest, ""]))


_STRANGE = (
    *({"metric": value} for value in ([1], 7, "../../x", "=1+1", "<b>", "\u2028")),
    *({"samples": value} for value in ("inf", [None], [[1]], ["nan", "inf"], [], [True])),
    *({"value": value} for value in ("abc", "nan", 10**400, True)),
    *({"config": value} for value in ([], {"backbone": 3}, {"a": {"b": {"c": [[1], {}]}}})),
    {"schema_version": 99}, {"schema_version": "x"}, {"schema_version": 1}, {"unit": "deg"},
    {"protocol": "../../victim"}, {"cell_id": 3}, {"cell_id": "c12"}, {"dataset": "/etc/x"},
    {"blocks": ["nothing"]}, {"blocks": "accuracy"}, {"axis": 3}, {"reference": {"x": [1]}},
    {"machine": None}, {"machine": {"gpu": 3}}, {"run_id": None}, {"study": "../x"},
)  # fmt: skip
_TEXTS = ("", "[1]", "null", "{", "[" * 50_000, '{"a": "\udcff"}', "1e999", "\x00" * 64)


def _kind(name: str) -> Kind:
    changes = [partial(_line, name, change) for change in _STRANGE]
    return Kind(name, partial(_folder, name), _read, [*changes, *_texts(name)])


def _texts(name: str) -> list[partial]:
    return [partial(_write, name, text) for text in _TEXTS]


def _write(name: str, text: str, folder: Path, _rng: np.random.Generator) -> None:
    (folder / name).write_bytes(text.encode("utf-8", "surrogateescape") + b"\n")


KINDS = tuple(map(_kind, ("rows.jsonl", "cells.jsonl", "run-r.json", "view-p.json")))
