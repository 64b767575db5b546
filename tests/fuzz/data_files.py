"""Sound, strange and broken HDF5, MATLAB, GeoTIFF and NumPy files."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
import scipy.sparse
import tifffile

from bench.data import load_dataset, read_fused
from bench.data.scenes import read_scenes
from tests.fuzz.kinds import Kind, Rng, digest

__all__ = ["KINDS"]

SHAPE = (4, 8, 12)


def _pair(rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    pan = rng.integers(100, 1900, (4 * SHAPE[1], 4 * SHAPE[2])).astype("u2")
    ms = pan.reshape(SHAPE[1], 4, SHAPE[2], 4).mean((1, 3))
    return np.stack([ms * f for f in (1.0, 0.9, 0.8, 0.7)]).astype("u2"), pan


def _read_scene(names: list[str], folder: Path) -> str:
    scenes = read_scenes([folder / names[0]], [folder / name for name in names[1:]])
    return digest(*(image for scene in scenes for image in (scene.ms, scene.pan)))


# HDF5 -----------------------------------------------------------------------------------------


def _hdf5_scene(folder: Path, rng: Rng, *, packed: bool) -> Path:
    ms, pan = _pair(rng)
    options = {"chunks": True, "compression": "gzip", "fletcher32": True} if packed else {}
    with h5py.File(folder / "s.h5", "w") as file:
        file.create_dataset("ms", data=ms, **options)
        file.create_dataset("pan", data=pan, **options)
        file["ms"].attrs["bands"] = ["B", "G", "R", "NIR"]
    return folder / "s.h5"


def _hdf5_raw(name: str, folder: Path) -> list[bytes]:
    with h5py.File(folder / name) as file:
        return [item[()].tobytes() for item in file.values() if not item.chunks]


def _hdf5(make: Callable[[h5py.File], Any], folder: Path, rng: Rng, name: str = "s.h5") -> None:
    with h5py.File(folder / name, "w") as file:
        make(file)


def _virtual(file: h5py.File, rows: int, source: str) -> None:
    layout = h5py.VirtualLayout((4, 8, 12), "u2")
    layout[:, :rows] = h5py.VirtualSource(source, "ms", (4, 8, 12))[:, :rows]
    file.create_virtual_dataset("ms", layout)


def _nested(file: h5py.File) -> None:
    group = file
    for _ in range(60):
        group = group.create_group("g")


def _foreign_chunk(file: h5py.File, code: int, content: bytes, shape: tuple[int, ...]) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk(shape)
    plist.set_filter(code, h5py.h5z.FLAG_OPTIONAL, (3,))
    space = h5py.h5s.create_simple(shape)
    dataset = h5py.h5d.create(file.id, b"ms", h5py.h5t.NATIVE_UINT16, space, plist)
    dataset.write_direct_chunk((0,) * len(shape), content, 0)


def _links(file: h5py.File) -> None:
    file["a"], file["b"] = h5py.SoftLink("/b"), h5py.SoftLink("/a")
    file["ms"] = h5py.SoftLink("/a")


_HDF5_MAKERS: tuple[Callable[[h5py.File], Any], ...] = (
    lambda f: f.create_dataset("ms", data=3),
    lambda f: f.create_dataset("ms", data=h5py.Empty("f4")),
    lambda f: f.create_dataset("ms", (4, 0, 8)),
    lambda f: f.create_dataset("ms", data=np.ones((2, 2, 2, 2, 2))),
    lambda f: f.create_dataset("ms", data=np.full((4, 8, 8), "x", dtype="S3")),
    lambda f: f.create_dataset("ms", data=np.ones((4, 8, 8), complex)),
    lambda f: f.create_dataset("ms", data=np.ones((4, 8, 8), bool)),
    lambda f: f.create_dataset("ms", data=np.zeros((4, 8, 8), [("a", "f4"), ("b", "i2")])),
    lambda f: f.create_dataset("ms", (4, 8, 8), h5py.vlen_dtype(np.int32)),
    lambda f: f.create_dataset("ms", (4, 8, 8), h5py.ref_dtype),
    lambda f: f.create_dataset("ms", (8, 2**18, 2**18), "f8", chunks=(1, 64, 64)),
    lambda f: f.create_dataset("ms", (8, 2**16, 2**16), "u2"),
    lambda f: f.create_dataset("ms", (4, 8, 8), "u2", chunks=(4, 4096, 4096),
                               maxshape=(4, None, None)),
    lambda f: f.create_dataset("ms", (4, 8, 8), "u2", external=[("gone.raw", 0, 512)]),
    lambda f: f.__setitem__("ms", h5py.SoftLink("/ms")),
    lambda f: f.__setitem__("ms", h5py.SoftLink("/nowhere")),
    lambda f: f.__setitem__("ms", h5py.ExternalLink("gone.h5", "ms")),
    lambda f: f.__setitem__("ms", h5py.ExternalLink("s.h5", "ms")),
    lambda f: f.__setitem__("ms", np.dtype("u2")),
    partial(_virtual, rows=8, source="gone.h5"),
    partial(_virtual, rows=5, source="other.h5"),
    partial(_virtual, rows=8, source="."),
    _links,
    _nested,
    partial(_foreign_chunk, code=32015, content=b"\x28\xb5\x2f\xfd" + bytes(60), shape=(4, 8, 8)),
    partial(_foreign_chunk, code=1, content=zlib.compress(bytes(1 << 25)), shape=(4, 8, 8)),
    partial(_foreign_chunk, code=1, content=b"no deflate stream", shape=(4, 8, 8)),
)  # fmt: skip


def _data_set(folder: Path, rng: Rng) -> Path:
    gt = np.kron(rng.integers(200, 1500, (3, 4, 8, 8)), np.ones((2, 2)))
    ms = gt.reshape(3, 4, 4, 4, 4, 4).mean((3, 5))
    arrays = {"gt": gt, "ms": ms, "lms": np.kron(ms, np.ones((4, 4))), "pan": gt[:, :1]}
    with h5py.File(folder / "test_reduced.h5", "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return folder / "test_reduced.h5"


def _read_data_set(folder: Path) -> str:
    data = load_dataset(folder, sensor="QB")
    first = data.fingerprint
    split = data.split("reduced")
    return first + digest(*(x.numpy() for x in (split.gt, split.ms, split.lms, split.pan)))


_HEADER = {"sensor": "none", "peak": 2047.0, "bands": list("abcd"), "ratio": 4, "fingerprint": "x",
           "notes": "", "provenance": "{}"}  # fmt: skip


def _header(folder: Path, rng: Rng) -> None:
    wrong = (
        "abc",
        7,
        -1.0,
        float("nan"),
        b"\xff",
        [],
        "[" * 3000,
        np.zeros((2, 2)),
        h5py.Empty("f"),
    )
    path = _data_set(folder, rng)
    with h5py.File(path, "r+") as file:
        file.attrs.update(_HEADER)
        file.attrs[str(rng.choice(list(_HEADER)))] = wrong[int(rng.integers(len(wrong)))]


def _swapped(folder: Path, rng: Rng) -> None:
    path = _data_set(folder, rng)
    keys = rng.choice(("gt", "ms", "lms", "pan"), 2, replace=False)
    kinds = ("S4", "c8", "u1", "i8", "f2", ">f8", "?")
    with h5py.File(path, "r+") as file:
        a, b = (file[key][()] for key in keys)
        del file[keys[0]]
        with np.errstate(all="ignore"):
            file[keys[0]] = b if rng.random() < 0.5 else a.astype(str(rng.choice(kinds)))


# MATLAB ---------------------------------------------------------------------------------------


def _mat(folder: Path, rng: Rng, *, version: str) -> Path:
    ms, pan = _pair(rng)
    path = folder / "s.mat"
    if version == "7.3":
        with h5py.File(path, "w", userblock_size=512) as file:
            file["ms"], file["pan"] = np.moveaxis(ms, 0, -1).T, pan.T
        return path
    content = {"note": "text", "ms": np.moveaxis(ms, 0, -1), "pan": pan}
    if version == "4":
        content = {"ms": pan[::4, ::4].astype("f8"), "pan": pan.astype("f8")}
    form = "4" if version == "4" else "5"
    scipy.io.savemat(path, content, do_compression=version == "packed", format=form)
    return path


def _mat_raw(folder: Path) -> list[bytes]:
    values = scipy.io.loadmat(folder / "s.mat")
    return [values[name].tobytes("F") for name in ("ms", "pan")]


def _mat_holds(value: Any, folder: Path, rng: Rng) -> None:
    packed = bool(rng.random() < 0.5)
    scipy.io.savemat(folder / "s.mat", {"ms": value, "pan": np.ones((8, 8))}, do_compression=packed)


def _mat_bytes(content: bytes, folder: Path, rng: Rng) -> None:
    (folder / "s.mat").write_bytes(content)


def _mat_declares(axes: tuple[int, ...], kind: int, size: int, packed: bool) -> bytes:
    """Return a version 5 file whose array declares what it does not hold."""
    shape = struct.pack(f"<II{len(axes)}i", 5, 4 * len(axes), *axes)
    shape += bytes(-len(shape) % 8)
    body = struct.pack("<IIII", 6, 8, 6, 0) + shape + struct.pack("<HH4s", 1, 2, b"ms")
    body += struct.pack("<II", kind, size) + bytes(64)
    element = (
        struct.pack("<II", 14, min(len(body) + size, 2**32 - 1) if packed else len(body)) + body
    )
    if packed:
        squeezed = zlib.compress(element)
        element = struct.pack("<II", 15, len(squeezed)) + squeezed
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + element


def _cells() -> np.ndarray:
    cells = np.empty(2, object)
    cells[:] = [np.ones((3, 3)), "x"]
    return cells


_MAT_ODD = (
    *(
        partial(_mat_holds, value)
        for value in (
            np.zeros((0, 0)), 3, "text", {"a": {"b": {"c": np.ones(3)}}}, _cells(),
            np.ones((8, 8, 4)) * 1j, scipy.sparse.eye(9).tocsc(), np.full((8, 8, 4), np.nan),
            np.ones((8, 8, 4), bool), np.ones((2, 2, 2, 2, 2)),
        )
    ),
    *(
        partial(_mat_bytes, content)
        for content in (
            b"", b"\x80\x04\x95" + bytes(30), bytes(200), b"MATLAB 5.0".ljust(124) + b"\x00\x01XX",
            struct.pack("<5i", 0, 2**30, 2**30, 0, 3) + b"ms\0",
            struct.pack("<5i", 0, -4, 4, 0, 3) + b"ms\0" + bytes(100),
            struct.pack("<5i", 0, 4, 4, 0, -20) + bytes(100),
            _mat_declares((2**15, 2**15, 4), 9, 2**32 - 1, False),
            _mat_declares((2**15, 2**15, 4), 9, 2**32 - 1, True),
            _mat_declares((2**14, 2**14), 9, 2**31, True),
            _mat_declares((-2, -2), 9, 32, True),
            _mat_declares((4, 2), 9, 64, True),
        )
    ),
)  # fmt: skip


# GeoTIFF --------------------------------------------------------------------------------------


def _geo(pixel: float) -> list[tuple]:
    keys = (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32633)
    return [
        (33550, "d", 3, (pixel, pixel, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 431000.0, 5180000.0, 0.0), True),
        (34735, "H", 12, keys, True),
        (42112, "s", 0, "<GDALMetadata><Item sample='0' role='description'>B</Item></GDALMetadata>",
         True),
    ]  # fmt: skip


def _tiff_pair(folder: Path, rng: Rng, *, packed: bool) -> Path:
    ms, pan = _pair(rng)
    options = {"compression": "deflate", "predictor": 2, "tile": (16, 16)} if packed else {}
    tifffile.imwrite(folder / "ms.tif", ms, photometric="minisblack", planarconfig="separate",
                     metadata=None, extratags=_geo(4.0), **options)  # fmt: skip
    tifffile.imwrite(folder / "pan.tif", pan, photometric="minisblack", metadata=None,
                     extratags=_geo(1.0))  # fmt: skip
    return folder / "ms.tif"


def _tiff_raw(folder: Path) -> list[bytes]:
    return [tifffile.imread(folder / "ms.tif").tobytes()]


def _tiff(change: Callable[[np.ndarray], dict[str, Any]], folder: Path, rng: Rng) -> None:
    ms, _ = _pair(rng)
    options = {"photometric": "minisblack", "planarconfig": "separate", "metadata": None}
    options |= change(ms)
    image = options.pop("image", ms)
    patch = options.pop("patch", ())
    options = {key: value for key, value in options.items() if value is not None}
    tifffile.imwrite(folder / "ms.tif", image, **options)
    with tifffile.TiffFile(folder / "ms.tif", mode="r+") as file:
        for code, value in patch:
            if code in file.pages[0].tags:
                file.pages[0].tags[code].overwrite(value)


def _loop(folder: Path, rng: Rng) -> None:
    """An IFD whose successor is itself."""
    path = _tiff_pair(folder, rng, packed=False)
    content = bytearray(path.read_bytes())
    (first,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, first)
    struct.pack_into("<I", content, first + 2 + 12 * entries, first)
    path.write_bytes(content)


def _pages(folder: Path, rng: Rng) -> None:
    with tifffile.TiffWriter(folder / "ms.tif") as file:
        for size in (8, 16):
            file.write(np.ones((size, size), "u2"), photometric="minisblack", metadata=None)


def _xml(text: str) -> Callable[[np.ndarray], dict[str, Any]]:
    return lambda ms: {"extratags": [(42112, "s", 0, text, True)]}


def _patch(*tags: tuple[int, Any]) -> Callable[[np.ndarray], dict[str, Any]]:
    return lambda ms: {"patch": tags}


_BOMB = "<!DOCTYPE l [<!ENTITY a0 'lol'>" + "".join(
    f"<!ENTITY a{i} '{f'&a{i - 1};' * 10}'>" for i in range(1, 10)
) + "]><G><Item role='description' sample='0'>&a9;</Item></G>"  # fmt: skip
_TIFF_ODD = (
    *(
        partial(_tiff, change)
        for change in (
            *map(_xml, ("<GDALMetadata><Item", "<G>" * 3000, _BOMB,
                        "<G><Item role='description' sample='x'>B</Item></G>")),
            *(_patch(tag) for tag in ((259, 50000), (259, 7), (258, 12), (258, 3), (277, 0),
                                      (277, 200), (256, 2**31), (257, 2**32 - 1), (262, 3),
                                      (262, 6), (339, 5), (284, 1), (278, 1), (256, 0))),
            lambda ms: {"extratags": [(33550, "d", 1, 2.4, True)]},
            lambda ms: {"extratags": [(33550, "d", 3, (1.0, 1.0, 0.0), True),
                                      (33922, "d", 2, (0.0, 0.0), True)]},
            lambda ms: {"extratags": [(34264, "d", 16, (float("nan"),) * 16, True)]},
            lambda ms: {"extratags": [(34735, "H", 4, (1, 1, 0, 900), True)]},
            lambda ms: {"extratags": [(42113, "s", 0, "none", True)]},
            lambda ms: {"extratags": [(42113, "s", 0, "nan", True)]},
            lambda ms: {"image": ms.astype("f2")},
            lambda ms: {"image": ms.astype("c8")},
            lambda ms: {"image": ms.astype("f4") * np.float32(np.nan)},
            lambda ms: {"image": np.zeros_like(ms), "extratags": [(42113, "s", 0, "0", True)]},
            lambda ms: {"image": ms[:1], "planarconfig": None},
            lambda ms: {"extrasamples": ["unspecified", "unspecified", "unassalpha"]},
        )
    ),
    _loop,
    _pages,
)  # fmt: skip


# NumPy ----------------------------------------------------------------------------------------


class _Run:
    """Leaves a mark when it is unpickled."""

    def __reduce__(self) -> tuple:
        return exec, ("open('code-was-run', 'w')",)


def _npy(folder: Path, rng: Rng) -> Path:
    np.save(folder / "f.npy", rng.integers(0, 2000, (2, *SHAPE)).astype("f4"))
    return folder / "f.npy"


def _npy_raw(folder: Path) -> list[bytes]:
    return [np.load(folder / "f.npy").tobytes()]


def _npy_bytes(content: bytes, folder: Path, rng: Rng) -> None:
    (folder / "f.npy").write_bytes(content)


def _npy_header(text: str, version: int = 1, more: bytes = bytes(64)) -> bytes:
    return b"\x93NUMPY" + bytes((version, 0)) + struct.pack("<H", len(text)) + text.encode() + more


def _archive() -> bytes:
    memory = io.BytesIO()
    np.savez(memory, fused=np.ones(SHAPE))
    return memory.getvalue()


def _objects() -> bytes:
    memory = io.BytesIO()
    np.save(memory, np.array([_Run()], dtype=object), allow_pickle=True)
    return memory.getvalue()


_NPY_ODD = tuple(
    partial(_npy_bytes, content)
    for content in (
        b"", b"\x93NUMPY", _archive(), _archive()[:100], _objects(), pickle.dumps(_Run()),
        _npy_header("{'descr': '<f4', (((   \n"),
        _npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (4, 100000, 100000)}\n"),
        _npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-4, 8, 12)}\n"),
        _npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (10**30,)}\n"),
        _npy_header("{'descr': '|O', 'fortran_order': False, 'shape': (4, 8, 12)}\n"),
        _npy_header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (4,)}\n"),
        _npy_header("(" * 3000 + "\n"),
        _npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (4, 8, 12)}\n", 9),
        _npy_header("__import__('os').system('touch code-was-run')\n"),
    )
)  # fmt: skip


def _read_fused(name: str, folder: Path) -> str:
    return digest(read_fused(folder / name, SHAPE))


def _fused(name: str, folder: Path, rng: Rng) -> Path:
    image = rng.integers(0, 2000, SHAPE).astype("f8")
    if name.endswith(".mat"):
        scipy.io.savemat(folder / name, {"fused": np.moveaxis(image, 0, -1)}, do_compression=True)
    else:
        with h5py.File(folder / name, "w") as file:
            file["fused"] = image
    return folder / name


KINDS = (
    Kind("HDF5 scene", partial(_hdf5_scene, packed=False), partial(_read_scene, ["s.h5"]),
         [partial(_hdf5, make) for make in _HDF5_MAKERS], partial(_hdf5_raw, "s.h5")),
    Kind("HDF5 scene, packed", partial(_hdf5_scene, packed=True), partial(_read_scene, ["s.h5"])),
    Kind("HDF5 data set", _data_set, _read_data_set, [_header, _swapped],
         partial(_hdf5_raw, "test_reduced.h5")),
    Kind(".mat v4", partial(_mat, version="4"), partial(_read_scene, ["s.mat"]), (), _mat_raw),
    Kind(".mat v5", partial(_mat, version="5"), partial(_read_scene, ["s.mat"]), _MAT_ODD,
         _mat_raw),
    Kind(".mat v5, packed", partial(_mat, version="packed"), partial(_read_scene, ["s.mat"])),
    Kind(".mat v7.3", partial(_mat, version="7.3"), partial(_read_scene, ["s.mat"]),
         [partial(_hdf5, make, name="s.mat") for make in _HDF5_MAKERS],
         partial(_hdf5_raw, "s.mat")),
    Kind("GeoTIFF", partial(_tiff_pair, packed=False), partial(_read_scene, ["ms.tif", "pan.tif"]),
         _TIFF_ODD, _tiff_raw),
    Kind("GeoTIFF, packed", partial(_tiff_pair, packed=True),
         partial(_read_scene, ["ms.tif", "pan.tif"])),
    Kind("npy, npz", _npy, partial(_read_fused, "f.npy"), _NPY_ODD, _npy_raw),
    Kind("fused .mat", partial(_fused, "f.mat"), partial(_read_fused, "f.mat")),
    Kind("fused .h5", partial(_fused, "f.h5"), partial(_read_fused, "f.h5"), (),
         partial(_hdf5_raw, "f.h5")),
)  # fmt: skip
