"""A trained denoiser as a fusion method: condition once, sample whole or in tiles, blend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.adapters import SampledDenoiser, TimePart
from bench.config import SamplerConfig, derive_seed
from bench.diffusion import Diffusion, sample, sampling_timesteps
from bench.imaging import Sensor, blend_tiles, tile_starts, upsample

__all__ = ["DiffusionFusion"]

Denoise = Callable[[Tensor, int], Tensor]


class DiffusionFusion:
    """Fusion by reverse diffusion of the residual over the up-sampled MS image.

    U and V are computed once, on the whole image; what depends on the time alone, once per step of
    the sampler, for all images and tiles. The starting noise (and, for stochastic
    samplers, the noise of every step) is drawn for the whole image and cropped, so that tiled and
    whole runs of one seed see the same noise; tiles are blended on the final x0.

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
        denoise = self._denoise(conditions, self._tabulate())
        return self._sample_windows(lms, denoise, lambda step: noise[step])

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
        backbone = self.denoiser.backbone
        multiple = backbone.size_multiple
        return -(-max(side, backbone.min_size) // multiple) * multiple

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
        count, bands, height, width = lms.shape
        keys = range(count) if keys is None else keys
        rows, columns, corners = self.tile_plan(height, width)
        canvas = (
            max(top for top, _ in corners) + rows,
            max(left for _, left in corners) + columns,
        )
        maps = [_pad(x.to(self.device, torch.float32), canvas) for x in [lms, *conditions]]
        windows = [(image, top, left) for image in range(count) for top, left in corners]
        time_parts = self._tabulate()
        tiles = []
        for start in range(0, len(windows), self.sampler.batch):
            chosen = windows[start : start + self.sampler.batch]
            base, *parts = (
                torch.stack([x[i, :, y : y + rows, z : z + columns] for i, y, z in chosen])
                for x in maps
            )
            noise = partial(
                self._noise, (bands, height, width), canvas, chosen, keys, rows, columns
            )
            tiles.append(self._sample_windows(base, self._denoise(parts, time_parts), noise))
        stacked = torch.cat(tiles).unflatten(0, (count, len(corners))).transpose(0, 1)
        fused = blend_tiles(stacked, corners, canvas)
        return fused[..., :height, :width].to(lms)

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

    def _denoise(self, conditions: list[Tensor], time_parts: dict[int, TimePart]) -> Denoise:
        """Fold everything that does not depend on the step, then close over it."""
        condition = self.denoiser.condition(*conditions)

        def denoise(x: Tensor, t: int) -> Tensor:
            return self._step(x, self._time(len(x), t), condition, time_parts[t].expand(len(x)))

        return denoise

    def _time(self, batch: int, timestep: int) -> Tensor:
        return self.diffusion.network_time(torch.full((batch,), timestep)).to(self.device)

    def _noise(
        self,
        shape: tuple[int, int, int],
        canvas: tuple[int, int],
        windows: Sequence[tuple[int, int, int]],
        keys: Sequence[object],
        rows: int,
        columns: int,
        step: int,
    ) -> Tensor:
        """Crop each window from its image's noise of one step, drawn on the CPU."""
        whole: dict[int, Tensor] = {}
        for image in {image for image, _, _ in windows}:
            parts = (self.seed, "sampling", keys[image], step)
            noise = _normal(derive_seed(*parts), shape)
            if canvas != shape[1:]:
                # The margin has noise of its own: the image's is the same however it is padded.
                padded = _normal(derive_seed(*parts, "margin"), (shape[0], *canvas))
                padded[:, : shape[1], : shape[2]] = noise
                noise = padded
            whole[image] = noise
        crops = [whole[i][:, y : y + rows, z : z + columns] for i, y, z in windows]
        return torch.stack(crops).to(self.device)


def _normal(seed: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _pad(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Extend (B, C, H, W) to ``size`` at the bottom and right by its edge pixels."""
    bottom, right = size[0] - image.shape[-2], size[1] - image.shape[-1]
    if bottom == 0 and right == 0:
        return image
    return F.pad(image, (0, right, 0, bottom), mode="replicate")
