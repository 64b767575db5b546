"""``prepare.py --check``: what it says of whole, broken, renamed and missing files."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench.config import MissingError, UsageError
from bench.data import load_dataset
from bench.prepare import Flags, main
from tests.cli import pancollection, toy

ROOT = Path(__file__).parents[2]
SMALL = {"reduced": 64, "full": 64}
NO_TEST = {"train", "valid"}


@pytest.fixture
def folder(tmp_path):
    return pancollection.write(tmp_path / "data", ("GF2",), sides=SMALL)


def check(place, capsys, **flags):
    """Return the exit code and what is printed as JSON."""
    code = main(Flags(check=place, json=True, quiet=True, **flags))
    return code, json.loads(capsys.readouterr().out)


def only(answer, split):
    (found,) = (one for one in answer["files"] if one["split"] == split)
    return found


def change(path, key, alter):
    with h5py.File(path, "r+") as file:
        file[key][...] = alter(file[key][()])


def put(value, *where):
    def alter(values):
        values[where] = value
        return values

    return alter


def state(folder):
    return {
        path: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_whole_collection_as_users_run_it(tmp_path):
    folder = pancollection.write(tmp_path / "PanCollection", sides=SMALL)
    before = state(folder)
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "prepare.py"), "--check", str(folder)],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert state(tmp_path) == before
    head, *lines = done.stdout.splitlines()
    assert head.split()[:4] == ["file", "split", "sensor", "images"]
    table = [line.split() for line in lines if not line.startswith("note: ")]
    order = [(row[2], row[1]) for row in table]
    assert order == [
        (sensor, split)
        for sensor in ("GF2", "QB", "WV2", "WV3")
        for split in ("train", "valid", "reduced", "full")
        if sensor != "WV2" or split not in NO_TEST
    ]
    qb = next(line for line in lines if line.startswith("training_data/train_qb.h5"))
    assert "4 x 16x16" in qb
    assert qb.endswith("4 out of phase")
    assert sum("lies one PAN pixel off" in line for line in lines) == 2


def test_what_is_said_of_a_good_file(folder, capsys):
    code, answer = check(folder, capsys)
    assert (code, answer["usable"], answer["missing"]) == (0, True, [])
    found = only(answer, "train")
    with h5py.File(pancollection.place(folder, "GF2", "train")) as file:
        values = [file[key][()] for key in ("gt", "ms", "pan")]
        shapes = {key: list(file[key].shape) for key in file}
    assert found["shapes"] == shapes
    assert (found["images"], found["dtype"], found["sensor"]) == (6, "float64", "GF2")
    assert found["low"] == pytest.approx(min(map(np.min, values)))
    assert found["high"] == pytest.approx(max(map(np.max, values)))
    assert found["memory"] > 4 * sum(np.prod(shape) for shape in shapes.values())
    assert found["defects"] == found["problems"] == []


def test_published_renamed_repacked_and_unknown_files(folder, tmp_path, monkeypatch, capsys):
    """The made-up files count as published here: their shapes, and the hash of one of them."""
    path = pancollection.place(folder, "GF2", "train")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    published = "243a0bc8a4cc0a2740ed24409f9e87afe531d87e9d57524c6bcbec2b5f937621"
    pancollection.as_published(tmp_path / "t.toml", monkeypatch, SMALL, {published: sha256})
    _, answer = check(folder, capsys)
    found = only(answer, "train")
    assert (found["published"], found["sha256"]) == ("as published", sha256)
    assert only(answer, "full")["published"] == "unknown"  # nobody's hash is known
    assert len(only(answer, "full")["sha256"]) == 64
    other = only(answer, "reduced")
    assert other["published"] == "not the published file"
    assert "another sha256: repacked, repaired or damaged" in other["remarks"][0]

    renamed = path.rename(path.with_name("train_mine_gf2.h5"))
    found = only(check(folder, capsys)[1], "train")
    assert found["published"] == "as published"
    assert found["remarks"] == [f"{renamed} is what is published as train_gf2.h5"]

    change(renamed, "gt", put(100, 0, 0, 0, 0))
    assert only(check(folder, capsys)[1], "train")["published"] == "unknown"  # not its name
    renamed.rename(path)
    assert only(check(folder, capsys)[1], "train")["published"] == "not the published file"


def test_qb_in_phase_is_a_repaired_copy(tmp_path, monkeypatch, capsys):
    folder = pancollection.write(tmp_path / "data", ("QB",), sides=SMALL)
    pancollection.as_published(tmp_path / "t.toml", monkeypatch, SMALL)
    train = pancollection.place(folder, "QB", "train")
    found = only(check(folder, capsys)[1], "train")
    assert (found["published"], found["defects"]) == ("unknown", ["4 out of phase"])
    assert "so is the published file" in found["remarks"][0]
    with h5py.File(train, "r+") as file:
        for key in file:
            values = torch.from_numpy(file[key][()])
            values[1::3], values[2::3] = values[1::3].flip(-2), values[2::3].flip(-1)
            file[key][...] = values.numpy()
    found = only(check(folder, capsys)[1], "train")
    assert (found["published"], found["defects"]) == ("not the published file", [])
    assert "a repaired copy" in found["remarks"][0]


def test_the_two_sets_of_wv3(tmp_path, monkeypatch, capsys):
    folder = pancollection.write(tmp_path / "data", ("WV3",), sides=SMALL)
    path = pancollection.place(folder, "WV3", "full")
    assert "published sets" not in str(check(path, capsys)[1])
    pancollection.as_published(tmp_path / "t.toml", monkeypatch, SMALL)
    (line,) = check(path, capsys)[1]["files"][0]["remarks"]
    assert "which of the published sets of WV3 this is cannot be told: EXP scores" in line

    from bench.metrics import full_resolution

    with h5py.File(path) as file:
        lms, ms, pan = (file[key][()] for key in ("lms", "ms", "pan"))
    scores = full_resolution(lms, ms, pan, lms=lms, sensor="WV3")
    known = {name: f"{float(scores[name]):.4f}" for name in ("D_lambda_K", "D_s")}
    changes = {"D_lambda_K = 0.0456": f"D_lambda_K = {known['D_lambda_K']}"}
    changes |= {"D_s = 0.1201": f"D_s = {known['D_s']}"}
    pancollection.as_published(tmp_path / "u.toml", monkeypatch, SMALL, changes)
    code, answer = check(path, capsys)
    (line,) = answer["files"][0]["remarks"]
    assert line.startswith(f"{path} is the HDF5 set of December 2022")
    assert f"D_s {known['D_s']}" in line
    assert code == 0


BROKEN = {
    "NaN": ("gt", put(np.nan, slice(1, 3), 0, 0, 0), "gt has NaN .*first in image 1.*in 2 of 6"),
    "bit depth": ("pan", put(1024, 5), r"pan has the value 1024.*0 to 1023.*in 1 of 6 images"),
    "no data": ("ms", put(-9999, 0, 0, 0, 0), r"ms has the value -9999.*in 1 of 6 images"),
    "unit scale": ("gt", lambda a: a / 1023, r"gt ranges from .*in fractions"),
    "constant": ("pan", lambda a: 0 * a + 7, r"pan is 7 everywhere"),
    "scale": ("lms", lambda a: a / 5, r"lms has mean .*expected both in one scale"),
    "order": ("lms", lambda a: a[:, ::-1], r"lms does not belong to ms: its band 0 is band 3"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_would_be_refused_is_refused_here(folder, capsys, case):
    key, alter, message = BROKEN[case]
    path = pancollection.place(folder, "GF2", "train")
    change(path, key, alter)
    with pytest.raises(UsageError) as caught:
        load_dataset(folder).split("train")
    code, answer = check(folder, capsys)
    assert (code, answer["usable"]) == (3, False)
    (problem,) = only(answer, "train")["problems"]
    assert problem.startswith(str(caught.value))
    assert re.search(message, problem)
    assert all(not one["problems"] for one in answer["files"] if one["split"] != "train")


def test_files_that_cannot_be_read_at_all(folder, capsys):
    torn, keyless = (pancollection.place(folder, "GF2", split) for split in ("train", "valid"))
    torn.write_bytes(torn.read_bytes()[:-1000])
    with h5py.File(keyless, "r+") as file:
        del file["lms"]
    code, answer = check(folder, capsys)
    assert code == 3
    assert "train_gf2.h5 is truncated" in only(answer, "train")["problems"][0]
    assert "has no array 'lms'" in only(answer, "valid")["problems"][0]
    assert answer["missing"] == []
    main(Flags(check=folder, quiet=True))
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("problem: ") for line in lines) == 2


def test_missing_splits_and_doubled_ones(folder, capsys):
    valid = pancollection.place(folder, "GF2", "valid")
    valid.unlink()
    code, answer = check(folder, capsys)
    assert code == 3
    assert answer["missing"] == ["GF2 has no valid split here; expected a file named valid_gf2.h5"]
    assert check(pancollection.place(folder, "GF2", "train"), capsys)[0] == 0  # one file is whole
    train = pancollection.place(folder, "GF2", "train")
    valid.write_bytes(train.read_bytes())
    train.with_name("train_gf2_copy.h5").write_bytes(train.read_bytes())
    code, answer = check(folder, capsys)
    assert code == 3
    problems = [line for one in answer["files"] for line in one["problems"]]
    assert len(problems) == 2
    assert all("both hold the train split of GF2" in line for line in problems)


def test_constant_bands_and_another_interpolation_are_remarks(folder, capsys):
    path = pancollection.place(folder, "GF2", "train")
    with h5py.File(path, "r+") as file:
        ms = torch.from_numpy(file["ms"][()])
        file["lms"][...] = F.interpolate(ms, scale_factor=4, mode="bilinear").numpy()
        file["gt"][1, :2] = 300
    code, answer = check(folder, capsys)
    found = only(answer, "train")
    assert code == 0
    assert found["defects"] == ["gt constant in places", "lms not 23 taps"]
    assert "gt has 2 constant bands, in 1 of 6 images" in found["remarks"][0]
    assert "lms of 6 of 6 images is another interpolation" in found["remarks"][1]
    load_dataset(folder).split("train")


def test_data_sets_made_here(tmp_path, capsys):
    ms = pancollection.scene(2, 400, 0, 2047).numpy().astype(np.uint16)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["ms"], file["pan"] = ms, ms[0].repeat(4, 0).repeat(4, 1)
    sizes = {"test_size": 96, "margin": 4, "quiet": True}
    main(Flags((tmp_path / "a.h5",), tmp_path / "out", bits=11, **sizes))
    capsys.readouterr()
    code, answer = check(tmp_path / "out", capsys)
    assert code == 0
    assert {one["published"] for one in answer["files"]} == {"made here"}
    assert {one["sensor"] for one in answer["files"]} == {"none"}
    assert not any(one["remarks"] for one in answer["files"])
    code, answer = check(tmp_path / "out", capsys, sensor="QB")
    assert code == 3
    assert all("--sensor QB contradicts" in one["problems"][0] for one in answer["files"])


def test_files_that_do_not_say_their_sensor(tmp_path, capsys):
    folder = toy.write(tmp_path / "toy")
    code, answer = check(folder, capsys)
    assert code == 3
    assert all("give --sensor" in one["problems"][0] for one in answer["files"])
    code, answer = check(folder, capsys, sensor="QB")
    assert (code, answer["missing"]) == (0, [])
    assert {one["sensor"] for one in answer["files"]} == {"QB"}


def test_sensor_chooses_and_bad_usage_is_one_line(folder, tmp_path, capsys):
    pancollection.write(folder, ("WV2",), sides=SMALL)
    _, answer = check(folder, capsys, sensor="wv2")
    assert [one["split"] for one in answer["files"]] == ["reduced", "full"]
    with pytest.raises(MissingError, match="no files of sensor WV3"):
        check(folder, capsys, sensor="WV3")
    with pytest.raises(UsageError, match=r"unknown sensor 'GF1' - did you mean 'GF2'"):
        check(folder, capsys, sensor="GF1")
    with pytest.raises(MissingError, match=r"'.*none' does not exist"):
        check(tmp_path / "none", capsys)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingError, match=r"no data in .*train_\*\.h5"):
        check(tmp_path / "empty", capsys)
    with pytest.raises(UsageError, match="--check goes with no --ms"):
        check(folder, capsys, out=tmp_path / "out")
