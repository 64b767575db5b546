"""Turn your own scenes into a data set: train, valid, reduced- and full-resolution test files.

    python bench/prepare.py --ms scene.tif --pan scene_pan.tif --bits 11 --out data/mine
    python bench/prepare.py --ms city_ms.tif coast_ms.tif forest_ms.tif \
        --pan city_pan.tif coast_pan.tif forest_pan.tif --sensor QB --out data/mine
    python bench/prepare.py --ms scene.mat --ms-key I_MS --simulate-pan --peak 10000 --out data/mine

Afterwards every command takes ``--dataset data/mine``.
"""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.config import ExitCode, MissingError, UsageError, run_command

if TYPE_CHECKING:
    from bench.data.cutting import Area, Cutting
    from bench.data.division import Division, Share
    from bench.data.files import Header
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

    ms: tuple[Path, ...]
    """GeoTIFF, HDF5 or .mat files with the multispectral bands."""
    out: Path
    """Folder to write train.h5, valid.h5, test_reduced.h5 and test_full.h5 to."""
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
    sensor: str = "none"
    """Whose MTF to simulate: WV3, WV2, QB, GF2, IKONOS, GeoEye1, or none (0.3 at Nyquist)."""
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
    from bench.data.cutting import Cutting, write_splits
    from bench.data.division import Division, divide
    from bench.data.files import FILE_NAMES, is_current
    from bench.data.scenes import read_scenes

    scenes = [
        _pick(scene, flags)
        for scene in read_scenes(flags.ms, flags.pan, ms_key=flags.ms_key, pan_key=flags.pan_key)
    ]
    if not scenes:
        raise UsageError("--ms names no file")
    native = _native_ratio(scenes, flags)
    ratio = flags.ratio or (native if native > 1 else 4)
    cutting = Cutting(
        ratio=ratio,
        patch=_fit(flags.patch, ratio),
        stride=_fit(flags.stride, ratio),
        tile=_fit(flags.test_size, ratio),
        full_tile=_fit(flags.full_size or flags.test_size, ratio),
        margin=flags.margin,
    )
    division = Division(
        by=flags.split_by,
        group_by=flags.group_by,
        valid=flags.valid_share,
        test=flags.test_share,
        valid_on=flags.valid_on,
        test_on=flags.test_on,
    )
    header = _header(scenes, native, cutting, division, flags)
    _check_counts(scenes, header.sensor.peak)
    need = {split: cutting.need(split, native) for split in ("train", "valid", "test")}
    shares = divide(scenes, division, need, cutting.ratio)
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
                f"{flags.out} holds {', '.join(taken)} made otherwise; choose another --out, or "
                f"--force to replace them"
            )
        write_splits(_areas(scenes, shares, header, flags), flags.out, cutting, header)
    else:
        log.info("%s is up to date", flags.out)
    _report(flags, header)
    return ExitCode.OK


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
    if flags.ratio is not None and (
        flags.ratio < 2 or max(native, flags.ratio) % min(native, flags.ratio)
    ):
        raise UsageError(
            f"--ratio {flags.ratio} does not go with images of ratio {native}: expected 2 or more, "
            f"one a multiple of the other"
        )
    return native


def _check_counts(scenes: Sequence[Scene], peak: float) -> None:
    import numpy as np

    for scene in scenes:
        for what, image in (("MS", scene.ms), ("PAN", scene.pan)):
            if image is None:
                continue
            low, high = float(image.min()), float(image.max())
            if not (np.isfinite(low) and np.isfinite(high)):
                raise UsageError(f"scene {scene.name}: {what} has NaN or infinite values")
            if low < 0 or high > peak:
                raise UsageError(
                    f"scene {scene.name}: {what} ranges from {low:g} to {high:g}; expected counts "
                    f"from 0 to {peak:g}: --bits or --peak says what the largest can be"
                )


def _header(
    scenes: Sequence[Scene], native: int, cutting: Cutting, division: Division, flags: Flags
) -> Header:
    from bench.config import canonical_json, config_hash
    from bench.data.files import Header, content_digest
    from bench.imaging import get_sensor

    bands = scenes[0].band_names
    if flags.sensor.lower() == "none" and flags.bits is None and flags.peak is None:
        raise UsageError(
            "sensor none does not say how large a count can be; give --bits (e.g. 11) or --peak"
        )
    sensor = get_sensor(flags.sensor, len(bands), bits=flags.bits, peak=flags.peak)
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
            "weights": _weights(flags, len(bands)),
            "gain": flags.pan_gain,
            "noise": flags.pan_noise,
        }
    files = [[path.name, content_digest(path)] for path in (*flags.ms, *flags.pan)]
    return Header(
        sensor=replace(sensor, band_names=bands),
        ratio=cutting.ratio,
        fingerprint=config_hash({**settings, "files": [digest for _, digest in files]}),
        notes=_notes(bands, native, cutting.ratio, flags),
        provenance={"files": files, "settings": canonical_json(settings)},
    )


def _weights(flags: Flags, bands: int) -> tuple[float, ...]:
    weights = flags.pan_weights or (1 / bands,) * bands
    if len(weights) != bands:
        raise UsageError(f"--pan-weights has {len(weights)} numbers for {bands} bands")
    return weights


def _notes(bands: Sequence[str], native: int, ratio: int, flags: Flags) -> tuple[str, ...]:
    notes = []
    if flags.simulate_pan:
        weights = zip(_weights(flags, len(bands)), bands, strict=True)
        parts = ", ".join(f"{weight:.3g} {band}" for weight, band in weights)
        notes.append(
            f"PAN is simulated: {parts}; MTF {flags.pan_gain} at Nyquist; Gaussian noise of "
            f"{flags.pan_noise} of the peak"
        )
    reduced = f"reduced resolution: MS by Wald's protocol at ratio {ratio}"
    if native not in (1, ratio):
        reduced += f", PAN averaged {native}x{native} to the reference's grid"
    notes.append(reduced)
    if native < ratio:
        notes.append(f"full resolution: MS averaged {ratio // native}x{ratio // native}")
    elif native > ratio:
        notes.append(f"full resolution: PAN averaged {native // ratio}x{native // ratio}")
    return tuple(notes)


def _areas(
    scenes: Sequence[Scene], shares: Sequence[Share], header: Header, flags: Flags
) -> Iterator[Area]:
    import numpy as np
    import torch

    from bench.config import derive_seed
    from bench.data.cutting import Area
    from bench.data.wald import simulate_pan

    def counts(image: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(image.astype(np.float64))

    for share in shares:
        scene, rows, columns = scenes[share.scene], share.rows, share.columns
        ms = counts(scene.ms[:, rows, columns])
        if scene.pan is None:
            pan = simulate_pan(
                ms,
                _weights(flags, len(ms)),
                gain=flags.pan_gain,
                noise=flags.pan_noise * header.sensor.peak,
                seed=derive_seed(0, "pan", scene.name, share.split),
            )
        else:
            n = scene.pan.shape[1] // scene.ms.shape[1]
            pan = counts(
                scene.pan[:, n * rows.start : n * rows.stop, n * columns.start : n * columns.stop]
            )
        yield Area(scene.name, share.split, ms, pan)


def _report(flags: Flags, header: Header) -> None:
    import h5py

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
                    "fingerprint": header.fingerprint,
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


if __name__ == "__main__":
    run_command(Flags, main, prog="prepare.py")
