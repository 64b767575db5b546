"""Test images in .mat files, of MATLAB's old format and of HDF5, as a data set."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import scipy.io

from bench import prepare
from bench.config import UsageError
from bench.data import load_dataset
from bench.imaging import get_sensor
from tests.cli import pancollection

NAMES = {"reduced": "Test(HxWxC)_wv3_data{}.mat", "full": "Test(HxWxC)_wv3_data_fr{}.mat"}


def write(path, arrays, hdf5):
    """Write (C, H, W) as MATLAB does: bands last; in HDF5 all axes reversed."""
    last = {key: np.squeeze(x.transpose(1, 2, 0)) for key, x in arrays.items()}
    if not hdf5:
        scipy.io.savemat(path, last)
        return
    with h5py.File(path, "w", userblock_size=512) as file:
        for key, image in last.items():
            file[key] = image.T


@pytest.fixture(params=[False, True], ids=["v5", "v7.3"])
def folder(request, tmp_path):
    place = tmp_path / "mats"
    place.mkdir()
    for split, name in NAMES.items():
        arrays = pancollection.make(get_sensor("WV3", 8), 11, 32, 3)
        for index in range(11):
            one = {key: x[index].numpy() for key, x in arrays.items()}
            if split == "full":
                del one["gt"]
            write(place / name.format(index + 1), one, request.param)
    return place


def test_images_come_in_the_order_of_their_numbers_with_every_value(folder, tmp_path):
    data = load_dataset(folder, cache=tmp_path / "cache")
    assert (data.name, data.sensor.name, data.splits) == ("mats", "WV3", ("full", "reduced"))
    expected = pancollection.make(get_sensor("WV3", 8), 11, 32, 3)
    split = data.split("reduced")
    for key, images in expected.items():
        assert np.allclose(getattr(split, key) * 2047, images, rtol=1e-6, atol=1e-3)
    assert data.split("full").gt is None and len(data.split("full")) == 11
    again = load_dataset(folder, cache=tmp_path / "cache")
    assert again.fingerprint == data.fingerprint


def test_one_file_is_a_data_set_of_one_image(folder, tmp_path):
    data = load_dataset(folder / NAMES["full"].format(3), cache=tmp_path / "cache")
    assert data.splits == ("full",) and len(data.split("full")) == 1


def test_what_is_no_test_image_is_one_line(tmp_path):
    scipy.io.savemat(tmp_path / "a_wv3.mat", {"I_MS": np.ones((4, 4, 8)), "pan": np.ones((8, 8))})
    with pytest.raises(UsageError, match=r"a_wv3.mat has no array ms, lms; expected .*it has I_MS"):
        load_dataset(tmp_path, cache=tmp_path / "cache")
    with pytest.raises(UsageError, match=r"--check looks at HDF5 files; images in .mat files"):
        prepare.main(prepare.Flags(check=tmp_path))
    with pytest.raises(UsageError, match=r"no .mat file here is named for QB"):
        load_dataset(tmp_path / "a_wv3.mat", sensor="QB")
