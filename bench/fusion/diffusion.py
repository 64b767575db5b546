"""A trained denoiser as a fusion method: condition once, sample whole or in tiles, blend."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.adapters import SampledDenoiser, TimePart
from bench.config import SamplerConfig, UsageError, derive_seed
from bench.diffusion import Diffusion, sample, sampling_timesteps
from bench.fusion.parts import Fit, SceneParts
from bench.fusion.reach import seen_around
from bench.imaging import (
    Box,
    Sensor,
    blend_tiles,
    crop,
    tile_fades,
    tile_starts,
    upsample,
)

__all__ = ["NOISE_BLOCK", "DiffusionFusion"]

Denoise = Callable[[Tensor, int], Tensor]
Windows = Sequence[tuple[int, Box]]
"""Number of an image, and a tile of it."""

NOISE_BLOCK = 512
"""Side of the blocks that noise is drawn in, pixels; all noise of a smaller image is one draw."""
_WHOLE_TILE = 512
_STEPS_SEEN = 4  # reaches of one step that tiles of networks without tiles share


class DiffusionFusion:
    """Fusion by reverse diffusion of the residual over the up-sampled MS image.

    U and V are computed once, on the whole image or, of a scene fused in windows, on each window
    with as much around it as they see; what depends on the time alone, once per step of the
    sampler, for all images and tiles. The starting noise (and, for stochastic samplers, the noise
    of every step) belongs to the position in the image: it is drawn in blocks of 512 pixels and
    cropped, so that tiles, windows and whole runs of one seed see the same noise; tiles are blended
    on the final x0.

    Args:
        denoiser: a :class:`bench.adapters.SampledDenoiser` (NODiff's is one), or a bare backbone.
        diffusion: the process it was trained on.
        sampler: how to reverse it.
        device: where to run.
        seed: base seed of the sampling noise.
        name: shown in rows.
        compile: compile the denoising step with ``torch.compile``: the same numbers up to
            rounding, after a minute or more for every new size of window or batch.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        diffusion: Diffusion,
        sampler: SamplerConfig,
        *,
        device: torch.device | str = "cpu",
        seed: int = 0,
        name: str = "nodiff",
        compile: bool = False,
    ):
        self.name = name
        self.denoiser = SampledDenoiser.of(denoiser).to(device).eval()
        self.diffusion = diffusion
        self.sampler = sampler
        self.device = torch.device(device)
        self.seed = seed
        self._last: _Grid | None = None
        # At batch 1 a GPU waits for launches; this mode replays a step as one CUDA graph.
        mode = "reduce-overhead" if self.device.type == "cuda" else "default"
        self._step = torch.compile(self.denoiser, mode=mode) if compile else self.denoiser

    @torch.no_grad()
    def fuse(
        self,
        ms: Tensor,
        pan: Tensor,
        sensor: Sensor,
        lms: Tensor | None = None,
        *,
        keys: Sequence[object] | None = None,
    ) -> Tensor:
        """Fuse images.

        Args:
            ms: (B, s, h, w), unit scale.
            pan: (B, 1, H, W), unit scale.
            sensor: unused by a trained network; part of the fusion contract.
            lms: (B, s, H, W), the up-sampled MS; computed from ``ms`` when absent.
            keys: what names each image for its noise; its index by default.

        Returns:
            (B, s, H, W), unit scale, dtype and device of ``lms``; computed in float32.
        """
        if lms is None:
            lms = upsample(ms, pan.shape[-1] // ms.shape[-1])
        return self._sample(lms, self._each(self.denoiser.conditions, pan, lms), keys)

    @torch.no_grad()
    def restore(
        self, reference: Tensor, lms: Tensor, *, keys: Sequence[object] | None = None
    ) -> Tensor:
        """Sample stage I: a bare backbone, conditioned on the reference H itself.

        What stage II adds is no part of it: ``denoiser`` must have been built from the backbone.

        Args:
            reference: H, (B, s, H, W), unit scale.
            lms: L, the same shape.
            keys: as in :meth:`fuse`.

        Returns:
            L + x0, (B, s, H, W): how well the prior puts back what it was shown.
        """
        return self._sample(lms, [reference], keys)

    @torch.no_grad()
    def fuse_without_detail(
        self, pan: Tensor, lms: Tensor, *, keys: Sequence[object] | None = None
    ) -> Tensor:
        """Fuse as :meth:`fuse` does, but with V = 0: what the detail feature contributes."""
        image, detail = self._each(self.denoiser.conditions, pan, lms)
        return self._sample(lms, [image, torch.zeros_like(detail)], keys)

    @torch.no_grad()
    def pseudo_image(self, pan: Tensor, lms: Tensor) -> Tensor:
        """Return U alone, (B, s, H, W): what the auxiliary predictor contributes by itself."""
        return self._each(self.denoiser.conditions, pan, lms)[0]

    @torch.no_grad()
    def super_resolved(self, pan: Tensor, lms: Tensor) -> Tensor:
        """Return S alone, (B, s, H, W): what the operator contributes by itself, in its tiles."""
        grid = _Grid.of(*self.tile_plan(*lms.shape[-2:]), lms.shape[-2:])
        maps = [lms, *self._each(self.denoiser.conditions, pan, lms)]

        def image(_: object, __: Tensor, parts: list[Tensor]) -> Tensor:
            return self.denoiser.super_resolved(self.denoiser.condition(*parts))

        return self._in_tiles(maps, grid, grid.tiles, image)[..., : grid.size[0], : grid.size[1]]

    @torch.no_grad()
    def fuse_window(self, noise: Tensor, pan: Tensor, lms: Tensor) -> Tensor:
        """Fuse one window, whole, from noise that is given: tensors in, a tensor out.

        Args:
            noise: (N, B, s, H, W), standard normal; the first is where the sampler starts, and
                stochastic ones take another one each step.
            pan: (B, 1, H, W), unit scale; sides that the backbone takes.
            lms: (B, s, H, W), unit scale.

        Returns:
            (B, s, H, W), unit scale.
        """
        conditions = list(self.denoiser.conditions(pan, lms))
        base, denoise = self._folded(lms, conditions, self._tabulate())
        return self._sample_windows(base, denoise, lambda step: noise[step])

    # Windows of a scene; see :class:`bench.fusion.parts.WindowedMethod`

    two_pass = False

    def windowed(self) -> DiffusionFusion:
        """Return the method as one that fuses windows.

        Tiles make no difference to it. A sampler without tiles is given large ones, whose overlap
        is beyond what the network sees.

        Raises:
            UsageError: a sampler without tiles, and a network that sees the whole image.
        """
        if self.sampler.tile is not None:
            return self
        reach = seen_around(self.denoiser)
        if reach is None:
            raise UsageError(
                f"{self.name} needs the whole image at once: its network sees all of it, and "
                f"sampler.tile is none; sample in tiles of the training size: --override "
                f"sampler.tile=64"
            )
        overlap = min(_STEPS_SEEN * reach, _WHOLE_TILE // 2)
        other = copy(self)
        other._last = None
        other.sampler = replace(self.sampler, tile=_WHOLE_TILE, overlap=overlap)
        return other

    def look(self, scene: SceneParts, boxes: Iterable[Box]) -> Fit:
        """See :class:`bench.fusion.parts.WindowedMethod`; there is nothing to look for."""
        return {}

    @torch.no_grad()
    def fuse_box(self, scene: SceneParts, box: Box, fit: Fit) -> Tensor:
        """See :class:`bench.fusion.parts.WindowedMethod`: the scene is image 0 of :meth:`fuse`."""
        grid = self._grid(scene.size)
        tiles = [tile for tile in grid.tiles if tile.meets(box)]
        area = _hull(tiles)
        seen = area.within(scene.size)
        wide = scene.surroundings(seen, self.denoiser.reach)
        pan, lms = scene.pan(wide)[None], scene.lms(wide)[None]
        maps = [crop(x, wide, seen) for x in (lms, *self._each(self.denoiser.conditions, pan, lms))]
        return crop(self._sample_tiles(maps, [0], grid, tiles)[0], area, box).to(lms)

    def _grid(self, size: tuple[int, int]) -> _Grid:
        if self._last is None or self._last.size != size:
            self._last = _Grid.of(*self.tile_plan(*size), size)
        return self._last

    def tile_plan(self, height: int, width: int) -> tuple[int, int, list[tuple[int, int]]]:
        """Return (rows, columns, top left corners) of the windows an image is sampled in.

        Windows fit the backbone's ``size_multiple`` and ``min_size``; they may reach beyond the
        image, which is then padded.
        """
        tile, overlap = self.sampler.tile, self.sampler.overlap
        rows = self._fit(height if tile is None else min(tile, height))
        columns = self._fit(width if tile is None else min(tile, width))
        corners = [
            (top, left)
            for top in tile_starts(height, rows, min(overlap, rows - 1))
            for left in tile_starts(width, columns, min(overlap, columns - 1))
        ]
        return rows, columns, corners

    def _fit(self, side: int) -> int:
        multiple = self.denoiser.size_multiple
        return -(-max(side, self.denoiser.min_size) // multiple) * multiple

    def _each(self, call: Callable[..., Sequence[Tensor]], *images: Tensor) -> list[Tensor]:
        """Call image by image: whole scenes are large."""
        outputs = [
            call(*(x[i : i + 1].to(self.device, torch.float32) for x in images))
            for i in range(len(images[0]))
        ]
        return [torch.cat(parts) for parts in zip(*outputs, strict=True)]

    def _sample(
        self, lms: Tensor, conditions: list[Tensor], keys: Sequence[object] | None
    ) -> Tensor:
        keys = range(len(lms)) if keys is None else keys
        grid = _Grid.of(*self.tile_plan(*lms.shape[-2:]), lms.shape[-2:])
        fused = self._sample_tiles([lms, *conditions], keys, grid, grid.tiles)
        return fused[..., : lms.shape[-2], : lms.shape[-1]].to(lms)

    def _sample_tiles(
        self, maps: Sequence[Tensor], keys: Sequence[object], grid: _Grid, tiles: Sequence[Box]
    ) -> Tensor:
        """Sample some tiles of images.

        Args:
            maps: L and the conditions, (B, ., ...), of what of the tiles lies in the image.
            keys: of the images.
            grid: of the whole images.
            tiles: those to sample; they form a grid.

        Returns:
            (B, s, ...) of all that the tiles cover.
        """
        time_parts = self._tabulate()

        def sampled(chosen: Windows, lms: Tensor, parts: list[Tensor]) -> Tensor:
            noise = partial(
                self._noise, lms.shape[1], grid, [(keys[image], tile) for image, tile in chosen]
            )
            return self._sample_windows(*self._folded(lms, parts, time_parts), noise)

        return self._in_tiles(maps, grid, tiles, sampled)

    def _in_tiles(
        self,
        maps: Sequence[Tensor],
        grid: _Grid,
        tiles: Sequence[Box],
        call: Callable[[Windows, Tensor, list[Tensor]], Tensor],
    ) -> Tensor:
        """Call on tiles of images, a batch at a time, and blend; see :meth:`_sample_tiles`.

        Args:
            call: (which, L, conditions) of a batch of tiles -> (batch, s, ...).
        """
        area = _hull(tiles)
        maps = [_pad(x.to(self.device, torch.float32), area.size) for x in maps]
        windows = [(image, tile) for image in range(len(maps[0])) for tile in tiles]
        outputs = []
        for start in range(0, len(windows), self.sampler.batch):
            chosen = windows[start : start + self.sampler.batch]
            lms, *parts = (
                torch.stack([crop(x[image], area, tile) for image, tile in chosen]) for x in maps
            )
            outputs.append(call(chosen, lms, parts))
        stacked = torch.cat(outputs).unflatten(0, (len(maps[0]), len(tiles))).transpose(0, 1)
        corners = [(tile.top, tile.left) for tile in tiles]
        return blend_tiles(stacked, corners, area.size, grid.fades, corners[0])

    def _sample_windows(
        self, base: Tensor, denoise: Denoise, noise: Callable[[int], Tensor]
    ) -> Tensor:
        scale = self.diffusion.config.residual_scale

        def constrain(x0: Tensor) -> Tensor:
            return ((base + x0 / scale).clamp(0, 1) - base) * scale

        x0 = sample(
            denoise,
            self.diffusion,
            noise,
            self.sampler,
            constrain if self.sampler.clip else None,
        )
        return base + x0 / scale

    def _tabulate(self) -> dict[int, TimePart]:
        """Return what the network needs of the time alone, by training timestep."""
        steps = self.sampler.steps, self.sampler.spacing
        visited = sampling_timesteps(self.diffusion.timesteps, *steps)
        return {t: self.denoiser.time_part(self._time(1, t)) for t in visited}

    def _folded(
        self, lms: Tensor, conditions: list[Tensor], time_parts: dict[int, TimePart]
    ) -> tuple[Tensor, Denoise]:
        """Fold everything that does not depend on the step; return the base, and what denoises."""
        condition = self.denoiser.condition(*conditions)

        def denoise(x: Tensor, t: int) -> Tensor:
            return self._step(x, self._time(len(x), t), condition, time_parts[t].expand(len(x)))

        return self.denoiser.base(lms, condition), denoise

    def _time(self, batch: int, timestep: int) -> Tensor:
        return self.diffusion.network_time(torch.full((batch,), timestep)).to(self.device)

    def _noise(
        self, bands: int, grid: _Grid, windows: Sequence[tuple[object, Box]], step: int
    ) -> Tensor:
        """Return each tile's part of its image's noise of one step, drawn on the CPU."""
        drawn: dict[tuple[object, Box], Tensor] = {}
        crops = []
        for key, tile in windows:
            noise = torch.empty(bands, *tile.size)
            for block, inner in grid.blocks(tile):
                if (key, block) not in drawn:
                    drawn[key, block] = self._block(bands, block, inner, key, step)
                shared = block.common(tile)
                crop(noise, tile, shared).copy_(crop(drawn[key, block], block, shared))
            crops.append(noise)
        return torch.stack(crops).to(self.device)

    def _block(self, bands: int, block: Box, inner: Box, key: object, step: int) -> Tensor:
        """Draw the noise of a block of the canvas, whose ``inner`` lies in the image."""
        parts = [self.seed, "sampling", key, step]
        if (block.top, block.left) != (0, 0):
            parts += ["block", block.top, block.left]
        noise = _normal(derive_seed(*parts), (bands, *inner.size))
        if inner == block:
            return noise
        # The margin has noise of its own: the image's is the same however it is padded.
        padded = _normal(derive_seed(*parts, "margin"), (bands, *block.size))
        crop(padded, block, inner).copy_(noise)
        return padded


@dataclass(frozen=True)
class _Grid:
    """The tiles that an image is sampled in.

    Attributes:
        size: (H, W) of the image.
        canvas: (H, W) of all tiles, which may reach beyond the image.
        tiles: row by row.
        fades: what of each tile goes into a pixel, down and across.
    """

    size: tuple[int, int]
    canvas: tuple[int, int]
    tiles: tuple[Box, ...]
    fades: tuple[dict[int, Tensor], dict[int, Tensor]]

    @classmethod
    def of(
        cls, rows: int, columns: int, corners: Sequence[tuple[int, int]], size: tuple[int, int]
    ) -> _Grid:
        tiles = tuple(Box(y, x, y + rows, x + columns) for y, x in corners)
        canvas = _hull(tiles).size
        tops, lefts = zip(*corners, strict=True)
        fades = tile_fades(tops, rows, canvas[0]), tile_fades(lefts, columns, canvas[1])
        return cls(tuple(size), canvas, tiles, fades)

    def blocks(self, tile: Box) -> Iterator[tuple[Box, Box]]:
        """Yield the blocks of noise that a tile lies in, and what of each lies in the image.

        Blocks are cut from the image's corner on; the last of a row or column is as large as what
        is left of the image, and takes the margin of the canvas, too.
        """
        for top, bottom in _spans(self.size[0], tile.top, tile.bottom):
            for left, right in _spans(self.size[1], tile.left, tile.right):
                inner = Box(top, left, bottom, right)
                yield (
                    Box(
                        top,
                        left,
                        self.canvas[0] if bottom == self.size[0] else bottom,
                        self.canvas[1] if right == self.size[1] else right,
                    ),
                    inner,
                )


def _spans(length: int, start: int, stop: int) -> list[tuple[int, int]]:
    """Return the blocks of an axis that start..stop lies in, the last one open to the right."""
    first, last = (min(at, length - 1) // NOISE_BLOCK for at in (start, stop - 1))
    return [
        (NOISE_BLOCK * index, min(NOISE_BLOCK * (index + 1), length))
        for index in range(first, last + 1)
    ]


def _hull(boxes: Sequence[Box]) -> Box:
    return Box(
        min(box.top for box in boxes),
        min(box.left for box in boxes),
        max(box.bottom for box in boxes),
        max(box.right for box in boxes),
    )


def _normal(seed: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _pad(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Extend (B, C, H, W) to ``size`` at the bottom and right by its edge pixels."""
    bottom, right = size[0] - image.shape[-2], size[1] - image.shape[-1]
    if bottom == 0 and right == 0:
        return image
    return F.pad(image, (0, right, 0, bottom), mode="replicate")
