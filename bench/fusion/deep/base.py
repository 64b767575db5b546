"""What the deep methods share: their declarations, checks, and the call of their network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from fnmatch import fnmatch
from typing import ClassVar

import torch
from torch import Tensor, nn

from bench.config import MethodTraining
from bench.config.errors import UsageError
from bench.fusion.checks import NoOptions, checked_ratio
from bench.fusion.parts import Fit, SceneParts
from bench.imaging import (
    Box,
    Sensor,
    blend_tiles,
    crop,
    extract_tiles,
    get_sensor,
    upsample,
)

__all__ = ["DeepMethod"]

BANDS = (3, 12)
"""Fewest and most spectral bands that deep methods are built for."""


class DeepMethod(ABC):
    """A method whose work is done by one network, trained on patches in unit scale.

    The network is called ``network(ms, pan, lms) -> fused`` with (B, C, h, w), (B, 1, r h, r w),
    (B, C, r h, r w) -> (B, C, r h, r w), for every whole ratio r; it gives the fused image itself,
    whatever it adds it to.

    Args:
        bands: C, spectral bands of the images.
        config: the method's options.

    Attributes:
        name: as registered.
        Config: frozen dataclass of its options; the defaults are the published network.
        scales: config fields by name of a scale (tiny, small, base), where it has several sizes.
        training: its own recipe.
        version: raised whenever the same weights or training give other numbers.
        citation: where it was published.
        approximation: what its authors leave open and was assumed; None where nothing is.
        dead: name patterns (globs) of parameters that cannot change the output; they belong to the
            published network and are counted in its published size.
        last: name patterns of the parameters that :meth:`start` sets to zero, those of the layer
            whose output is added to the base image.
        reach: pixels of PAN beyond which an input cannot change an output pixel; None: global.
        network: the module; weights at their initial values until trained or loaded.
        tile: side in PAN pixels of the tiles that larger images are fused in; None: whole.
    """

    name: ClassVar[str]
    Config: ClassVar[type] = NoOptions
    scales: ClassVar[dict[str, dict[str, object]]] = {}
    training: ClassVar[MethodTraining]
    version: ClassVar[int] = 1
    citation: ClassVar[str]
    approximation: ClassVar[str | None] = None
    dead: ClassVar[tuple[str, ...]] = ()
    last: ClassVar[tuple[str, ...]] = ()
    reach: int | None = None
    tile: int | None = None

    def __init__(self, bands: int, config: object | None = None):
        if not BANDS[0] <= bands <= BANDS[1]:
            raise UsageError(f"bands = {bands}: {self.name} takes {BANDS[0]} to {BANDS[1]}")
        self.bands = bands
        self.config = self.Config() if config is None else config
        self.network = self.build()

    @abstractmethod
    def build(self) -> nn.Module:
        """Return a new network for ``bands`` and ``config``."""

    def start(self) -> None:
        """Give the network the weights that training starts from: it begins as its base image.

        What the papers leave open, and short trainings cannot make up for. ``build`` does not.
        """
        with torch.no_grad():
            for name, parameter in self.network.named_parameters():
                if any(fnmatch(name, pattern) for pattern in self.last):
                    parameter.zero_()

    def published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return a state dict of the authors' network under our names; keys we lack are kept."""
        return state

    @torch.no_grad()
    def fuse(
        self, ms: Tensor, pan: Tensor, sensor: Sensor | str, lms: Tensor | None = None
    ) -> Tensor:
        """Fuse images; see :class:`bench.fusion.FusionMethod`. Nothing is clipped.

        Tiles share a quarter of their side with each neighbour and fade into each other there.

        ``sensor`` may also be a name that :func:`bench.imaging.get_sensor` knows. The network runs
        in evaluation mode, in the dtype and on the device of its weights.

        Raises:
            UsageError: shapes, bands or values that do not fit.
        """
        if isinstance(sensor, str):
            sensor = get_sensor(sensor, self.bands)
        ratio = checked_ratio(self, ms, pan, sensor, lms)
        if lms is None:
            lms = upsample(ms, ratio)
        if self.tile is None or max(pan.shape[-2:]) <= self.tile:
            return self._called(ms, pan, lms)
        low = self.tile // ratio
        (cut_ms, _), (cut_pan, places), (cut_lms, _) = (
            extract_tiles(image, scale * low, scale * (low // 4))
            for image, scale in ((ms, 1), (pan, ratio), (lms, ratio))
        )
        tiles = [self._called(*images) for images in zip(cut_ms, cut_pan, cut_lms, strict=True)]
        return blend_tiles(torch.stack(tiles), places, pan.shape[-2:])

    two_pass: ClassVar[bool] = False

    def windowed(self) -> DeepMethod:
        """See :func:`bench.fusion.parts.in_windows`.

        Raises:
            UsageError: the network sees the whole image.
        """
        if self.reach is None:
            raise UsageError(
                f"{self.name} needs the whole image at once: its network sees all of it"
            )
        return self

    def look(self, scene: SceneParts, boxes: Iterable[Box]) -> Fit:
        """See :class:`bench.fusion.parts.WindowedMethod`; there is nothing to look for."""
        return {}

    @torch.no_grad()
    def fuse_box(self, scene: SceneParts, box: Box, fit: Fit) -> Tensor:
        """See :class:`bench.fusion.parts.WindowedMethod`."""
        wide = scene.surroundings(box, self.reach)
        images = scene.ms(wide.shrunk(scene.ratio)), scene.pan(wide), scene.lms(wide)
        return crop(self._called(*(image[None] for image in images))[0], wide, box)

    def _called(self, ms: Tensor, pan: Tensor, lms: Tensor) -> Tensor:
        weight = next(self.network.parameters())
        self.network.eval()
        return self.network(*(image.to(weight) for image in (ms, pan, lms))).to(ms)
