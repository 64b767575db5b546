"""The fuse verb on scenes larger than a window: the whole image's result, and runs that survive."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from filelock import FileLock

from bench import fuse as verb
from bench.config import ExitCode, MissingError, UsageError
from bench.data import geotiff, raster_windows
from bench.fuse import Flags, main
from bench.fusion.classical.gsa import GSA

ROOT = Path(__file__).parents[2]
SHAPE = (4, 200, 264)
SCALE, TIE = (2.5, 2.5, 0.0), (0.0, 0.0, 0.0, 431000.0, 5180000.0, 0.0)
KEYS = (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32633)  # projected, UTM 33N
PLACE = [(33550, "d", 3, SCALE, True), (33922, "d", 6, TIE, True), (34735, "H", 12, KEYS, True)]
HAS_RASTERIO = importlib.util.find_spec("rasterio") is not None


@pytest.fixture(params=["tifffile", "rasterio"])
def reader(request, monkeypatch):
    """Read by the one or the other, as if the other were not there."""
    if request.param == "rasterio" and not HAS_RASTERIO:
        pytest.skip("rasterio is not installed")
    if request.param == "tifffile":
        for module in (geotiff, raster_windows):
            monkeypatch.setattr(module, "find_spec", lambda name: None)


@pytest.fixture
def scene(tmp_path):
    """A scene of blocks and grain, its MS in compressed tiles; the corner of PAN holds no data."""
    rng = np.random.default_rng(0)
    pan = rng.integers(300, 1700, (25, 33)).repeat(8, 0).repeat(8, 1)
    pan = pan + rng.integers(-50, 50, pan.shape)
    ms = pan.reshape(50, 4, 66, 4).mean((1, 3))
    ms = np.stack([ms, 0.9 * ms, 0.7 * ms, 0.5 * ms]) + rng.integers(0, 40, (4, 50, 66))
    pan[:50, :70] = 0
    paths = {"ms": tmp_path / "ms.tif", "pan": tmp_path / "pan.tif"}
    tifffile.imwrite(
        paths["ms"], ms.astype("u2"), photometric="minisblack", planarconfig="separate",
        tile=(16, 32), compression="zlib",
    )  # fmt: skip
    nodata = (geotiff.NODATA_TAG, "s", 0, "0", True)
    tifffile.imwrite(
        paths["pan"], pan.astype("u2"), photometric="minisblack", extratags=[*PLACE, nodata]
    )
    return paths


def fuse(scene, out, **flags):
    options = {"sensor": "QB", **flags}
    assert main(Flags(**scene, out=out, quiet=True, **options)) == ExitCode.OK
    return tifffile.imread(out)


def hidden(out, end):
    return out.with_name(f".{out.name}.windows.{end}")


@pytest.mark.parametrize("method", ["exp", "gsa", "mtf_glp_hpm_r", "bdsd_pc", "bt_h"])
def test_windows_give_the_whole_image(scene, tmp_path, reader, method):
    options = {"method": method, "dtype": "float32"}
    whole = fuse(scene, tmp_path / "whole.tif", window=0, **options)
    windows = fuse(scene, tmp_path / "windows.tif", window=64, **options)
    assert windows.shape == SHAPE
    np.testing.assert_allclose(windows, whole, rtol=1e-6, atol=1e-4)
    assert (windows[:, :50, :70] == 0).all() and (windows[:, 60:, 80:] != 0).any()
    assert not list(tmp_path.glob(".windows*"))
    with tifffile.TiffFile(tmp_path / "windows.tif") as tiff:
        values = [tiff.pages[0].tags[code].value for code in (33550, 33922, 34735)]
        assert values == [SCALE, TIE, KEYS] and tiff.pages[0].tags[geotiff.NODATA_TAG].value == "0"
    counts = fuse(scene, tmp_path / "counts.tif", window=64, method=method)
    assert counts.dtype == np.uint16
    assert np.abs(counts - whole.clip(0, 2047)).max() <= 0.5 + 1e-3


def test_large_scenes_take_windows_by_themselves(scene, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.fusion.scenes.WINDOW", 128)
    seen = []
    monkeypatch.setattr(verb, "_fuse_whole", lambda flags: seen.append(flags) or ExitCode.OK)
    main(Flags(**scene, out=tmp_path / "a.tif", method="exp", sensor="QB", quiet=True))
    assert not seen and (tmp_path / "a.tif").exists()
    # What needs the whole image is given it, up to a size.
    options = {"method": "lrtcfpan", "sensor": "QB", "quiet": True}
    main(Flags(**scene, out=tmp_path / "b.tif", **options))
    assert len(seen) == 1
    monkeypatch.setattr(verb, "LARGEST_WHOLE", 100 * 100)
    with pytest.raises(UsageError, match=r"lrtcfpan needs the whole image .*insist by --window 0"):
        main(Flags(**scene, out=tmp_path / "b.tif", **options))
    main(Flags(**scene, out=tmp_path / "b.tif", window=0, **options))
    assert len(seen) == 2


def stop_after(monkeypatch, count):
    """Have the method stop, as by Ctrl-C, when it has fused so many windows; return what it did."""
    fused = []
    original = GSA.fuse_box

    def counted(self, scene, box, fit):
        if len(fused) == count:
            raise KeyboardInterrupt
        fused.append(box)
        return original(self, scene, box, fit)

    monkeypatch.setattr(GSA, "fuse_box", counted)
    return fused


def test_a_stopped_run_goes_on_and_trusts_nothing_half_written(scene, tmp_path, monkeypatch):
    options = {"method": "gsa", "window": 64}
    expected = fuse(scene, tmp_path / "expected.tif", **options)  # 20 windows
    out = tmp_path / "fused.tif"
    with monkeypatch.context() as patch:
        stop_after(patch, 7)
        with pytest.raises(KeyboardInterrupt):
            fuse(scene, out, **options)
    assert not out.exists()
    # One finished window was damaged, another entry is torn.
    unfinished, journal = hidden(out, "part"), hidden(out, "jsonl")
    with unfinished.open("rb+") as file:
        file.seek(-1, 2)  # of the last band: beyond the 7
        file.seek(unfinished.stat().st_size - 2 * 200 * 264 + 100)
        file.write(b"xx")
    lines = journal.read_bytes().splitlines(keepends=True)
    assert [json.loads(line).get("window") for line in lines[2:]] == list(range(7))
    journal.write_bytes(b"".join(lines[:-1]) + lines[-1][:9])
    with monkeypatch.context() as patch:
        fused = stop_after(patch, None)
        again = fuse(scene, out, **options)
    assert len(fused) == 20 - 7 + 2
    np.testing.assert_array_equal(again, expected)
    assert out.read_bytes() == (tmp_path / "expected.tif").read_bytes()
    assert not list(tmp_path.glob(".fused*"))


@pytest.mark.parametrize("change", ["scene", "window", "sensor"])
def test_other_work_is_begun_anew(scene, tmp_path, monkeypatch, change):
    out = tmp_path / "fused.tif"
    options = {"method": "gsa", "window": 64}
    with monkeypatch.context() as patch:
        stop_after(patch, 7)
        with pytest.raises(KeyboardInterrupt):
            fuse(scene, out, **options)
    if change == "scene":
        pan = tifffile.imread(scene["pan"])
        pan[-1, -1] += 1
        tags = [*PLACE, (geotiff.NODATA_TAG, "s", 0, "0", True)]
        tifffile.imwrite(scene["pan"], pan, photometric="minisblack", extratags=tags)
    options |= {"window": {"window": 100}, "sensor": {"sensor": "IKONOS"}}.get(change, {})
    again = fuse(scene, out, **options)
    np.testing.assert_array_equal(again, fuse(scene, tmp_path / "fresh.tif", **options))


def test_a_killed_process_loses_nothing(scene, tmp_path):
    out = tmp_path / "fused.tif"
    command = [
        sys.executable, str(ROOT / "bench" / "fuse.py"), "--ms", scene["ms"], "--pan",
        scene["pan"], "--out", out, "--method", "mtf_glp_fs", "--sensor", "QB", "--window", "24",
    ]  # fmt: skip
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL)
    journal, deadline = hidden(out, "jsonl"), time.monotonic() + 140
    while not (journal.exists() and journal.read_bytes().count(b"crc32") > 5):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=140)
    assert done.returncode == 0, done.stderr
    assert "windows are done already" in done.stderr
    whole = fuse(scene, tmp_path / "fresh.tif", method="mtf_glp_fs", window=24)
    np.testing.assert_array_equal(tifffile.imread(out), whole)


def test_one_process_at_a_time(scene, tmp_path):
    out = tmp_path / "fused.tif"
    with (
        FileLock(hidden(out, "lock")),
        pytest.raises(MissingError, match="another process is fusing into"),
    ):
        fuse(scene, out, method="exp", window=64)


def test_refusals(scene, tmp_path):
    def refused(match, out="fused.tif", **flags):
        with pytest.raises(UsageError, match=match):
            fuse(scene, tmp_path / out, method="exp", **flags)

    refused("windows are of GeoTIFF", out="fused.h5", window=64)
    refused("--window -1: expected pixels", window=-1)
    refused("MS of ms ranges from .* expected counts from 0 to 255", window=64, bits=8)
