"""Verb: fuse one scene from disk to disk, by any method or a trained denoiser.

    python bench/fuse.py --ms ms.tif --pan pan.tif --out fused.tif --method gsa --sensor QB
    python bench/fuse.py --ms ms.tif --pan pan.tif --out fused.tif --backbone fno --dataset data/qb
    python bench/fuse.py --ms ms.tif --pan pan.tif --out fused.tif --sensor QB \\
        --method fusionnet --weights fusionnet_qb.pth

A denoiser, and a deep method without --weights, must have been trained before, by bench/train.py or
any protocol, with the same name, preset, data set, seed and overrides.

GeoTIFF larger than a window is read, fused and written in windows: memory does not grow with the
scene, the same command continues a run that was killed, and the image is what fusing it whole would
give. Methods that need the whole image take scenes of up to 2048 x 2048 pixels.
"""

from __future__ import annotations

import logging
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench.config import (
    BenchError,
    CommonFlags,
    ExitCode,
    MissingError,
    UsageError,
    run_command,
)
from bench.config.experiment import Scheme

if TYPE_CHECKING:
    from bench.data.scene_windows import SceneWindows
    from bench.fusion import FusionMethod
    from bench.imaging import Sensor

log = logging.getLogger(__name__)

LARGEST_WHOLE = 2048 * 2048
"""PAN pixels of the largest scene that a method which needs the whole image is begun on."""


@dataclass(frozen=True)
class Flags:
    """Fuse a multispectral and a panchromatic image into one file.

    Both must start at the same upper left corner. Values are sensor counts, in and out.
    """

    ms: Path
    """GeoTIFF, HDF5 or .mat file with the multispectral bands."""
    pan: Path
    """GeoTIFF, HDF5 or .mat file with the panchromatic band."""
    out: Path
    """File to write: .tif, .h5, .mat or .npy."""
    ms_key: str = "ms"
    """Name of the MS array in HDF5 and .mat files."""
    pan_key: str = "pan"
    """Name of the PAN array in HDF5 and .mat files."""
    method: str | None = None
    """Fusion method, e.g. mtf_glp_fs or fusionnet; or else --backbone."""
    weights: Path | None = None
    """Published weights of a deep --method (.pth or .safetensors), instead of trained ones."""
    backbone: str | None = None
    """Backbone of a trained denoiser."""
    scheme: Scheme | None = None
    """How the denoiser was trained; the preset's own by default."""
    preset: Literal["smoke", "laptop", "workstation", "paper"] = "laptop"
    """Scale the denoiser was trained at."""
    dataset: str = "sample"
    """Data set the denoiser was trained on."""
    seed: int = 0
    """Seed the denoiser was trained with, also of the sampling noise."""
    override: tuple[str, ...] = ()
    """Config fields the denoiser was trained with, and those of the sampler."""
    backbone_module: tuple[str, ...] = ()
    """Python files or packages that register backbones of your own."""
    sensor: str | None = None
    """Sensor of the scene: WV3, WV2, QB, GF2, IKONOS, GeoEye1, none. With --backbone: the data
    set's by default."""
    bits: int | None = None
    """Bit depth of the counts, where it is not the sensor's own."""
    peak: float | None = None
    """Largest count, where it is not 2^bits - 1 (Sentinel-2: 10000)."""
    dtype: Literal["uint16", "float32"] | None = None
    """Numbers to write: uint16 rounds and clips, float32 keeps the result as it is. By default
    uint16 where the MS file holds integers."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ...; methods that are not networks run on the CPU."""
    window: int | None = None
    """Fuse GeoTIFF in windows of so many PAN pixels along a side; 0: whole, in memory. By default
    1024 for scenes that are larger, if the method can."""
    compile: bool = False
    """Compile the denoiser first: a minute or more for each tile size; a gain is not certain."""
    force: bool = False
    """Replace an existing --out."""
    quiet: bool = False
    """No log below warnings."""


def main(flags: Flags) -> int:
    """Run the verb; see :class:`Flags`."""
    from bench.data import check_fused_path
    from bench.data.scene_windows import open_scene
    from bench.data.scenes import TIFF
    from bench.imaging import get_sensor

    if (flags.method is None) == (flags.backbone is None):
        raise UsageError("give one of --method and --backbone")
    check_fused_path(flags.out)
    if flags.out.exists() and not flags.force:
        raise UsageError(f"{flags.out} exists; --force replaces it")
    if flags.out.resolve() in (flags.ms.resolve(), flags.pan.resolve()):
        raise UsageError(f"--out {flags.out} is an input; choose another name")
    get_sensor("none", 1, bits=flags.bits, peak=flags.peak)  # refuses what is out of range
    if flags.window is not None and flags.window < 0:
        raise UsageError(f"--window {flags.window}: expected pixels, or 0 for the whole scene")
    tiff = all(path.suffix.lower() in TIFF for path in (flags.ms, flags.pan, flags.out))
    if flags.window and not tiff:
        raise UsageError("--window: windows are of GeoTIFF, in and out (.tif)")
    if tiff and flags.window != 0:
        for path in (flags.ms, flags.pan):
            if not path.is_file():
                raise MissingError(f"no file {path}")
        with open_scene(flags.ms, flags.pan) as scene:
            if flags.window or _is_large(scene):
                return _fuse_in_windows(flags, scene)
    return _fuse_whole(flags)


def _is_large(scene: SceneWindows) -> bool:
    from bench.fusion.scenes import WINDOW

    return max(scene.size) > WINDOW


def _fuse_in_windows(flags: Flags, scene: SceneWindows) -> int:
    from bench.config.progress import Progress
    from bench.fusion.parts import in_windows
    from bench.fusion.scenes import WINDOW, fuse_in_windows

    method, sensor = _named(flags, scene.name, scene.bands, scene.ratio)
    rows, columns = scene.size
    try:
        windowed = in_windows(method)
    except UsageError as error:
        if flags.window is None and rows * columns <= LARGEST_WHOLE:
            return _fuse_whole(flags)
        raise UsageError(
            f"{error}: {scene.name} has {rows} x {columns} pixels, and by default it is given at "
            f"most {LARGEST_WHOLE} (2048 x 2048); crop the scene, or insist by --window 0"
        ) from error
    dtype = _number_type(flags, scene.dtype.kind, sensor)
    nodata = _nodata_value(scene.nodata_value, dtype)
    masked = fuse_in_windows(
        scene,
        windowed,
        sensor,
        flags.out,
        dtype=dtype,
        nodata=nodata,
        placed_as=flags.pan,
        side=flags.window or WINDOW,
        progress=Progress(flags.quiet),
    )
    return _told(flags, (scene.bands, rows, columns), dtype, method.name, masked, nodata)


def _fuse_whole(flags: Flags) -> int:
    import numpy as np
    import torch

    from bench.data import write_fused
    from bench.data.checks import check_counts
    from bench.data.scenes import read_scenes

    scenes = read_scenes([flags.ms], [flags.pan], ms_key=flags.ms_key, pan_key=flags.pan_key)
    if len(scenes) != 1:
        raise UsageError(f"{flags.ms} has {len(scenes)} scenes; expected one")
    (scene,) = scenes
    ratio = scene.pan.shape[1] // scene.ms.shape[1]
    method, sensor = _named(flags, scene.name, len(scene.ms), ratio)
    check_counts({f"MS of {scene.name}": scene.ms, f"PAN of {scene.name}": scene.pan}, sensor.peak)
    dtype = _number_type(flags, scene.ms.dtype.kind, sensor)
    ms, pan = (
        torch.from_numpy(image.astype(np.float64))[None] / sensor.peak
        for image in (scene.ms, scene.pan)
    )
    fused = (method.fuse(ms, pan, sensor)[0] * sensor.peak).numpy()
    if not np.isfinite(fused).all():
        raise BenchError(f"{method.name} left {np.sum(~np.isfinite(fused))} values not finite")
    if dtype == "uint16":
        fused = fused.round().clip(0, sensor.peak)
    nodata, masked = None, 0
    if scene.nodata is not None:
        nodata, masked = _nodata_value(scene.nodata_value, dtype), int(scene.nodata.sum())
        fused[:, scene.nodata] = nodata
    write_fused(
        flags.out,
        fused.astype(dtype),
        placed_as=flags.pan,
        band_names=scene.band_names or (),
        nodata=nodata,
    )
    return _told(flags, fused.shape, dtype, method.name, masked, nodata)


def _number_type(flags: Flags, kind: str, sensor: Sensor) -> str:
    """Return the type of the numbers to write, for MS whose numbers are of a kind."""
    dtype = flags.dtype or ("float32" if kind == "f" else "uint16")
    if dtype == "uint16" and sensor.peak > 65535:
        raise UsageError(f"counts up to {sensor.peak:g} do not fit in uint16; use --dtype float32")
    return dtype


def _nodata_value(declared: float | None, dtype: str) -> float:
    """Return what pixels without data are to hold: as declared, where that can be written."""
    value = declared or 0.0
    fits = value in range(65536) if dtype == "uint16" else value == value
    return value if fits else 0.0


def _told(
    flags: Flags,
    shape: tuple[int, int, int],
    dtype: str,
    name: str,
    masked: int,
    nodata: float | None,
) -> ExitCode:
    if masked:
        log.info("%d pixels without data hold %g", masked, nodata)
    bands, rows, columns = shape
    print(f"{flags.out}: {bands} bands of {rows} x {columns}, {dtype} counts, by {name}")
    return ExitCode.OK


def _named(flags: Flags, name: str, bands: int, ratio: int) -> tuple[FusionMethod, Sensor]:
    """Return the method asked for, and the sensor of a scene."""
    if _needs_training(flags):
        return _trained(flags, name, bands, ratio)
    return _method(flags, bands)


def _method(flags: Flags, bands: int) -> tuple[FusionMethod, Sensor]:
    """Return a method that needs no training here, and the sensor of the scene."""
    from bench.fusion import create_method
    from bench.fusion.deep.weights import load_published
    from bench.imaging import SENSOR_NAMES, get_sensor
    from bench.recipes.fused import method_options
    from bench.running import resolve_device

    name = flags.sensor or "none"
    if name.lower() == "none" and flags.bits is None and flags.peak is None:
        raise UsageError(
            f"how large can a count be? give --sensor ({', '.join(SENSOR_NAMES)}), and --bits or "
            f"--peak for none"
        )
    sensor = get_sensor(name, bands, bits=flags.bits, peak=flags.peak)
    method = create_method(flags.method, bands=bands, **method_options(flags.method, "full"))
    if flags.weights is not None:
        load_published(method, flags.weights)
        method.network.to(resolve_device(flags.device))
    return method, sensor


def _trained(flags: Flags, name: str, bands: int, ratio: int) -> tuple[FusionMethod, Sensor]:
    """Return a trained denoiser or deep method as a method, and the sensor of the scene."""
    from bench.cells.experiments import denoisers, trained_methods
    from bench.data import load_dataset
    from bench.imaging import get_sensor
    from bench.recipes import checkpoints
    from bench.running import Desk

    dataset = load_dataset(flags.dataset, sensor=flags.sensor)
    if (bands, ratio) != (dataset.sensor.bands, dataset.ratio):
        raise UsageError(
            f"{name} has {bands} bands and ratio {ratio}; a network trained on "
            f"{dataset.name} takes {dataset.sensor.bands} bands and ratio {dataset.ratio}"
        )
    sensor = dataset.sensor
    if flags.bits is not None or flags.peak is not None:
        sensor = get_sensor(sensor.name, bands, bits=flags.bits, peak=flags.peak)
    common = CommonFlags(
        backbone=() if flags.backbone is None else (flags.backbone,),
        preset=flags.preset,
        dataset=flags.dataset,
        sensor=flags.sensor,
        seed=(flags.seed,),
        override=flags.override,
        backbone_module=flags.backbone_module,
        device=flags.device,
        quiet=flags.quiet,
    )
    desk = Desk(common, "fuse")
    if flags.method:
        recipes = trained_methods([flags.method], desk)
    else:
        if len(desk.backbones) != 1:
            names = ", ".join(desk.backbones)
            raise UsageError(f"--backbone {flags.backbone} is {names}; expected one")
        changes = {"scheme": flags.scheme} if flags.scheme else {}
        recipes = denoisers(desk.experiments(**changes), desk)
    (recipe,) = recipes
    *_, checkpoint = checkpoints(recipe, dataset.fingerprint, desk.checkpoints).values()
    if not checkpoint.done:
        raise MissingError(
            f"{flags.method or 'this denoiser'} is not trained yet; train it by: {_training(flags)}"
        )
    network = recipe.network()
    checkpoint.load_into(network)
    for note in dataset.notes:
        log.info("trained on %s: %s", dataset.name, note)
    return recipe.fusion(network, desk.device, compile=flags.compile), sensor


def _needs_training(flags: Flags) -> bool:
    from bench.recipes import check_weights, method_training

    if flags.weights is not None:
        check_weights(flags.method or flags.backbone)
        return False
    return flags.method is None or method_training(flags.method) is not None


def _training(flags: Flags) -> str:
    """Return the command that trains the denoiser asked for."""
    words = ["python", "bench/train.py"]
    for name in (
        "method",
        "backbone",
        "scheme",
        "preset",
        "dataset",
        "sensor",
        "seed",
        "backbone_module",
    ):
        value = getattr(flags, name)
        if value not in (None, ()):
            values = value if isinstance(value, tuple) else (value,)
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
    if flags.override:
        words += ["--override", *flags.override]
    return shlex.join(words)


if __name__ == "__main__":
    run_command(Flags, main, prog="fuse")
