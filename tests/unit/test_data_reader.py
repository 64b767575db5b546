"""The PanCollection reader: layouts, unit scale, and one clear error for each kind of bad file."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

from bench.config import MissingError, UsageError
from bench.data import load_dataset


def arrays(bands=4, count=3, size=16, ratio=4, peak=2047, gt=True):
    rng = np.random.default_rng(0)
    low = size // ratio
    shapes = {
        "gt": (count, bands, size, size),
        "lms": (count, bands, size, size),
        "ms": (count, bands, low, low),
        "pan": (count, 1, size, size),
    }
    return {
        key: np.floor(rng.uniform(0, peak + 1, shape))
        for key, shape in shapes.items()
        if gt or key != "gt"
    }


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, value in content.items():
            file[key] = value
    return path


PANCOLLECTION = {
    "flat": (
        "train_qb.h5",
        "valid_qb.h5",
        "test_qb_multiExm1.h5",
        "test_qb_OrigScale_multiExm1.h5",
    ),
    "folders": (
        "training_data/train_qb.h5",
        "validation_data/valid_qb.h5",
        "test_data/QB/test_qb_multiExm1.h5",
        "test_data/QB/test_qb_OrigScale_multiExm1.h5",
    ),
}


@pytest.mark.parametrize("layout", PANCOLLECTION)
def test_reads_pancollection_layouts(tmp_path, layout):
    content = {
        name: arrays(count=index + 1, gt="Orig" not in name)
        for index, name in enumerate(PANCOLLECTION[layout])
    }
    for name, value in content.items():
        write(tmp_path / name, value)
    data = load_dataset(tmp_path, sensor="QB")
    assert data.splits == ("train", "valid", "reduced", "full")
    assert data.sensor.peak == 2047
    assert data.ratio == 4
    assert data.bands == ("blue", "green", "red", "nir")
    for (name, value), split in zip(content.items(), data.splits, strict=True):
        got = data.split(split)
        assert got.path == tmp_path / name
        assert len(got) == len(value["ms"])
        for key in ("gt", "ms", "lms", "pan"):
            image = getattr(got, key)
            if key not in value:
                assert split == "full"
                assert image is None
                continue
            assert image.dtype == torch.float32
            np.testing.assert_allclose(image.numpy() * 2047, value[key], rtol=1e-6)
    assert data.split("train") is data.split("train")


def test_divisor_comes_from_the_file_and_never_from_its_folder(tmp_path):
    write(tmp_path / "gf2" / "train.h5", arrays(peak=1023))
    with pytest.raises(UsageError, match=r"--sensor, one of .*WV3.*GF2"):
        load_dataset(tmp_path / "gf2")
    ten, eleven = (
        load_dataset(tmp_path / "gf2", sensor=sensor).split("train").gt for sensor in ("GF2", "QB")
    )
    assert torch.allclose(ten * 1023, eleven * 2047)
    (tmp_path / "gf2" / "train.h5").rename(tmp_path / "train_gf2.h5")
    assert load_dataset(tmp_path).sensor.peak == 1023
    with pytest.raises(
        UsageError, match=r"--sensor QB contradicts .*train_gf2.h5, .*named for GF2"
    ):
        load_dataset(tmp_path, sensor="QB")


def test_sensor_chooses_among_files_of_several(tmp_path):
    write(tmp_path / "train_qb.h5", arrays(bands=4))
    write(tmp_path / "train_wv3.h5", arrays(bands=8))
    with pytest.raises(UsageError, match=r"several files for the train split.*--sensor"):
        load_dataset(tmp_path)
    assert load_dataset(tmp_path, sensor="wv3").split("train").gt.shape[1] == 8
    with pytest.raises(UsageError, match=r"--sensor WV2 contradicts"):
        load_dataset(tmp_path, sensor="WV2")


def test_files_of_two_sensors_are_no_data_set(tmp_path):
    """Both have four bands: only their names say that the divisors differ."""
    write(tmp_path / "train_qb.h5", arrays())
    write(tmp_path / "valid_gf2.h5", arrays(peak=1023))
    with pytest.raises(UsageError, match=r"files of several sensors: GF2, QB; choose one"):
        load_dataset(tmp_path)
    assert load_dataset(tmp_path, sensor="GF2").splits == ("valid",)


def test_lms_overshoot_is_counted_not_refused(tmp_path):
    content = arrays()
    content["lms"][0, 0, 0, :2] = (-3.0, 2050.0)
    write(tmp_path / "train_qb.h5", content)
    split = load_dataset(tmp_path, sensor="QB").split("train")
    assert split.overshoot == 2
    assert split.lms.min() < 0


def test_fingerprint_follows_the_content(tmp_path):
    for name in ("a", "b", "c"):
        content = arrays()
        content["gt"][0, 0, 0, 0] = 5 if name == "c" else 6
        write(tmp_path / name / "train_qb.h5", content)
    a, b, c = (load_dataset(tmp_path / name, sensor="QB").fingerprint for name in "abc")
    assert a == b
    assert a != c


def drop(key):
    return lambda content: content.pop(key)


def replace(key, change):
    return lambda content: content.update({key: change(content[key])})


def put(key, value):
    def change(content):
        content[key][1, 0, 1, 1] = value

    return change


BROKEN = {
    "missing key": (drop("lms"), r"no array 'lms'; expected gt, ms, lms, pan"),
    "missing reference": (drop("gt"), r"no array 'gt'"),
    "wrong rank": (replace("pan", lambda a: a[:, 0]), r"pan has shape .*expected 4 axes"),
    "empty": (replace("gt", lambda a: a[:0]), r"empty"),
    "count": (replace("gt", lambda a: a[:1]), r"gt has shape \(1, 4, 16, 16\).*expected \(3, 4"),
    "pan bands": (replace("pan", lambda a: a.repeat(2, 1)), r"pan has shape .*expected \(3, 1"),
    "lms bands": (replace("lms", lambda a: a[:, :3]), r"lms has shape .*expected \(3, 4"),
    "size": (replace("lms", lambda a: a[..., :12]), r"lms has shape .*at ratio 4"),
    "ratio": (replace("ms", lambda a: a[..., :3]), r"16x16 is no whole multiple of ms of 4x3"),
    "NaN": (put("ms", np.nan), r"ms has NaN .*first in image 1"),
    "NaN in lms": (put("lms", np.inf), r"lms has NaN or infinite"),
    "gt above depth": (put("gt", 2048), r"gt has the value 2048; expected counts from 0 to 2047"),
    "ms above depth": (put("ms", 2048), r"ms has the value 2048"),
    "pan above depth": (put("pan", 2048), r"pan has the value 2048"),
    "no data": (put("gt", -9999), r"gt has the value -9999"),
    "type": (replace("gt", lambda a: a.astype("S4")), r"gt has type .*expected numbers"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_named_with_what_is_wrong(tmp_path, case):
    change, message = BROKEN[case]
    content = arrays()
    change(content)
    path = write(tmp_path / "train_qb.h5", content)
    with pytest.raises(UsageError, match=message) as caught:
        load_dataset(tmp_path, sensor="QB").split("train")
    assert str(path) in str(caught.value)


def test_bands_that_do_not_match_the_sensor(tmp_path):
    write(tmp_path / "train.h5", arrays(bands=4))
    with pytest.raises(UsageError, match=r"WV3 has 8 bands but the data has 4"):
        load_dataset(tmp_path, sensor="WV3")
    write(tmp_path / "valid_qb.h5", arrays(bands=3))
    with pytest.raises(UsageError, match=r"ms has 3 bands; sensor QB has 4"):
        load_dataset(tmp_path, sensor="QB").split("valid")
    write(tmp_path / "train_wv2.h5", arrays(bands=4))
    with pytest.raises(UsageError, match=r"named for WV2: .* has 8 bands but the data has 4"):
        load_dataset(tmp_path / "train_wv2.h5")


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_truncated_file(tmp_path, keep):
    path = write(tmp_path / "train_qb.h5", arrays())
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(UsageError, match=r"train_qb.h5 is truncated or no HDF5 file"):
        load_dataset(tmp_path, sensor="QB")


def test_missing_folder_file_and_split(tmp_path):
    with pytest.raises(MissingError, match=r"'smaple-8' does not exist - did you mean 'sample-8'"):
        load_dataset("smaple-8")
    with pytest.raises(MissingError, match=r"no data in .*train_\*\.h5"):
        load_dataset(tmp_path)
    path = write(tmp_path / "train_qb.h5", arrays())
    other = path.with_name("notes.h5")
    other.write_bytes(path.read_bytes())
    with pytest.raises(UsageError, match=r"notes.h5 does not say which split it is; .*test_full"):
        load_dataset(other)
    data = load_dataset(tmp_path, sensor="QB")
    with pytest.raises(MissingError, match=r"no full split; expected .*it has train"):
        data.split("full")
    with pytest.raises(UsageError, match=r"unknown split 'trian' - did you mean 'train'"):
        data.split("trian")
