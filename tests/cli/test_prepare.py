"""The prepare verb: the files it writes, run as users run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import torch
import torch.nn.functional as F

from bench.config import MissingError, UsageError
from bench.data import load_dataset
from bench.prepare import Flags, main

ROOT = Path(__file__).parents[2]
SMALL = {"patch": 16, "stride": 16, "test_size": 32, "margin": 4, "quiet": True}


def numbered(height=200, width=96, bands=2):
    """Return MS (C, H, W), uint16, whose first band counts its pixels."""
    count = np.arange(height * width, dtype=np.uint16).reshape(height, width)
    return np.stack([count, *[count[::-1] // (band + 1) for band in range(1, bands)]])


def enlarge(image, ratio):
    return image.repeat(ratio, -2).repeat(ratio, -1)


def pair(path, ratio, **options):
    ms = numbered(**options)
    with h5py.File(path, "w") as file:
        file["ms"] = ms
        file["pan"] = enlarge(ms[0], ratio)
    return ms


def run(*arguments, cwd, module=False):
    start = ["-m", "bench.prepare"] if module else [str(ROOT / "bench" / "prepare.py")]
    return subprocess.run(
        [sys.executable, *start, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("module", [False, True])
def test_geotiff_pair_from_the_command_line(tmp_path, module):
    ms = numbered(height=300)
    tifffile.imwrite(tmp_path / "ms.tif", ms, photometric="minisblack", planarconfig="separate")
    tifffile.imwrite(tmp_path / "pan.tif", enlarge(ms[0], 4), photometric="minisblack")
    sizes = {"--bits": 16, "--patch": 16, "--stride": 16, "--test-size": 32, "--margin": 4}
    files = ["--ms", tmp_path / "ms.tif", "--pan", tmp_path / "pan.tif", "--out", tmp_path / "out"]
    options = [word for pair in sizes.items() for word in pair]
    done = run(*files, *options, "--json", cwd=ROOT if module else tmp_path, module=module)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["ratio"] == 4
    data = load_dataset(tmp_path / "out")
    assert data.fingerprint == result["fingerprint"]
    for row in result["splits"]:
        assert row["pan_shape"] == list(data.split(row["split"]).pan.shape)
    assert data.split("full").pan.shape[-1] == 32
    assert data.sensor.peak == 65535


def test_help_and_exit_codes(tmp_path):
    assert "--simulate-pan" in run("--help", cwd=tmp_path).stdout
    assert run("--ms", "a.tif", cwd=tmp_path).returncode == 2  # no --out
    missing = run("--ms", "a.tif", "--out", "x", cwd=tmp_path)
    assert missing.returncode == 3
    assert missing.stderr.strip() == "error: no file a.tif"


@pytest.mark.parametrize(("native", "ratio"), [(4, 4), (2, 4), (4, 2), (3, 3), (2, 2), (5, 5)])
def test_no_pixel_is_in_two_splits(tmp_path, native, ratio):
    ms = pair(tmp_path / "a.h5", native)
    flags = Flags((tmp_path / "a.h5",), tmp_path / "out", bits=16, ratio=ratio, **SMALL)
    assert main(flags) == 0
    data = load_dataset(tmp_path / "out")
    assert data.ratio == ratio
    seen = [
        set(data.split(name).gt[:, 0].mul(65535).round().flatten().int().tolist())
        for name in ("train", "valid", "reduced")
    ]
    assert sum(map(len, seen)) == len(set().union(*seen))
    # Patches keep the pixels of the scene, where they were, in every band.
    first = data.split("train").gt[0].mul(65535).round().int()
    row, column = divmod(int(first[0, 0, 0]), ms.shape[2])
    side = first.shape[-1]
    assert np.array_equal(first.numpy(), ms[:, row : row + side, column : column + side])
    full = data.split("full")
    assert full.pan.shape[-1] == ratio * full.ms.shape[-1]


def test_native_two_target_four_averages_both_ways(tmp_path):
    """The PAN is MS enlarged 2x2: averaged to the reference's grid it is the reference."""
    pair(tmp_path / "a.h5", 2)
    main(Flags((tmp_path / "a.h5",), tmp_path / "out", bits=16, ratio=4, **SMALL))
    data = load_dataset(tmp_path / "out")
    reduced, full = data.split("reduced"), data.split("full")
    torch.testing.assert_close(reduced.pan[:, 0], reduced.gt[:, 0])
    torch.testing.assert_close(full.ms[:, :1], F.avg_pool2d(full.pan, 4))
    assert any("averaged 2x2" in note for note in data.notes)


def test_simulated_pan_says_so(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["ms"] = numbered()
    flags = {"ms": (tmp_path / "a.h5",), "out": tmp_path / "out", "bits": 16, **SMALL}
    with pytest.raises(MissingError, match=r"scene a has no PAN; give --pan.*--simulate-pan"):
        main(Flags(**flags))
    with pytest.raises(UsageError, match="1 numbers for 2 bands"):
        main(Flags(**flags, simulate_pan=True, pan_weights=(1.0,)))
    main(Flags(**flags, simulate_pan=True, pan_weights=(1.0, 0.0), pan_noise=0.01))
    data = load_dataset(tmp_path / "out")
    assert data.ratio == 4
    assert "PAN is simulated: 1 band1, 0 band2" in data.notes[0]
    split = data.split("train")
    assert (split.pan[:, 0] - split.gt[:, 0]).std() == pytest.approx(0.01, rel=0.3)


def test_bands_are_picked_in_order(tmp_path):
    ms = pair(tmp_path / "a.h5", 4, bands=3)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file.attrs["bands"] = ["R", "G", "B"]
    main(Flags((tmp_path / "a.h5",), tmp_path / "out", bands="B, R", bits=16, **SMALL))
    data = load_dataset(tmp_path / "out")
    assert data.bands == ("B", "R")
    gt = data.split("train").gt[0].mul(65535).round().int().numpy()
    row, column = divmod(int(gt[1, 0, 0]), ms.shape[2])
    assert np.array_equal(gt[0], ms[2, row : row + 16, column : column + 16])


def test_scenes_of_one_group_stay_together(tmp_path):
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for index in range(8):
            group = file.create_group(f"scene{index}")
            group["ms"] = rng.integers(0, 200, (2, 64, 64)) + 1000 * (index // 2)
            group["pan"] = np.full((128, 128), 1000 * (index // 2))
            group.attrs["date"] = f"day{index // 2}"
    options = {"bits": 12, "ratio": 4, "group_by": "date", "valid_on": ("day0",)}
    options |= {"test_on": ("day3",), "full_size": 64}
    main(Flags((tmp_path / "a.h5",), tmp_path / "out", **options, **SMALL))
    data = load_dataset(tmp_path / "out")
    days = {
        name: set((data.split(name).pan.amax((1, 2, 3)) * 4095 / 1000).round().int().tolist())
        for name in data.splits
    }
    assert days == {"train": {1, 2}, "valid": {0}, "reduced": {3}, "full": {3}}


def test_running_again_changes_nothing_and_other_settings_need_force(tmp_path):
    pair(tmp_path / "a.h5", 4)
    flags = {"ms": (tmp_path / "a.h5",), "out": tmp_path / "out", "bits": 16, **SMALL}
    main(Flags(**flags))
    stamp = (tmp_path / "out" / "train.h5").stat().st_mtime_ns
    main(Flags(**flags))
    assert (tmp_path / "out" / "train.h5").stat().st_mtime_ns == stamp
    flags["stride"] = 8
    with pytest.raises(UsageError, match=r"holds train.h5.*--force"):
        main(Flags(**flags))
    main(Flags(**flags, force=True))
    assert (tmp_path / "out" / "train.h5").stat().st_mtime_ns != stamp


def test_dry_run_writes_nothing(tmp_path, capsys):
    pair(tmp_path / "a.h5", 4)
    main(Flags((tmp_path / "a.h5",), tmp_path / "out", bits=16, dry_run=True, **SMALL))
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "train",
        "valid",
        "test",
    ]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give --bits"),
        ({"bits": 12}, r"MS ranges from 0 to 19199; expected counts from 0 to 4095: --bits"),
        ({"sensor": "WV3"}, "WV3 has 8 bands but the data has 2"),
        ({"bits": 16, "ratio": 3}, "--ratio 3 does not go with images of ratio 4"),
        ({"bits": 16, "ratio": 1}, "--ratio 1 does not go"),
        ({"bits": 16, "test_size": 512}, "too small to be cut"),
        ({"bits": 16, "file_bands": "B"}, "2 bands but 1 names"),
    ],
)
def test_bad_settings(tmp_path, options, message):
    pair(tmp_path / "a.h5", 4)
    with pytest.raises(UsageError, match=message):
        main(Flags((tmp_path / "a.h5",), tmp_path / "out", **{**SMALL, **options}))
    assert not (tmp_path / "out").exists()


def test_nan_is_refused(tmp_path):
    ms = numbered().astype(np.float32)
    ms[1, 3, 3] = np.nan
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["ms"], file["pan"] = ms, enlarge(ms[0], 4)
    with pytest.raises(UsageError, match="scene a: MS has NaN"):
        main(Flags((tmp_path / "a.h5",), tmp_path / "out", bits=16, **SMALL))
