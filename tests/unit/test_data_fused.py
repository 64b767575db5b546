"""Fused images on disk: every format, every order of axes, and what is refused."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import scipy.io
import tifffile

from bench.config import MissingError, UsageError
from bench.data import read_fused, write_fused

SHAPE = (4, 8, 12)


def numbered(count=1):
    """Return (count, *SHAPE) of which no two values are equal."""
    return np.arange(count * np.prod(SHAPE), dtype=np.float64).reshape(count, *SHAPE)


@pytest.mark.parametrize("suffix", [".tif", ".h5", ".mat", ".npy"])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_what_is_written_is_read(tmp_path, suffix, dtype):
    image = numbered()[0].astype(dtype)
    write_fused(tmp_path / f"one{suffix}", image)
    assert [path.name for path in tmp_path.iterdir()] == [f"one{suffix}"]
    np.testing.assert_array_equal(read_fused(tmp_path / f"one{suffix}", SHAPE)[0], image)


def test_other_programs_read_what_is_written(tmp_path):
    image = numbered()[0].astype("uint16")
    for suffix in (".tif", ".h5", ".mat", ".npy"):
        write_fused(tmp_path / f"one{suffix}", image)
    with tifffile.TiffFile(tmp_path / "one.tif") as tiff:
        assert tiff.pages[0].tags["SamplesPerPixel"].value == 4
        np.testing.assert_array_equal(tiff.asarray(), image)
    with h5py.File(tmp_path / "one.h5") as file:
        np.testing.assert_array_equal(file["fused"], image)
    rows_first = scipy.io.loadmat(tmp_path / "one.mat")["fused"]
    np.testing.assert_array_equal(rows_first, np.moveaxis(image, 0, -1))
    np.testing.assert_array_equal(np.load(tmp_path / "one.npy"), image)


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 2, 3, 1), (2, 3, 1, 0)])
def test_stacks_in_any_order_of_axes(tmp_path, axes):
    stack = numbered(3)
    np.save(tmp_path / "stack.npy", stack.transpose(axes))
    np.testing.assert_array_equal(read_fused(tmp_path / "stack.npy", SHAPE), stack)


def test_matlab_73_stores_axes_reversed(tmp_path):
    image = numbered()[0]
    with h5py.File(tmp_path / "new.mat", "w") as file:
        file["sr"] = np.moveaxis(image, 0, -1).T  # what MATLAB writes of a rows x columns x bands
    np.testing.assert_array_equal(read_fused(tmp_path / "new.mat", SHAPE)[0], image)


def test_numbers_in_names_order_a_folder(tmp_path):
    stack = numbered(12)
    for index, image in enumerate(stack):
        scipy.io.savemat(tmp_path / f"output_mulExm_{index}.mat", {"sr": image.transpose(1, 2, 0)})
    (tmp_path / "readme.txt").write_text("not an image")
    np.testing.assert_array_equal(read_fused(tmp_path, SHAPE), stack)


def test_one_array_is_chosen_or_named(tmp_path):
    path = tmp_path / "two.h5"
    with h5py.File(path, "w") as file:
        file["fused"], file["gt"], file["pan"] = numbered()[0], 2 * numbered()[0], np.ones((8, 12))
    with pytest.raises(UsageError, match="found fused, gt; give --key"):
        read_fused(path, SHAPE)
    np.testing.assert_array_equal(read_fused(path, SHAPE, key="gt")[0], 2 * numbered()[0])
    with pytest.raises(UsageError, match="did you mean 'fused'"):
        read_fused(path, SHAPE, key="fussed")


def test_refusals(tmp_path):
    with pytest.raises(MissingError, match="no file or folder"):
        read_fused(tmp_path / "none", SHAPE)
    with pytest.raises(MissingError, match="no fused images"):
        read_fused(tmp_path, SHAPE)
    np.save(tmp_path / "small.npy", np.zeros((4, 8, 8)))
    with pytest.raises(UsageError, match=r"\(4, 8, 8\); expected images of 4 bands, 8 rows, 12"):
        read_fused(tmp_path, SHAPE)
    np.save(tmp_path / "small.npy", np.full(SHAPE, np.nan))
    with pytest.raises(UsageError, match="NaN or infinite"):
        read_fused(tmp_path, SHAPE)
    np.save(tmp_path / "small.npy", np.full(SHAPE, "a"))
    with pytest.raises(UsageError, match="expected numbers"):
        read_fused(tmp_path, SHAPE)
    for name in ("broken.npy", "broken.mat", "broken.h5", "broken.tif"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(UsageError, match="truncated or no"):
            read_fused(tmp_path / name, SHAPE)
    with pytest.raises(UsageError, match=r"expected a file named .*\.tif"):
        write_fused(tmp_path / "image.png", numbered()[0])
