"""Rows: what is written comes back, whoever else writes and whenever the writer dies."""

from __future__ import annotations

import csv
import json
import math
import multiprocessing
import os
import platform
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.config import MissingError, UsageError, config_hash
from bench.records import (
    Row,
    RunFolder,
    data_dictionary,
    decode_row,
    encode_row,
    export_csv,
    export_samples_csv,
    latest,
    load_rows,
    load_runs,
    settings,
    to_frame,
)
from bench.records.grouping import split_lines
from bench.records.lines import complete, flat
from bench.records.migration import migrated

ROOT = Path(__file__).parents[2]


def make_row(cell="c0", metric="PSNR", **fields):
    common = {"run_id": "r", "protocol": "test", "kind": "accuracy", "method": "nodiff"}
    return Row(**common | {"cell_id": cell, "metric": metric, "value": 30.0} | fields)


def begin(folder, **given):
    defaults = {"command": ["bench/x.py"], "config": {}, "machine": {}, "versions": {}}
    return folder.begin(**defaults | {"commit": None} | given)


# Schema


def test_round_trip_keeps_every_field_and_type():
    row = make_row(
        config={"modes": 12, "rate": 1e-4, "nested": {"steps": 25}},
        size=64,
        samples=[1.5, None, 2.0],
        n=2,
        seed=0,
        value=0.1 + 0.2,
    )
    again = decode_row(json.loads(encode_row(row)))
    assert again == row
    assert type(again.size) is int and type(again.config["modes"]) is int
    assert config_hash(again.config) == config_hash(row.config)


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinite_values_survive_in_valid_json(value):
    line = encode_row(make_row(value=value, samples=[value, 1.0]))
    record = json.loads(line, parse_constant=lambda name: pytest.fail(f"not JSON: {name}"))
    assert isinstance(record["value"], str)
    again = decode_row(record)
    assert again.value == value and again.samples == [value, 1.0]


def test_nan_is_not_missing():
    again = decode_row(json.loads(encode_row(make_row(value=math.nan, samples=[math.nan, None]))))
    assert math.isnan(again.value) and math.isnan(again.samples[0]) and again.samples[1] is None
    assert json.loads(encode_row(make_row(value=None)))["value"] is None


def test_numpy_numbers_become_plain_ones():
    row = make_row(size=np.int64(64), value=np.float32(0.5), samples=np.array([1.0, np.inf]))
    record = json.loads(encode_row(row))
    assert record["size"] == 64 and record["value"] == 0.5 and record["samples"] == [1.0, "inf"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "acuracy"}, "did you mean 'accuracy'"),
        ({"status": "OOM", "reason": "x"}, "ok, oom, diverged"),
        ({"status": "oom"}, "needs a reason"),
        ({"direction": "up"}, "higher, lower"),
        ({"split": "test"}, "reduced, full"),
    ],
)
def test_a_word_outside_its_list_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        make_row(**fields)


def test_rows_of_a_newer_schema_and_unknown_fields_are_refused():
    record = json.loads(encode_row(make_row()))
    with pytest.raises(ValueError, match="schema 99"):
        decode_row(record | {"schema_version": 99})
    with pytest.raises(ValueError, match="colour"):
        decode_row(record | {"colour": "red"})


def test_data_dictionary_of_results_is_up_to_date():
    assert data_dictionary() in (ROOT / "results" / "README.md").read_text("utf-8")


# Store


def test_append_then_read_in_order(tmp_path):
    folder = RunFolder(tmp_path / "new")
    folder.append([make_row("a"), make_row("a", "SAM")])
    folder.append([make_row("b")])
    assert [row.cell_id for row in folder.rows()] == ["a", "a", "b"]
    assert load_rows(tmp_path) == load_rows(folder.rows_path) == folder.rows()


def test_torn_last_line_is_ignored_then_repaired(tmp_path):
    folder = RunFolder(tmp_path)
    folder.append([make_row("a"), make_row("b")])
    whole = folder.rows_path.read_bytes()
    folder.rows_path.write_bytes(whole[:-20])
    assert [row.cell_id for row in folder.rows()] == ["a"]
    folder.append([make_row("b")])
    assert folder.rows_path.read_bytes() == whole


def test_a_broken_line_is_named(tmp_path):
    folder = RunFolder(tmp_path)
    folder.rows_path.write_text("{}\n")
    with pytest.raises(UsageError, match=r"rows\.jsonl:1: "):
        folder.rows()
    with pytest.raises(MissingError, match=r"rows\.jsonl"):
        load_rows(tmp_path / "elsewhere")


def _append_cells(path, writer):
    folder = RunFolder(path)
    for index in range(8):
        folder.append([make_row(f"{writer}-{index}", metric) for metric in ("PSNR", "SAM")])


def test_concurrent_writers_lose_nothing_and_keep_cells_together(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append_cells, args=(tmp_path, n)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    rows = RunFolder(tmp_path).rows()
    assert len(rows) == 4 * 8 * 2
    assert len({row.key for row in rows}) == len(rows)
    assert all(a.cell_id == b.cell_id for a, b in zip(rows[::2], rows[1::2], strict=True))


def test_a_killed_writer_leaves_whole_cells_and_no_lock(tmp_path):
    script = (
        "import sys; from tests.unit.test_records import make_row, RunFolder\n"
        "folder, index = RunFolder(sys.argv[1]), 0\n"
        "while True:\n"
        "    folder.append([make_row(str(index), m, samples=[0.5] * 999) for m in 'ab'])\n"
        "    index += 1\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    folder = RunFolder(tmp_path)
    for _ in range(2):
        command = [sys.executable, "-c", script, str(tmp_path)]
        before = len(folder.rows()) if folder.rows_path.exists() else 0
        with subprocess.Popen(command, env=environment) as writer:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                if folder.rows_path.exists() and len(folder.rows()) > before + 10:
                    break
            writer.send_signal(signal.SIGKILL)
        rows = folder.rows()
        assert len(rows) > before and len(rows) % 2 == 0
        folder.append([make_row("after", "a"), make_row("after", "b")])


def test_finished_leaves_what_a_repeat_may_mend(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.finished() == set()
    folder.append([make_row("ok"), make_row("ok", "SAM", status="oom", reason="8 GiB", value=None)])
    folder.append([make_row("ok", "ERGAS", status="skip", reason="1024 pixels", value=None)])
    folder.append([make_row("error", None, status="error", reason="x", value=None)])
    folder.append([make_row("part"), make_row("part", "SAM", status="timeout", reason="60 s")])
    assert folder.finished() == {"ok"}
    folder.append([make_row("error")])
    assert folder.finished() == {"ok", "error"}


def test_last_row_of_a_key_wins_and_whole_cell_failures_yield(tmp_path):
    failure = make_row("a", None, status="error", reason="x", value=None)
    first, second = make_row("a", value=1.0), make_row("a", value=2.0)
    assert latest([first, second]) == [second]
    assert latest([first, make_row("a", "SAM"), failure]) == [failure]
    assert latest([first, failure, second]) == [second]
    artefact = make_row("a", None, kind="artefact", artefact="features.npz", value=None)
    assert latest([first, artefact]) == [first, artefact]


def test_protocols_that_share_a_cell_keep_their_rows():
    first, second = make_row("a", value=1.0), make_row("a", value=2.0, protocol="other")
    assert latest([first, second]) == [first, second]


def _try_claim(path, answer):
    with RunFolder(path).claim("cell") as claimed:
        answer.put(claimed is not None)


def _claim_and_die(path):
    with RunFolder(path).claim("cell"):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_claim_holds_across_processes_and_ends_with_them(tmp_path):
    context = multiprocessing.get_context("fork")

    def claim_elsewhere():
        answer = context.Queue()
        other = context.Process(target=_try_claim, args=(tmp_path, answer))
        other.start()
        other.join()
        return answer.get(timeout=5)

    with RunFolder(tmp_path).claim("cell") as claimed:
        assert claimed
        assert not claim_elsewhere()
    assert claim_elsewhere()
    dying = context.Process(target=_claim_and_die, args=(tmp_path,))
    dying.start()
    dying.join()
    assert dying.exitcode == -signal.SIGKILL
    assert claim_elsewhere()


def test_run_file_is_there_before_work_and_finalised(tmp_path):
    folder = RunFolder(tmp_path)
    run_id = begin(folder, config={"modes": 12}, versions={"numpy": "2.0"}, commit={"hash": "ab"})
    [path] = tmp_path.glob("run-*.json")
    assert path.name == f"run-{run_id}.json"
    record = json.loads(path.read_text())
    assert record["status"] == "running" and record["config"] == {"modes": 12}
    folder.end(run_id, "ok")
    folder.append([make_row()])
    ended = load_runs(tmp_path)[run_id]
    assert ended["status"] == "ok" and ended["ended_at"] >= record["started_at"]
    assert begin(folder) != run_id


def test_no_host_user_home_or_url_is_stored(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/alice")
    monkeypatch.setattr(platform, "node", lambda: "lab-gpu-7")
    folder = RunFolder(tmp_path)
    run_id = begin(
        folder,
        command=["/home/alice/nodiff/bench/train.py", "--dataset", "/home/alice/pan", "--name=fno"],
        config={"cache": Path("/data/alice/x"), "modes": 12, "note": "alice in text stays"},
        machine={"os": "Linux lab-gpu-7 6.1", "cores": 8},
        commit={"remote": "https://token@example.org/x.git"},
    )
    record = folder.runs()[run_id]
    text = json.dumps(record)
    assert "lab-gpu-7" not in text and "/alice" not in text and "example.org" not in text
    assert record["command"] == ["bench/train.py", "--dataset", "~/pan", "--name=fno"]
    assert record["config"]["modes"] == 12 and record["config"]["note"] == "alice in text stays"
    assert record["machine"]["cores"] == 8


# Frames and export


def test_frame_flattens_settings_and_keeps_integers(tmp_path):
    rows = [
        make_row("a", config={"backbone": {"modes": 8}}, size=64),
        make_row("b", config={"backbone": {"modes": 12}, "tiles": [64, 16]}, size=None),
    ]
    frame = to_frame(rows)
    assert frame["config.backbone.modes"].tolist() == [8, 12]
    assert all(type(modes) is int for modes in frame["config.backbone.modes"])
    assert str(frame["size"].dtype) == "Int64" and frame["size"].isna().tolist() == [False, True]
    assert frame.loc[1, "config.tiles"] == (64, 16)
    assert to_frame([]).empty and "metric" in to_frame([]).columns


def test_csv_has_the_schema_order_and_varying_settings(tmp_path):
    rows = [
        make_row("a", config={"modes": 8, "layers": 4}, samples=[1.0, 2.0], size=64),
        make_row("b", config={"modes": 12, "layers": 4}, value=math.inf),
    ]
    export_csv(rows, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="") as file:
        header, first, second = csv.reader(file)
    documented = re.findall(r"^\|[^|]*\| `(\w+)`", data_dictionary(), re.MULTILINE)
    documented = [name for name in documented if name not in ("samples", "config")]
    assert header == [*documented, "config.modes"]
    first, second = (dict(zip(header, line, strict=True)) for line in (first, second))
    assert first["size"] == "64" and second["size"] == "" and second["value"] == "inf"
    assert (first["config.modes"], second["config.modes"]) == ("8", "12")

    export_samples_csv(rows, tmp_path / "samples.csv")
    with (tmp_path / "samples.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["index"], line["value"]) for line in lines] == [("0", "1.0"), ("1", "2.0")]


def test_csv_text_is_no_formula_and_numbers_stay_numbers(tmp_path):
    names = ("=1+1", "+x", "-x", "@x", "\tx")
    rows = [make_row(name, method=name, value=-1.5, config={"name": name}) for name in names]
    export_csv(rows, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["method"] for line in lines] == [f"'{name}" for name in names]
    assert [line["config.name"] for line in lines] == [f"'{name}" for name in names]
    assert {line["value"] for line in lines} == {"-1.5"}


# What a row is of


def test_the_configuration_of_a_cell_is_kept_once_and_joined_to_its_rows(tmp_path):
    folder = RunFolder(tmp_path)
    config = {"sampler": {"tile": None, "steps": 10}, "scheme": "joint"}
    own = make_row(config={"sampler": {"steps": 1}, "timing": {"rounds": 3}})
    folder.append([own, make_row(metric="SAM")], config)
    folder.append([make_row("b")])
    first, second, other = folder.rows()
    assert first.config == {
        "sampler": {"tile": None, "steps": 1}, "scheme": "joint", "timing": {"rounds": 3},
    }  # fmt: skip
    assert second.config == config
    assert other.config == {"unsaid": "b"}  # never taken for another cell's
    assert flat(first.config)["sampler.tile"] == "none"
    assert json.loads(folder.rows_path.read_text().splitlines()[1])["config"] == {}
    assert len(folder.cells_path.read_text().splitlines()) == 1


def test_settings_from_anybody_can_be_keys():
    found = flat({"a": {"b": [[1, {"c": [2]}]]}, "d": None, "e": {}})
    assert found == {"a.b": ((1, (("c", (2,)),)),), "d": "none"}
    assert hash(tuple(found.values()))


OLD_RUN = {
    "config": {
        "experiment": {
            "backbone": "fno", "backbone_options": {"width": 20}, "scheme": "two_stage",
            "patch": 64, "diffusion": {"target": "x0"}, "adapters": {"rank": 8},
            "stage1": {"steps": 200}, "stage2": {"steps": 250},
            "sampler": {"steps": 25, "tile": None}, "evaluation": {"images": None},
        }
    }
}  # fmt: skip


def old_row(**fields):
    row = make_row(backbone="fno", dataset="sample-4", **fields)
    return {**vars(row), "schema_version": 1}


def test_rows_of_schema_1_get_the_configuration_that_their_run_had():
    old = {"modes": 8, "nfe": 10, "tile": 64, "target": "eps", "convention": "dlpan"}
    new = migrated(old_row(config=old | {"preset": "laptop"}), OLD_RUN)["config"]
    assert new["backbone"] == {"width": 20, "layers": 8, "modes": 8, "form": "auto"}
    assert (new["sampler"], new["diffusion"]) == ({"steps": 10, "tile": 64}, {"target": "eps"})
    assert new["evaluation"] == {"images": None, "convention": "dlpan"}
    assert new["data"]["notes"] and new["scale"] == "small"
    joint = migrated(old_row(config={"scheme": "joint"}), OLD_RUN)["config"]
    assert joint["stage2"]["steps"] == 450 and "stage1" not in joint


def test_what_an_old_row_does_not_say_is_unknown_and_no_value():
    new = [migrated(old_row(config={"training": name}), None)["config"] for name in "ab"]
    assert new[0]["sampler"]["tile"] == "unknown" and new[0]["backbone"] == {"options": "unknown"}
    rows = [
        make_row(name, backbone="fno", config=config)
        for name, config in zip("ab", new, strict=True)
    ]
    assert settings(rows[0]) != settings(rows[1])  # at least never two trainings in one line


def test_a_setting_that_came_later_is_filled_in_by_its_historic_value():
    later = make_row(
        "b", backbone="fno", config={
            "backbone": {"modes": 8, "gate": True}, "sampler": {"steps": 2, "order": 2},
            "historic": {"backbone.gate": False, "sampler.order": 1},
        },
    )  # fmt: skip
    old = make_row("a", backbone="fno", config={"backbone": {"modes": 8}, "sampler": {"steps": 2}})
    other = make_row("c", backbone="unet", config={"backbone": {"width": 8}})
    bare = make_row("d", config={})
    filled = complete([old, later, other, bare])
    assert filled[0].config == {
        "backbone": {"modes": 8, "gate": False}, "sampler": {"steps": 2, "order": 1},
    }  # fmt: skip
    assert filled[1:] == [later, other, bare]


FIELDS = {
    "scheme": st.sampled_from(["two_stage", "joint"]),
    "backbone.modes": st.sampled_from([8, 12]),
    "backbone.form": st.sampled_from(["auto", "fft"]),
    "adapters.guidance": st.booleans(),
    "sampler.tile": st.sampled_from([None, 64]),
    "sampler.batch": st.sampled_from([4, 16]),
    "stage1.steps": st.sampled_from([100, 200]),
    "evaluation.full_resolution": st.booleans(),
    "data.fingerprint": st.sampled_from(["a", "b"]),
    "data.notes": st.sampled_from([[], ["simulated"]]),
    "data.full_sets": st.sampled_from([None, [{"name": "the set", "D_s": 0.1}]]),
    "preset": st.sampled_from(["laptop", "paper"]),
    "scale": st.sampled_from(["small", "own defaults"]),
    "training": st.text("ab", max_size=2),
}
EXEMPT = {"data.notes", "data.full_sets", "preset", "scale", "training"}
NO_EFFECT_ON_ACCURACY = {"backbone.form", "sampler.batch", "evaluation.full_resolution"}


@st.composite
def pairs_of_configs(draw):
    """Two configurations that differ in few fields, or in none."""
    first = {name: draw(values) for name, values in FIELDS.items()}
    differ = draw(st.sets(st.sampled_from(sorted(FIELDS)), max_size=3))
    return first, first | {name: draw(FIELDS[name]) for name in sorted(differ)}


def nested(config):
    found = {}
    for name, value in config.items():
        group, _, field = name.rpartition(".")
        found.setdefault(group, {})[field] = value
    return found.pop("", {}) | found


@given(pairs_of_configs(), st.sampled_from(["accuracy", "cost"]), st.booleans())
def test_two_rows_are_one_line_only_if_they_agree_in_all_that_can_change_a_number(
    pair, kind, one_version
):
    exempt = EXEMPT | (NO_EFFECT_ON_ACCURACY if kind == "accuracy" else set())
    rows = [
        make_row(
            str(seed), kind=kind, backbone="fno", seed=seed, config=nested(config),
            backbone_version=1 if one_version else seed + 1,
        )
        for seed, config in enumerate(pair)
    ]  # fmt: skip
    same = one_version and all(a == pair[1][n] for n, a in pair[0].items() if n not in exempt)
    lines = split_lines(to_frame(rows))
    frame, by = lines.frame, list(lines.by)
    assert (len(frame[by].map(repr).drop_duplicates()) == 1) == same
    assert (settings(rows[0]) == settings(rows[1])) == same
    told = {*lines.by, *lines.along} - {"method", "backbone", "backbone_version"}
    differing = {f"config.{n}" for n in pair[0] if n not in exempt and pair[0][n] != pair[1][n]}
    assert told == differing  # nothing that differs is kept from the reader
