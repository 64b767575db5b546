"""Peak memory of fusing a scene from disk to disk, by its size: it must not grow with the scene.

Not in the paper. Every scene is synthetic GeoTIFF of 4 bands at ratio 4, written, fused in windows
and written out in a fresh process of one thread: by ``exp``, and by the two-stage denoiser of the
preset's scale and sampler, whose weights do not matter here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench.config import RunFlags
from bench.records import View
from bench.running import Desk, Study

if TYPE_CHECKING:
    from bench.running import Cell

SIZES = {"smoke": (256, 512)}
"""H = W of the scenes that ``exp`` fuses, PAN pixels; other presets: ``LARGE``."""
LARGE = (1024, 2048, 4096, 8192, 16384)
LARGEST_SAMPLED = 4096
"""Of the scenes that are sampled by a denoiser."""


@dataclass(frozen=True)
class Flags(RunFlags):
    """Measure the peak memory of fusing scenes from disk to disk."""

    backbone: tuple[str, ...] = ("fno",)
    """Backbones of the denoisers, by name, at the scale of smoke."""
    size: tuple[int, ...] = ()
    """H = W of the scenes, PAN pixels, multiples of 4; the preset's by default."""
    timeout: float = 3600.0
    """Seconds that one scene may take."""


def cells(flags: Flags, desk: Desk) -> Iterator[Cell]:
    from bench.cells.scenes import scene_cell

    sizes = flags.size or SIZES.get(flags.preset, LARGE)
    for name in ("exp", *flags.backbone):
        for size in sizes:
            if name == "exp" or size <= LARGEST_SAMPLED:
                yield scene_cell(name, size, desk, preset="smoke", timeout=flags.timeout)


VIEW = View("scenes", "Scenes from disk to disk")
STUDY = Study(VIEW.study, 1, VIEW.title, Flags, cells, VIEW)

if __name__ == "__main__":
    STUDY.main()
