"""Peak memory of fusing a scene from disk to disk, in a fresh process, by the scene's size."""

from __future__ import annotations

import gc
import tempfile
import time
from pathlib import Path

import psutil
import torch

from backbones import create_backbone
from bench.adapters import AdaptedDenoiser
from bench.cells.conditions import machine_identity
from bench.cells.rows import Failure, measured, missing
from bench.config import as_plain, experiment_preset
from bench.config.allocator import return_freed_memory
from bench.data.scene_windows import open_scene
from bench.data.window_file import filling
from bench.diffusion import Diffusion
from bench.fusion import FusionMethod, create_method, list_methods
from bench.fusion.diffusion import DiffusionFusion
from bench.fusion.parts import in_windows
from bench.fusion.scenes import WINDOW, fuse_in_windows
from bench.imaging import cover, get_sensor
from bench.measure import ResidentPeak, run_isolated
from bench.recipes.scales import resolved_options
from bench.records import Row
from bench.running import Cell, Context, Desk

__all__ = ["scene_cell"]

BANDS, RATIO, PEAK = 4, 4, 2047
_VERSION = 1


def scene_cell(name: str, size: int, desk: Desk, *, preset: str, timeout: float) -> Cell:
    """Return the cell that fuses a scene of noise, GeoTIFF to GeoTIFF, and measures its process.

    Args:
        name: a classical method, or a backbone whose two-stage denoiser, untrained, is sampled.
        size: H = W, PAN pixels.
        desk: where and on what.
        preset: of the denoiser: its scale and its sampler.
        timeout: seconds.
    """
    classical = name in list_methods()
    config = {} if classical else as_plain(experiment_preset(preset, name))
    settings = {"window": WINDOW, "threads": 1, "device": "cpu"}
    if config:
        settings["preset"] = preset

    def execute(context: Context) -> list[Row]:
        with tempfile.TemporaryDirectory(dir=context.folder) as folder:
            arguments = {"name": name, "size": size, "preset": preset, "folder": folder}
            result = run_isolated(f"{__name__}:fuse_once", arguments, timeout=timeout)
        if result.status != "ok":
            return [missing(context, "mem_peak_scene", Failure(result.status, result.reason))]
        found = result.value
        return [
            measured(context, "mem_peak_scene", found["peak"] / 2**20),
            measured(context, "latency_scene", found["seconds"]),
        ]

    return Cell(
        title=f"a scene of {size} x {size} by {name}",
        identity={
            "scene": _VERSION,
            "of": name,
            "size": size,
            "config": config,
            "window": WINDOW,
            **machine_identity(torch.device("cpu"), 1),
        },
        fields={
            "kind": "cost",
            "method": name if classical else "nodiff",
            "backbone": None if classical else name,
            "size": size,
            "batch": 1,
        },
        config=settings,
        execute=execute,
        company="threads",
    )


def fuse_once(name: str, size: int, preset: str, folder: str) -> dict[str, float]:
    """Make a scene, fuse it, and return the bytes above those before, and the seconds."""
    torch.set_num_threads(1)
    return_freed_memory()
    _fuse(name, 2 * WINDOW // 4, preset, Path(folder), WINDOW // 4)  # libraries are then loaded
    paths = _make(size, Path(folder), WINDOW)
    gc.collect()
    before, began = psutil.Process().memory_info().rss, time.perf_counter()
    with ResidentPeak() as peak:
        _run(name, preset, *paths, WINDOW)
    return {"peak": peak.bytes - before, "seconds": time.perf_counter() - began}


def _fuse(name: str, size: int, preset: str, folder: Path, side: int) -> None:
    _run(name, preset, *_make(size, folder, side), side)


def _make(size: int, folder: Path, side: int) -> tuple[Path, Path, Path]:
    """Write a scene of smooth noise; return its MS, its PAN, and where to fuse it to."""
    generator = torch.Generator().manual_seed(0)
    paths = []
    for kind, bands, length in (("ms", BANDS, size // RATIO), ("pan", 1, size)):
        windows = cover((length, length), side)
        path = folder / f"{kind}-{size}.tif"
        with filling(path, (bands, length, length), "uint16", windows, "") as file:
            for index, box in enumerate(windows):
                coarse = torch.rand(1, bands, 16, 16, generator=generator)
                noise = torch.rand(1, bands, *box.size, generator=generator)
                fine = torch.nn.functional.interpolate(coarse, box.size, mode="bilinear")
                file.write(index, (100 + 1500 * fine + 200 * noise)[0].numpy())
        paths.append(path)
    return *paths, folder / f"fused-{size}.tif"


def _run(name: str, preset: str, ms: Path, pan: Path, out: Path, side: int) -> None:
    with open_scene(ms, pan) as scene:
        fuse_in_windows(
            scene,
            in_windows(_method(name, preset)),
            get_sensor("none", BANDS, peak=PEAK),
            out,
            dtype="uint16",
            nodata=0,
            placed_as=pan,
            side=side,
        )


def _method(name: str, preset: str) -> FusionMethod:
    if name in list_methods():
        return create_method(name, bands=BANDS)
    config = experiment_preset(preset, name)
    backbone = create_backbone(name, BANDS, BANDS, **vars(resolved_options(config)))
    network = AdaptedDenoiser(backbone, config.adapters)
    return DiffusionFusion(network, Diffusion(config.diffusion), config.sampler)
