"""Fusing a scene from disk to disk, window by window."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.config import BenchError, as_plain, config_hash
from bench.config.progress import Progress
from bench.data.scene_windows import SceneWindows
from bench.data.window_file import filling
from bench.diffusion import Diffusion
from bench.fusion.parts import Fit, SceneParts, WindowedMethod
from bench.imaging import Box, Sensor, cover

__all__ = ["WINDOW", "fuse_in_windows"]

log = logging.getLogger(__name__)

WINDOW = 1024
"""Side of a window by default, PAN pixels."""
_VERSION = 1
"""Raised whenever the same scene, method and settings give other pixels."""


def fuse_in_windows(
    scene: SceneWindows,
    method: WindowedMethod,
    sensor: Sensor,
    out: Path,
    *,
    dtype: str,
    nodata: float,
    placed_as: Path,
    side: int = WINDOW,
    progress: Progress | None = None,
) -> int:
    """Fuse a scene into a GeoTIFF; memory does not grow with the scene.

    Killed and called again with the same arguments it goes on with the windows that are missing.

    Args:
        scene: open.
        method: from :func:`bench.fusion.parts.in_windows`.
        sensor: of the scene.
        out: file to write.
        dtype: uint16, which rounds and clips to 0..peak, or float32.
        nodata: what pixels without data are to hold.
        placed_as: file of the same pixel grid, whose georeference is copied.
        side: of the windows, PAN pixels; rounded to whole MS pixels.
        progress: where to show it.

    Returns:
        Pixels that hold no data, of the windows fused by this call.

    Raises:
        BenchError: values that are not finite.
        MissingError: the file cannot be written.
        UsageError: a scene that holds what it should not.
    """
    progress = progress or Progress(quiet=True)
    windows = cover(scene.size, max(side // scene.ratio, 1) * scene.ratio)
    with progress.task("reading", len(windows)) as task:
        digest = scene.scan(_counted(windows, task), sensor.peak)
    parts = _parts(scene, sensor)
    identity = config_hash([_VERSION, digest, _settled(method), as_plain(sensor)], 24)
    masked = 0
    shape = scene.bands, *scene.size
    kept = {"nodata": nodata} if scene.has_nodata else {}
    with filling(
        out, shape, dtype, windows, identity,
        placed_as=placed_as, band_names=scene.band_names or (), **kept,
    ) as file:  # fmt: skip
        if file.done:
            log.info("%d of %d windows are done already", len(file.done), len(windows))
        if method.two_pass and file.found is None:
            with progress.task("first pass", len(windows)) as task:
                file.keep(_as_lists(method.look(parts, _counted(windows, task))))
        fit = _as_tensors(file.found or {})
        with progress.task("fusing", len(windows), len(file.done)) as task:
            for index, box in enumerate(windows):
                if index in file.done:
                    continue
                pixels = (method.fuse_box(parts, box, fit) * sensor.peak).numpy()
                if not np.isfinite(pixels).all():
                    count = np.sum(~np.isfinite(pixels))
                    raise BenchError(f"{method.name} left {count} values not finite")
                if dtype == "uint16":
                    pixels = pixels.round().clip(0, sensor.peak)
                if scene.has_nodata:
                    mask = scene.nodata(box)
                    pixels[:, mask] = nodata
                    masked += int(mask.sum())
                file.write(index, pixels)
                task.advance()
    return masked


def _parts(scene: SceneWindows, sensor: Sensor) -> SceneParts:
    def ms(box: Box) -> Tensor:
        return torch.from_numpy(scene.ms(box)) / sensor.peak

    def pan(box: Box) -> Tensor:
        return torch.from_numpy(scene.pan(box)) / sensor.peak

    return SceneParts(ms, pan, scene.size, scene.ratio, sensor)


def _counted(windows: Sequence[Box], task: Any) -> Iterator[Box]:
    for box in windows:
        yield box
        task.advance()


def _settled(method: WindowedMethod) -> dict[str, Any]:
    """Return what of a method decides its pixels: settings, seeds, weights."""
    found: dict[str, Any] = {"class": type(method).__name__, "name": method.name}
    found["version"] = getattr(method, "version", None)
    for name, value in vars(method).items():
        if isinstance(value, nn.Module):
            digest = hashlib.sha256()
            for key, tensor in value.state_dict().items():
                digest.update(key.encode())
                digest.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
            found[name] = digest.hexdigest()
        elif isinstance(value, Diffusion):
            found[name] = as_plain(value.config)
        elif is_dataclass(value) and not name.startswith("_"):
            found[name] = as_plain(value)
        elif isinstance(value, (str, int, float)):
            found[name] = value
    return found


def _as_lists(fit: Fit) -> dict[str, Any]:
    return {
        name: {"shape": list(x.shape), "values": x.flatten().tolist()} for name, x in fit.items()
    }


def _as_tensors(found: dict[str, Any]) -> Fit:
    return {
        name: torch.tensor(x["values"], dtype=torch.float64).reshape(x["shape"])
        for name, x in found.items()
    }
