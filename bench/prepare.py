"""Turn your own scenes into a data set: train, valid, reduced- and full-resolution test files.

    python bench/prepare.py --ms scene.tif --pan scene_pan.tif --bits 11 --out data/mine
    python bench/prepare.py --ms city_ms.tif coast_ms.tif forest_ms.tif \
        --pan city_pan.tif coast_pan.tif forest_pan.tif --sensor QB --out data/mine
    python bench/prepare.py --ms scene.mat --ms-key I_MS --simulate-pan --peak 10000 --out data/mine

Afterwards every command takes ``--dataset data/mine``. Before an hour of a GPU is spent on a
folder, PanCollection's or your own, see what it holds:

    python bench/prepare.py --check data/PanCollection
"""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from backbones.names import nearest
from bench.config import ExitCode, MissingError, UsageError, run_command

if TYPE_CHECKING:
    from bench.data.cutting import Cutting
    from bench.data.division import Division
    from bench.data.files import Header
    from bench.data.preparing import PanRecipe
    from bench.data.scenes import Scene

__all__ = ["Flags", "main"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Flags:
    """Turn your own scenes into a data set in the PanCollection format.

    MS and PAN must start at the same upper left corner; PAN has a whole number of pixels per MS
    pixel. Scenes are split by scene where there are three or more, else by area; no pixel is in
    two splits.
    """

    ms: tuple[Path, ...] = ()
    """GeoTIFF, HDF5 or .mat files with the multispectral bands."""
    out: Path | None = None
    """Folder to write train.h5, valid.h5, test_reduced.h5 and test_full.h5 to."""
    check: Path | None = None
    """Say what a folder of PanCollection's files, or one of them, holds: hashes, counts, known
    defects, memory. Changes nothing; 0 if all can be used, 3 if something is missing or broken."""
    pan: tuple[Path, ...] = ()
    """Panchromatic files, one for each of --ms; not needed where HDF5 or .mat files hold both."""
    ms_key: str = "ms"
    """Name of the MS array in HDF5 and .mat files."""
    pan_key: str = "pan"
    """Name of the PAN array in HDF5 and .mat files."""
    bands: str | None = None
    """Bands to take, in the order to take them: names (B,G,R,NIR) or numbers (3,2,1,4)."""
    file_bands: str | None = None
    """Names of the file's bands in its own order, where it does not hold them."""
    sensor: str | None = None
    """Whose MTF to simulate: WV3, WV2, QB, GF2, IKONOS, GeoEye1, or none (0.3 at Nyquist), which
    is also what is taken if not given. With --check: whose files to look at."""
    bits: int | None = None
    """Bit depth of the counts; the sensor's own if not given."""
    peak: float | None = None
    """Largest count, where it is not 2^bits - 1 (Sentinel-2: 10000)."""
    ratio: int | None = None
    """Ratio of the fusion; the images' own if not given, 4 for a simulated PAN."""
    simulate_pan: bool = False
    """Make PAN from the bands, for MS without one; the files then say so."""
    pan_weights: tuple[float, ...] = ()
    """Weight of each taken band in a simulated PAN; equal if not given."""
    pan_gain: float = 0.15
    """MTF of a simulated PAN at its Nyquist frequency."""
    pan_noise: float = 0.001
    """Noise of a simulated PAN: standard deviation over the peak."""
    split_by: Literal["auto", "scene", "area"] = "auto"
    """auto: by scene where there are three groups or more, else by area."""
    group_by: str | None = None
    """Scene attribute (HDF5), or 'folder', whose equal values belong in one split."""
    valid_share: float = 0.1
    """Share of the scenes or of the area for validation."""
    test_share: float = 0.2
    """Share of the scenes or of the area for testing."""
    valid_on: tuple[str, ...] = ()
    """Scenes or groups to validate on, instead of a share."""
    test_on: tuple[str, ...] = ()
    """Scenes or groups to test on, instead of a share."""
    patch: int = 64
    """Side of training and validation patches, in pixels of the reference. Sizes are raised to
    multiples of the ratio."""
    stride: int = 48
    """Step between training patches."""
    test_size: int = 256
    """Side of reduced-resolution test tiles."""
    full_size: int | None = None
    """Side of full-resolution test tiles in PAN pixels; as --test-size if not given."""
    margin: int = 16
    """Pixels dropped along borders, where filters see pixels that are not there."""
    dry_run: bool = False
    """Show how the scenes would be split; write nothing."""
    force: bool = False
    """Replace a data set made from other scenes or with other settings."""
    json: bool = False
    """Print the result as JSON."""
    quiet: bool = False
    """No log below warnings."""


def main(flags: Flags) -> int:
    """Run the verb; see :class:`Flags`."""
    if flags.check is not None:
        return _check(flags, flags.check)
    from bench.data.checks import check_counts
    from bench.data.cutting import Cutting, write_splits
    from bench.data.division import Division, divide
    from bench.data.files import FILE_NAMES, is_current
    from bench.data.preparing import PanRecipe, areas, trim, warn_of_sizes
    from bench.data.scenes import read_scenes

    _check_flags(flags)
    pan = PanRecipe(flags.pan_weights, flags.pan_gain, flags.pan_noise)
    division = Division(
        by=flags.split_by,
        group_by=flags.group_by,
        valid=flags.valid_share,
        test=flags.test_share,
        valid_on=flags.valid_on,
        test_on=flags.test_on,
    )
    scenes = [
        trim(_pick(scene, flags))
        for scene in read_scenes(flags.ms, flags.pan, ms_key=flags.ms_key, pan_key=flags.pan_key)
    ]
    native = _native_ratio(scenes, flags)
    ratio = flags.ratio if flags.ratio is not None else native if native > 1 else 4
    full = flags.test_size if flags.full_size is None else flags.full_size
    cutting = Cutting(
        ratio=ratio,
        patch=_fit(flags.patch, ratio),
        stride=_fit(flags.stride, ratio),
        tile=_fit(flags.test_size, ratio),
        full_tile=_fit(full, ratio),
        margin=flags.margin,
    )
    header = _header(scenes, native, cutting, division, pan, flags)
    for scene in scenes:
        images = {f"scene {scene.name}: MS": scene.ms, f"scene {scene.name}: PAN": scene.pan}
        check_counts(images, header.sensor.peak)
    need = {split: cutting.need(split, native) for split in ("train", "valid", "test")}
    shares = divide(scenes, division, need, cutting.ratio)
    warn_of_sizes(cutting)
    if flags.dry_run:
        for share in shares:
            rows, columns = share.rows, share.columns
            print(
                f"{share.split:6} {scenes[share.scene].name} "
                f"rows {rows.start}-{rows.stop} columns {columns.start}-{columns.stop}"
            )
        return ExitCode.OK
    if flags.force or not is_current(flags.out, header.fingerprint):
        taken = [name for name in FILE_NAMES.values() if (flags.out / name).exists()]
        if taken and not flags.force:
            raise UsageError(
                f"{flags.out} holds {', '.join(taken)} made otherwise, or changed since; choose "
                f"another --out, or --force to replace them"
            )
        write_splits(areas(scenes, shares, pan, header.sensor.peak), flags.out, cutting, header)
    else:
        log.info("%s is up to date", flags.out)
    _report(flags, header)
    return ExitCode.OK


def _check_flags(flags: Flags) -> None:
    """Raise a UsageError for a setting that no scene could make right, before one is read."""
    from bench.imaging import get_sensor

    if not flags.ms:
        raise UsageError("--ms names no file; expected scenes, or --check and a folder")
    if flags.out is None:
        raise UsageError("--out is not given; expected a folder to write the data set to")
    if flags.ratio is not None and flags.ratio < 2:
        raise UsageError(f"--ratio {flags.ratio} does not go with any images; expected 2 or more")
    least = {"patch": 1, "stride": 1, "test_size": 1, "full_size": 1, "margin": 0}
    for name, lowest in least.items():
        value = getattr(flags, name)
        if value is not None and value < lowest:
            raise UsageError(f"--{name.replace('_', '-')} {value}; expected {lowest} or more")
    for name in ("bands", "file_bands"):
        value = getattr(flags, name)
        if value is not None and not all(_comma(value) or [""]):
            raise UsageError(
                f"--{name.replace('_', '-')} {value!r}; expected names or numbers from 1, with a "
                f"comma between them: B,G,R,NIR"
            )
    if "0" in _comma(flags.bands):
        raise UsageError(f"--bands {flags.bands}: bands are counted from 1")
    for path in (*flags.ms, *flags.pan):
        if not path.is_file():
            raise MissingError(f"no file {path}")
    if (flags.sensor or "none").lower() == "none" and flags.bits is None and flags.peak is None:
        raise UsageError(
            "sensor none does not say how large a count can be; give --bits (e.g. 11) or --peak"
        )
    get_sensor("none", 1, bits=flags.bits, peak=flags.peak)  # refuses what is out of range
    if flags.out.exists() and not flags.out.is_dir():
        raise UsageError(f"--out {flags.out} is a file; expected a folder")


def _fit(size: int, ratio: int) -> int:
    """Return the least multiple of ``ratio`` that is not below ``size``."""
    return -(-size // ratio) * ratio


def _pick(scene: Scene, flags: Flags) -> Scene:
    from bench.data.scenes import pick_bands

    ms, names = pick_bands(scene, _comma(flags.bands), _comma(flags.file_bands))
    if scene.pan is None and not flags.simulate_pan:
        raise MissingError(
            f"scene {scene.name} has no PAN; give --pan, or --pan-key where the file holds it, or "
            f"--simulate-pan to make one from the bands"
        )
    return replace(scene, ms=ms, band_names=names, pan=None if flags.simulate_pan else scene.pan)


def _comma(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",")) if text else ()


def _native_ratio(scenes: Sequence[Scene], flags: Flags) -> int:
    natives = {
        1 if scene.pan is None else scene.pan.shape[1] // scene.ms.shape[1] for scene in scenes
    }
    bands = {scene.band_names for scene in scenes}
    if len(natives) > 1 or len(bands) > 1:
        raise UsageError(
            f"scenes differ: ratios {sorted(natives)}, bands {sorted(bands)}; expected one of each"
        )
    native = natives.pop()
    if flags.ratio is not None and max(native, flags.ratio) % min(native, flags.ratio):
        raise UsageError(
            f"--ratio {flags.ratio} does not go with images of ratio {native}: expected one a "
            f"multiple of the other"
        )
    return native


def _header(
    scenes: Sequence[Scene],
    native: int,
    cutting: Cutting,
    division: Division,
    pan: PanRecipe,
    flags: Flags,
) -> Header:
    from bench.config import canonical_json, config_hash
    from bench.data.files import Header, content_digest
    from bench.data.preparing import describe
    from bench.imaging import get_sensor

    bands = scenes[0].band_names
    sensor = get_sensor(flags.sensor or "none", len(bands), bits=flags.bits, peak=flags.peak)
    settings: dict[str, Any] = {
        "scenes": [scene.name for scene in scenes],
        "bands": bands,
        "native_ratio": native,
        "cutting": cutting,
        "division": division,
        "sensor": sensor,
    }
    if flags.simulate_pan:
        settings["pan"] = {
            "weights": pan.of(len(bands)),
            "gain": pan.gain,
            "noise": pan.noise,
        }
    files = [[path.name, content_digest(path)] for path in (*flags.ms, *flags.pan)]
    return Header(
        sensor=replace(sensor, band_names=bands),
        ratio=cutting.ratio,
        fingerprint=config_hash({**settings, "values": [scene.digest() for scene in scenes]}),
        notes=describe(native, cutting.ratio, pan if flags.simulate_pan else None, bands),
        provenance={"files": files, "settings": canonical_json(settings)},
    )


def _report(flags: Flags, header: Header) -> None:
    import h5py

    from bench.data import load_dataset
    from bench.data.files import FILE_NAMES

    rows = []
    for split, name in FILE_NAMES.items():
        with h5py.File(flags.out / name) as file:
            rows.append({"split": split, "file": name, "pan_shape": list(file["pan"].shape)})
    if flags.json:
        import json

        print(
            json.dumps(
                {
                    "folder": str(flags.out),
                    "sensor": header.sensor.name,
                    "peak": header.sensor.peak,
                    "bands": list(header.sensor.band_names),
                    "ratio": header.ratio,
                    "notes": list(header.notes),
                    "fingerprint": load_dataset(flags.out).fingerprint,
                    "splits": rows,
                }
            )
        )
        return
    for row in rows:
        count, _, height, width = row["pan_shape"]
        print(f"{row['split']:8} {count:6} x {height}x{width}  {row['file']}")
    for note in header.notes:
        print(note)
    print(flags.out)


def _check(flags: Flags, place: Path) -> int:
    """Look at the files of a data set; see ``Flags.check``."""
    if flags.ms or flags.out is not None:
        raise UsageError("--check goes with no --ms and no --out: it writes nothing")
    from bench.config.progress import Progress
    from bench.data.finding import candidates, named_for
    from bench.data.full_sets import tell_full_set
    from bench.data.inspected import as_plain, as_table
    from bench.data.inspection import inspect_files, missing_splits
    from bench.data.mat_sets import mat_images
    from bench.data.published import has_two_full_sets
    from bench.imaging import SENSOR_NAMES
    from bench.metrics import full_resolution

    place, progress = place.expanduser(), Progress(flags.quiet)
    if mat_images(place):
        raise UsageError(
            f"--check looks at HDF5 files; images in .mat files, as in {place}, are checked by the "
            f"command that reads them, e.g. bench/evaluate.py"
        )
    found = candidates(place)
    if flags.sensor is not None:
        if flags.sensor.lower() not in map(str.lower, SENSOR_NAMES):
            known = ", ".join(SENSOR_NAMES)
            near = nearest(flags.sensor, SENSOR_NAMES)
            raise UsageError(f"unknown sensor {flags.sensor!r}{near} (known: {known})")
        found = named_for(found, flags.sensor)
        if not found:
            raise MissingError(f"no files of sensor {flags.sensor} in {place}")
    inspected = inspect_files(found, flags.sensor, progress)
    for one in inspected:
        if one.problems or one.split != "full" or one.sensor is None:
            continue
        if has_two_full_sets(one.sensor, one.shapes["lms"]):
            score = partial(full_resolution, sensor=one.sensor)
            one.remarks.append(tell_full_set(one.path, one.sensor, score, progress))
    missing = [] if place.is_file() else missing_splits(inspected)
    problems = [line for one in inspected for line in one.problems]
    remarks = [line for one in inspected for line in one.remarks]
    if flags.json:
        import json

        files = [as_plain(one) for one in inspected]
        usable = not (missing or problems)
        print(
            json.dumps({"folder": str(place), "usable": usable, "missing": missing, "files": files})
        )
    else:
        print(as_table(inspected, place))
        lines = {"problem": problems, "missing": missing, "note": remarks}
        for kind, said in lines.items():
            for line in said:
                print(f"{kind}: {line}")
    return ExitCode.MISSING if missing or problems else ExitCode.OK


if __name__ == "__main__":
    run_command(Flags, main, prog="prepare.py")
