"""The fuse verb: from files to a file, by a method or by a trained denoiser."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import torch

from bench.config import ExitCode, MissingError, UsageError
from bench.data import read_fused
from bench.fuse import Flags, main
from bench.fusion import create_method
from bench.imaging import get_sensor
from bench.prepare import Flags as PrepareFlags
from bench.prepare import main as prepare

ROOT = Path(__file__).parents[2]
SHAPE = (4, 96, 128)
TINY = ("patch=32", "sampler.tile=32", "backbone.modes=4")
SCALE, TIE = (2.5, 2.5, 0.0), (0.0, 0.0, 0.0, 431000.0, 5180000.0, 0.0)
KEYS = (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32633)  # projected, UTM 33N


def images(dtype="uint16"):
    """Return MS (4, 24, 32) and PAN (96, 128) counts of one scene."""
    pan = np.random.default_rng(0).integers(100, 1900, (12, 16)).repeat(8, 0).repeat(8, 1)
    ms = pan.reshape(24, 4, 32, 4).mean((1, 3))
    return np.stack([ms, 0.9 * ms, 0.7 * ms, 0.5 * ms]).astype(dtype), pan.astype(dtype)


@pytest.fixture
def scene(tmp_path):
    ms, pan = images()
    tags = [(33550, "d", 3, SCALE, True), (33922, "d", 6, TIE, True), (34735, "H", 12, KEYS, True)]
    paths = {"ms": tmp_path / "ms.tif", "pan": tmp_path / "pan.tif"}
    tifffile.imwrite(paths["ms"], ms, photometric="minisblack", planarconfig="separate")
    tifffile.imwrite(paths["pan"], pan, photometric="minisblack", extratags=tags)
    return paths


def fuse(scene, out, **flags):
    assert main(Flags(**scene, out=out, quiet=True, **flags)) == ExitCode.OK
    return read_fused(out, SHAPE)[0]


@pytest.mark.parametrize("module", [False, True])
def test_geotiff_from_the_command_line(scene, tmp_path, module):
    start = ["-m", "bench.fuse"] if module else [str(ROOT / "bench" / "fuse.py")]
    flags = ["--ms", scene["ms"], "--pan", scene["pan"], "--out", tmp_path / "new" / "fused.tif"]
    done = subprocess.run(
        [sys.executable, *start, *map(str, flags), "--method", "gsa", "--sensor", "QB"],
        cwd=ROOT if module else tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "4 bands of 96 x 128, uint16 counts, by gsa" in done.stdout
    with tifffile.TiffFile(tmp_path / "new" / "fused.tif") as tiff:
        page = tiff.pages[0]
        assert page.dtype == np.uint16 and tiff.asarray().shape == SHAPE
        values = [page.tags[code].value for code in (33550, 33922, 34735)]
    assert values == [SCALE, TIE, KEYS]


def test_counts_are_what_the_method_gives(scene, tmp_path):
    sensor = get_sensor("QB", 4)
    ms, pan = (torch.from_numpy(x.astype(np.float64)) / 2047 for x in images())
    method = create_method("mtf_glp_hpm", bands=4)
    expected = method.fuse(ms[None], pan[None, None], sensor)[0].numpy() * 2047
    options = {"method": "mtf_glp_hpm", "sensor": "QB"}
    exact = fuse(scene, tmp_path / "fused.npy", dtype="float32", **options)
    np.testing.assert_allclose(exact, expected, rtol=1e-6)
    rounded = fuse(scene, tmp_path / "fused.tif", **options)
    np.testing.assert_array_equal(rounded, expected.round().clip(0, 2047))
    for name in ("fused.h5", "fused.mat"):
        np.testing.assert_array_equal(fuse(scene, tmp_path / name, **options), rounded)


def test_a_flat_scene_stays_flat_and_floats_stay_floats(tmp_path):
    with h5py.File(tmp_path / "scene.h5", "w") as file:
        file["low"], file["high"] = np.full((4, 24, 32), 300.5), np.full((96, 128), 700.0)
    scene = {"ms": tmp_path / "scene.h5", "pan": tmp_path / "scene.h5"}
    keys = {"ms_key": "low", "pan_key": "high"}
    fused = fuse(scene, tmp_path / "flat.h5", method="exp", bits=11, **keys)
    np.testing.assert_allclose(fused, 300.5, rtol=1e-5)
    with h5py.File(tmp_path / "flat.h5") as file:
        assert file["fused"].dtype == np.float32


def test_a_denoiser_by_the_command_that_the_error_names(scene, tmp_path, capsys):
    with h5py.File(tmp_path / "scene.h5", "w") as file:
        grain = np.random.default_rng(1).integers(0, 2000, (4, 128, 96))
        file["ms"], file["pan"] = grain, grain[0].repeat(4, 0).repeat(4, 1)
    sizes = {"patch": 32, "stride": 32, "test_size": 32, "margin": 0}
    out = tmp_path / "data set"
    prepare(PrepareFlags(ms=(tmp_path / "scene.h5",), out=out, bits=11, **sizes))
    options = {"backbone": "fno", "preset": "smoke", "dataset": str(out), "override": TINY}
    with pytest.raises(MissingError, match="not trained yet") as error:
        fuse(scene, tmp_path / "fused.tif", **options)
    command = shlex.split(str(error.value).split("train it by: ")[1])
    assert command[:2] == ["python", "bench/train.py"]
    trained = subprocess.run([sys.executable, *command[1:]], cwd=ROOT, capture_output=True)
    assert trained.returncode == 0, trained.stderr

    tiled = fuse(scene, tmp_path / "fused.tif", **options)
    assert tiled.max() <= 2047 and tiled.std() > 0
    again = fuse(scene, tmp_path / "again.tif", **options)
    np.testing.assert_array_equal(again, tiled)
    whole = {**options, "override": (*TINY, "sampler.tile=none")}
    assert (fuse(scene, tmp_path / "whole.tif", **whole) != tiled).any()
    with pytest.raises(UsageError, match="; expected one"):
        fuse(scene, tmp_path / "two.tif", **{**options, "backbone": "*n*"})
    three = {"ms": tmp_path / "three.tif", "pan": scene["pan"]}
    tifffile.imwrite(
        three["ms"], images()[0][:3], photometric="minisblack", planarconfig="separate"
    )
    with pytest.raises(UsageError, match=r"three has 3 bands and ratio 4; .* takes 4 bands"):
        fuse(three, tmp_path / "three_fused.tif", **options)


def test_refusals(scene, tmp_path):
    def refused(match, error=UsageError, out=tmp_path / "fused.tif", **flags):
        with pytest.raises(error, match=match):
            fuse(scene, out, **flags)

    refused("one of --method and --backbone")
    refused("one of --method and --backbone", method="exp", backbone="fno")
    refused("expected a file named", out=tmp_path / "fused.png", method="exp", sensor="QB")
    refused("give --sensor", method="exp")
    refused("sensors with 4 bands: QB", method="exp", sensor="WV3")
    refused("MS of ms ranges from .* expected counts from 0 to 255", method="exp", bits=8)
    refused("do not fit in uint16", method="exp", peak=1e5)
    refused("did you mean 'bt_h'", ValueError, method="bth", sensor="QB")
    (tmp_path / "fused.tif").touch()
    refused("--force replaces it", method="exp", sensor="QB")
    fuse(scene, tmp_path / "fused.tif", method="exp", sensor="QB", force=True)
    scene["ms"] = tmp_path / "none.tif"
    refused("no file", MissingError, out=tmp_path / "b.tif", method="exp", sensor="QB")
