"""Verb: fuse one scene from disk to disk, by any method or a trained denoiser.

    python bench/fuse.py --ms ms.tif --pan pan.tif --out fused.tif --method gsa --sensor QB
    python bench/fuse.py --ms ms.tif --pan pan.tif --out fused.tif --backbone fno --dataset data/qb
    python bench/fuse.py --ms ms.tif --pan pan.tif --out fused.tif --sensor QB \\
        --method fusionnet --weights fusionnet_qb.pth

A denoiser, and a deep method without --weights, must have been trained before, by bench/train.py or
any protocol, with the same name, preset, data set, seed and overrides. Denoisers sample whole
scenes in overlapping tiles (``--override sampler.tile=128``), which the paper preset leaves out.
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

if TYPE_CHECKING:
    from bench.data.scenes import Scene
    from bench.fusion import FusionMethod
    from bench.imaging import Sensor

log = logging.getLogger(__name__)


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
    scheme: Literal["two_stage", "joint", "one_stage"] | None = None
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
    compile: bool = False
    """Compile the denoiser first: a minute or more for each tile size; a gain is not certain."""
    force: bool = False
    """Replace an existing --out."""
    quiet: bool = False
    """No log below warnings."""


def main(flags: Flags) -> int:
    """Run the verb; see :class:`Flags`."""
    import numpy as np
    import torch

    from bench.data import check_fused_path, write_fused
    from bench.data.checks import check_counts
    from bench.data.scenes import read_scenes
    from bench.imaging import get_sensor

    if (flags.method is None) == (flags.backbone is None):
        raise UsageError("give one of --method and --backbone")
    check_fused_path(flags.out)
    if flags.out.exists() and not flags.force:
        raise UsageError(f"{flags.out} exists; --force replaces it")
    if flags.out.resolve() in (flags.ms.resolve(), flags.pan.resolve()):
        raise UsageError(f"--out {flags.out} is an input; choose another name")
    get_sensor("none", 1, bits=flags.bits, peak=flags.peak)  # refuses what is out of range
    scenes = read_scenes([flags.ms], [flags.pan], ms_key=flags.ms_key, pan_key=flags.pan_key)
    if len(scenes) != 1:
        raise UsageError(f"{flags.ms} has {len(scenes)} scenes; expected one")
    (scene,) = scenes
    method, sensor = (_trained if _needs_training(flags) else _method)(flags, scene)
    images = {f"MS of {scene.name}": scene.ms, f"PAN of {scene.name}": scene.pan}
    check_counts(images, sensor.peak)
    dtype = flags.dtype or ("float32" if scene.ms.dtype.kind == "f" else "uint16")
    if dtype == "uint16" and sensor.peak > np.iinfo(np.uint16).max:
        raise UsageError(f"counts up to {sensor.peak:g} do not fit in uint16; use --dtype float32")

    ms, pan = (
        torch.from_numpy(image.astype(np.float64))[None] / sensor.peak
        for image in (scene.ms, scene.pan)
    )
    fused = (method.fuse(ms, pan, sensor)[0] * sensor.peak).numpy()
    if not np.isfinite(fused).all():
        raise BenchError(f"{method.name} left {np.sum(~np.isfinite(fused))} values not finite")
    if dtype == "uint16":
        fused = fused.round().clip(0, sensor.peak)
    nodata = None
    if scene.nodata is not None:
        nodata = scene.nodata_value or 0.0
        if np.isnan(nodata) or (dtype == "uint16" and nodata not in range(65536)):
            nodata = 0.0
        fused[:, scene.nodata] = nodata
        log.info("%d pixels without data hold %g", scene.nodata.sum(), nodata)
    write_fused(
        flags.out,
        fused.astype(dtype),
        placed_as=flags.pan,
        band_names=scene.band_names or (),
        nodata=nodata,
    )
    bands, rows, columns = fused.shape
    print(f"{flags.out}: {bands} bands of {rows} x {columns}, {dtype} counts, by {method.name}")
    return ExitCode.OK


def _method(flags: Flags, scene: Scene) -> tuple[FusionMethod, Sensor]:
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
    bands = len(scene.ms)
    sensor = get_sensor(name, bands, bits=flags.bits, peak=flags.peak)
    method = create_method(flags.method, bands=bands, **method_options(flags.method, "full"))
    if flags.weights is not None:
        load_published(method, flags.weights)
        method.network.to(resolve_device(flags.device))
    return method, sensor


def _trained(flags: Flags, scene: Scene) -> tuple[FusionMethod, Sensor]:
    """Return a trained denoiser or deep method as a method, and the sensor of the scene."""
    from bench.cells.experiments import denoisers, trained_methods
    from bench.data import load_dataset
    from bench.imaging import get_sensor
    from bench.recipes import checkpoints
    from bench.running import Desk

    dataset = load_dataset(flags.dataset, sensor=flags.sensor)
    bands, ratio = len(scene.ms), scene.pan.shape[1] // scene.ms.shape[1]
    if (bands, ratio) != (dataset.sensor.bands, dataset.ratio):
        raise UsageError(
            f"{scene.name} has {bands} bands and ratio {ratio}; a network trained on "
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
