"""Reading users' files, picking bands, and who is trained and tested on."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import scipy.io
import tifffile

from bench.config import MissingError, UsageError
from bench.data.cutting import Cutting
from bench.data.division import Division, divide
from bench.data.scenes import Scene, pick_bands, read_scenes

MS = np.arange(4 * 12 * 10, dtype=np.uint16).reshape(4, 12, 10)
PAN = np.arange(48 * 40, dtype=np.uint16).reshape(48, 40)


def tiff(path, image, **options):
    tifffile.imwrite(path, image, **{"photometric": "minisblack", **options})
    return path


def h5(path, content, **attributes):
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            file[name] = value
        file.attrs.update(attributes)
    return path


def by_tiff_planar(folder):
    ms = tiff(folder / "ms.tif", MS, planarconfig="separate")
    return [ms], [tiff(folder / "pan.tif", PAN)]


def by_tiff_interleaved(folder):
    ms = tiff(folder / "ms.tiff", np.moveaxis(MS, 0, 2), planarconfig="contig")
    return [ms], [tiff(folder / "pan.tiff", PAN)]


def by_hdf5(folder):
    return [h5(folder / "a.h5", {"ms": MS, "pan": PAN})], []


def by_hdf5_bands_last(folder):
    return [h5(folder / "a.h5", {"ms": np.moveaxis(MS, 0, 2), "pan": PAN[..., None]})], []


def by_hdf5_stack(folder):
    return [h5(folder / "a.h5", {"ms": MS[None], "pan": PAN[None, None]})], []


def by_hdf5_group(folder):
    return [h5(folder / "a.h5", {"scene/ms": MS, "scene/pan": PAN})], []


def by_mat(folder):
    scipy.io.savemat(folder / "a.mat", {"ms": np.moveaxis(MS, 0, 2), "pan": PAN})
    return [folder / "a.mat"], []


def by_mat73(folder):  # MATLAB writes (H, W, C) with its axes reversed
    return [h5(folder / "a.mat", {"ms": np.moveaxis(MS, 0, 2).T, "pan": PAN.T})], []


@pytest.mark.parametrize(
    "form",
    [
        by_tiff_planar,
        by_tiff_interleaved,
        by_hdf5,
        by_hdf5_bands_last,
        by_hdf5_stack,
        by_hdf5_group,
        by_mat,
        by_mat73,
    ],
)
def test_every_form_gives_the_same_scene(tmp_path, form):
    [scene] = read_scenes(*form(tmp_path))
    assert np.array_equal(scene.ms, MS)
    assert np.array_equal(scene.pan, PAN[None])


def test_ms_alone_and_keys(tmp_path):
    path = h5(tmp_path / "a.h5", {"I_MS": MS, "I_PAN": PAN})
    [scene] = read_scenes([path], ms_key="I_MS")
    assert scene.pan is None
    [scene] = read_scenes([path], ms_key="I_MS", pan_key="I_PAN")
    assert scene.pan.shape == (1, 48, 40)
    with pytest.raises(UsageError, match=r"no array 'ms' .*\(it has I_MS, I_PAN\).*--ms-key"):
        read_scenes([path])


def test_pan_that_overhangs_is_cropped_and_one_that_does_not_fit_refused(tmp_path):
    [scene] = read_scenes([h5(tmp_path / "a.h5", {"ms": MS, "pan": np.pad(PAN, ((0, 3), (0, 2)))})])
    assert np.array_equal(scene.pan, PAN[None])
    [scene] = read_scenes([h5(tmp_path / "a.h5", {"ms": MS, "pan": PAN[:46]})])
    assert scene.ms.shape == (4, 11, 10)
    assert scene.pan.shape == (1, 44, 40)
    with pytest.raises(UsageError, match=r"PAN of 48x30 is no whole multiple of MS of 12x10"):
        read_scenes([h5(tmp_path / "a.h5", {"ms": MS, "pan": PAN[:, :30]})])


def geo(x, y, pixel):
    return [
        (33550, "d", 3, (pixel, pixel, 0.0)),
        (33922, "d", 6, (0.0, 0.0, 0.0, x, y, 0.0)),
    ]


def test_pairs_that_start_elsewhere_are_refused(tmp_path):
    ms = tiff(tmp_path / "ms.tif", MS, planarconfig="separate", extratags=geo(1000.0, 2000.0, 8.0))
    near = tiff(tmp_path / "near.tif", PAN, extratags=geo(1001.0, 2000.0, 2.0))
    far = tiff(tmp_path / "far.tif", PAN, extratags=geo(1000.0, 1990.0, 2.0))
    assert len(read_scenes([ms], [near])) == 1
    with pytest.raises(UsageError, match=r"far.tif starts 10 map units away"):
        read_scenes([ms], [far])


def test_unreadable_files(tmp_path):
    with pytest.raises(MissingError, match="no file"):
        read_scenes([tmp_path / "none.tif"])
    (tmp_path / "a.png").touch()
    with pytest.raises(UsageError, match=r"expected a file named .tif, .tiff, .h5, .hdf5, .mat"):
        read_scenes([tmp_path / "a.png"])
    for name in ("a.tif", "a.h5", "a.mat"):
        (tmp_path / name).write_bytes(b"not what the name says, by far" * 20)
        with pytest.raises(UsageError, match=rf"{name} is truncated or no"):
            read_scenes([tmp_path / name])
    whole = tiff(tmp_path / "ms.tif", np.zeros((4, 200, 200), np.uint16), planarconfig="separate")
    whole.write_bytes(whole.read_bytes()[:-5000])
    with pytest.raises(UsageError, match=r"ms.tif is truncated or no"):
        read_scenes([whole])
    good = h5(tmp_path / "good.h5", {"ms": MS})
    with pytest.raises(UsageError, match="2 PAN files for 1 MS files"):
        read_scenes([good], [good, good])
    with pytest.raises(UsageError, match="named twice"):
        read_scenes([good, good])


def test_bands_are_picked_by_name_or_number(tmp_path):
    named = h5(tmp_path / "a.h5", {"ms": MS}, bands=["R", "G", "B", "NIR"])
    [scene] = read_scenes([named])
    bands, names = pick_bands(scene, ("B", "g", "R"))
    assert np.array_equal(bands, MS[[2, 1, 0]])
    assert names == ("B", "g", "R")
    bands, names = pick_bands(scene, ("4", "1"))
    assert np.array_equal(bands, MS[[3, 0]])
    assert names == ("NIR", "R")
    assert pick_bands(scene, ())[1] == ("R", "G", "B", "NIR")
    with pytest.raises(UsageError, match=r"no band 'NIR1' - did you mean 'NIR'\? \(it has R,G,B"):
        pick_bands(scene, ("NIR1",))
    with pytest.raises(UsageError, match="bands 1 to 4"):
        pick_bands(scene, ("5",))

    [scene] = read_scenes([h5(tmp_path / "b.h5", {"ms": MS})])
    with pytest.raises(UsageError, match=r"does not name its 4 bands.*--file-bands"):
        pick_bands(scene, ("B",))
    assert np.array_equal(pick_bands(scene, ("B",), ("R", "G", "B", "NIR"))[0], MS[[2]])
    with pytest.raises(UsageError, match="4 bands but 2 names"):
        pick_bands(scene, ("B",), ("R", "B"))


def test_geotiff_band_descriptions(tmp_path):
    items = "".join(
        f'<Item name="DESCRIPTION" sample="{i}" role="description">{name}</Item>'
        for i, name in enumerate(("B02", "B03", "B04", "B08"))
    )
    xml = f"<GDALMetadata>{items}</GDALMetadata>"
    path = tiff(
        tmp_path / "ms.tif", MS, planarconfig="separate", extratags=[(42112, "s", 0, xml, True)]
    )
    assert read_scenes([path])[0].band_names == ("B02", "B03", "B04", "B08")


def scene(name, height=100, width=100, **attributes):
    return Scene(name, np.zeros((3, height, width), np.uint16), None, None, attributes)


NEED = {"train": 16, "valid": 16, "test": 24}


def test_groups_stay_together():
    scenes = [scene(f"s{i}", path=f"p{i // 4}") for i in range(20)]
    shares = divide(scenes, Division(group_by="path"), NEED, 4)
    splits = {}
    for share in shares:
        splits.setdefault(scenes[share.scene].attributes["path"], set()).add(share.split)
    assert all(len(kinds) == 1 for kinds in splits.values())
    assert sorted(kinds.pop() for kinds in splits.values()) == ["test", *["train"] * 3, "valid"]
    again = divide(scenes[::-1], Division(group_by="path"), NEED, 4)
    assert {(scenes[::-1][s.scene].name, s.split) for s in again} == {
        (scenes[s.scene].name, s.split) for s in shares
    }


def test_groups_by_name():
    scenes = [scene(f"s{i}") for i in range(4)]
    shares = divide(scenes, Division(valid_on=("s0",), test_on=("s2", "s3")), NEED, 4)
    assert [share.split for share in shares] == ["valid", "train", "test", "test"]
    with pytest.raises(UsageError, match=r"no group 's9' - did you mean"):
        divide(scenes, Division(test_on=("s9",)), NEED, 4)
    with pytest.raises(UsageError, match="s1 cannot be for validation and test both"):
        divide(scenes, Division(test_on=("s1",), valid_on=("s1",)), NEED, 4)
    with pytest.raises(UsageError, match=r"has only folder"):
        divide([scene("a", folder="x")], Division(group_by="date"), NEED, 4)
    with pytest.raises(UsageError, match=r"1 group\(s\) of scenes cannot give"):
        divide([scene("a")], Division(by="scene"), NEED, 4)


@pytest.mark.parametrize(("height", "width"), [(100, 60), (60, 101), (57, 56)])
def test_areas_cover_a_scene_and_do_not_touch_twice(height, width):
    shares = divide([scene("a", height, width)], Division(), NEED, 4)
    hits = np.zeros((height, width), int)
    for share in shares:
        hits[share.rows, share.columns] += 1
        part = hits[share.rows, share.columns]
        assert min(part.shape) >= NEED[share.split]
    assert np.array_equal(hits, np.ones_like(hits))
    assert [share.split for share in shares] == ["train", "valid", "test"]


def test_scenes_too_small_for_three_areas():
    with pytest.raises(UsageError, match=r"scene a of 50x50 .* at least 24 across and 56 along"):
        divide([scene("a", 50, 50)], Division(), NEED, 4)


def test_sizes_must_fit_the_ratio():
    with pytest.raises(UsageError, match="patch=30 is no multiple of the ratio 4; nearest: 32"):
        Cutting(ratio=4, patch=30)
    with pytest.raises(UsageError, match="expected both above 0"):
        Division(valid=0.5, test=0.5)
