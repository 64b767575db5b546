"""Run folders into one: every cell once, whole, with all that it names; contradictions refused."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import replace

import pytest

from bench.config import Shard, UsageError
from bench.records import Row, RunFolder, merge_folders
from bench.reporting.build import write_report

COMMAND = (["evaluate.py"], {}, {"cpu": "toy", "cores": 2}, {"torch": "2"}, None)


def row_of(cell: str, value: float | None = 30.0, **fields) -> Row:
    given = {"cell_id": cell, "protocol": "toy", "kind": "accuracy", "method": cell,
             "metric": "PSNR", "unit": "dB", "direction": "higher", "run_id": "r"}  # fmt: skip
    return Row(**{**given, "value": value, "samples": [value, value], **fields})


def make(path, *cells: Row, config=None, artefact: str | None = None) -> RunFolder:
    folder = RunFolder(path)
    run = folder.begin(*COMMAND)
    for row in cells:
        row = replace(row, run_id=run)
        if artefact is not None:
            name = f"artefacts/{row.cell_id}-{run}.npz"
            (path / "artefacts").mkdir(exist_ok=True)
            (path / name).write_text(artefact)
            row = replace(row, artefact=name)
        folder.append([row], config or {"backbone": {"modes": 8}})
    folder.end(run, "ok")
    return folder


def read(path) -> dict[str, float | None]:
    return {row.cell_id: row.value for row in RunFolder(path).rows()}


def test_rows_cells_runs_views_and_files_move_along(tmp_path):
    one = make(tmp_path / "a", row_of("x"), artefact="of a")
    make(tmp_path / "b", row_of("y", math.inf), row_of("z", math.nan), artefact="of b")
    (tmp_path / "b" / "view-toy.json").write_text("{}")
    merged = merge_folders(tmp_path / "out", [tmp_path / "a", tmp_path / "b"])
    assert (merged.cells, merged.rows, merged.artefacts, merged.runs) == (3, 3, 3, 2)
    out = RunFolder(tmp_path / "out")
    assert [row.cell_id for row in out.rows()] == ["x", "y", "z"]
    assert out.rows()[0] == one.rows()[0] and out.rows()[1].value == math.inf
    assert out.runs().keys() == one.runs().keys() | RunFolder(tmp_path / "b").runs().keys()
    texts = [(out.path / row.artefact).read_text() for row in out.rows()]
    assert texts == ["of a", "of b", "of b"]
    assert (out.path / "view-toy.json").read_text() == "{}"
    # Once more, and with what there is by now: nothing changes.
    before = out.rows_path.read_bytes(), out.cells_path.read_bytes()
    merge_folders(out.path, [tmp_path / "a", tmp_path / "b"])
    assert (out.rows_path.read_bytes(), out.cells_path.read_bytes()) == before
    _, paths, _ = write_report(out.rows(), out.runs(), {}, tmp_path / "report", title="merged")
    assert "30" in paths[-1].read_text("utf-8")


def test_rows_that_an_older_one_was_replaced_by_are_the_only_ones_taken(tmp_path):
    make(tmp_path / "a", row_of("x", 1.0), row_of("x", 2.0))
    merge_folders(tmp_path / "out", [tmp_path / "a"])
    assert read(tmp_path / "out") == {"x": 2.0}
    assert len(RunFolder(tmp_path / "out").rows()) == 1


def test_other_numbers_are_refused_unless_one_is_chosen(tmp_path):
    make(tmp_path / "a", row_of("x", 30.0), row_of("y"))
    make(tmp_path / "b", row_of("x", 30.5), row_of("z"))
    sources = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(UsageError, match=r"cell x \(toy x\): PSNR is 30.0 in .*a and 30.5 in .*b"):
        merge_folders(tmp_path / "out", sources)
    assert not (tmp_path / "out").exists()
    merge_folders(tmp_path / "first", sources, "first")
    assert read(tmp_path / "first") == {"x": 30.0, "y": 30.0, "z": 30.0}
    merge_folders(tmp_path / "last", sources, "last")
    assert read(tmp_path / "last") == {"x": 30.5, "y": 30.0, "z": 30.0}


def test_a_mean_may_agree_where_images_do_not(tmp_path):
    make(tmp_path / "a", row_of("x", 2.0, samples=[1.0, 3.0]))
    make(tmp_path / "b", row_of("x", 2.0, samples=[2.0, 2.0]))
    with pytest.raises(UsageError, match="by other samples"):
        merge_folders(tmp_path / "out", [tmp_path / "a", tmp_path / "b"])


def test_clocks_may_differ_and_equal_numbers_are_taken_once(tmp_path):
    clock = {"metric": "train_seconds", "kind": "training", "unit": "s"}
    for name, seconds in (("a", 3.0), ("b", 4.0)):
        make(tmp_path / name, row_of("x", math.nan), row_of("x", seconds, **clock))
    merge_folders(tmp_path / "out", [tmp_path / "a", tmp_path / "b"])
    rows = RunFolder(tmp_path / "out").rows()
    assert [(row.metric, row.value) for row in rows[1:]] == [("train_seconds", 3.0)]


@pytest.mark.parametrize(
    ("a", "b", "line"),
    [
        ({"protocol_version": 1}, {"protocol_version": 2, "cell_id": "y"},
         r"toy: version 1 in .*a and version 2 in .*b; numbers of different versions"),
        ({"config": {"sampler": {"steps": 5}}}, {"config": {"sampler": {"steps": 9}}},
         r"sampler.steps is 5 in .*a and 9 in .*b; one id must have one configuration"),
    ],
)  # fmt: skip
def test_other_versions_and_other_settings_are_refused(a, b, line, tmp_path):
    make(tmp_path / "a", row_of("x", **a))
    make(tmp_path / "b", replace(row_of("x"), **b))
    for keep in (None, "first"):
        with pytest.raises(UsageError, match=line):
            merge_folders(tmp_path / "out", [tmp_path / "a", tmp_path / "b"], keep)


def test_a_label_is_no_setting(tmp_path):
    make(tmp_path / "a", row_of("x"), config={"preset": "smoke"})
    make(tmp_path / "b", row_of("x"), config={"preset": "laptop"})
    assert merge_folders(tmp_path / "out", [tmp_path / "a", tmp_path / "b"]).cells == 1


def test_what_was_measured_counts_more_than_a_failure(tmp_path):
    failed = {"metric": None, "value": None, "samples": None, "reason": "why"}
    make(tmp_path / "a", row_of("x", status="error", **failed), row_of("y"))
    make(tmp_path / "b", row_of("x"), row_of("y", status="oom", **failed))
    merge_folders(tmp_path / "out", [tmp_path / "a", tmp_path / "b"])
    assert read(tmp_path / "out") == {"x": 30.0, "y": 30.0}


def test_every_conflict_has_its_line(tmp_path, caplog):
    make(tmp_path / "a", row_of("x", 1.0), row_of("y", 1.0))
    make(tmp_path / "b", row_of("x", 2.0), row_of("y", 2.0))
    with caplog.at_level(logging.ERROR), pytest.raises(UsageError, match="2 conflicts"):
        merge_folders(tmp_path / "out", [tmp_path / "a", tmp_path / "b"])
    assert [line.split(" (")[0] for line in caplog.messages] == ["cell x", "cell y"]


def test_a_row_cannot_name_a_file_outside_its_folder(tmp_path):
    (tmp_path / "secret").touch()
    make(tmp_path / "a", row_of("x", artefact="../secret"))
    with pytest.raises(UsageError, match="lies outside"):
        merge_folders(tmp_path / "out", [tmp_path / "a"])


def test_a_run_that_was_copied_while_it_ran_is_the_same_run(tmp_path):
    folder = make(tmp_path / "b", row_of("x"))
    merge_folders(tmp_path / "a", [folder.path])
    (path,) = (tmp_path / "a").glob("run-*.json")
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"status": "running", "ended_at": None}))
    merge_folders(tmp_path / "a", [folder.path])
    assert json.loads(path.read_text()) == record
    path.write_text(json.dumps(record | {"commit": "another"}))
    with pytest.raises(UsageError, match="is one thing in"):
        merge_folders(tmp_path / "a", [folder.path])


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_part_a_grid(count):
    items = [f"{i * 7919 % 1000:03x}" for i in range(20)]
    alone = set(items[::6])
    parts = [
        Shard(i, count).deal(items, lambda item: item, alone.__contains__)
        for i in range(1, count + 1)
    ]
    assert sorted(item for part in parts for item in part) == sorted(items)
    assert alone <= set(parts[0])
    sizes = [len([item for item in part if item not in alone]) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    shuffled = Shard(1, count).deal(items[::-1], lambda item: item, alone.__contains__)
    assert set(shuffled) == set(parts[0])


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "1/2/3", "-1/2", ""])
def test_what_is_no_shard_is_one_line(text):
    with pytest.raises(UsageError, match=r"^--shard .*: expected i/n with 1 <= i <= n, e.g. \d/\d"):
        Shard.parse(text)
