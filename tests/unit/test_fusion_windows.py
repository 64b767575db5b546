"""Fusing window by window gives what fusing the whole image gives."""

from __future__ import annotations

import pytest
import torch

from bench.fusion import create_method
from bench.fusion.parts import SceneParts, in_windows
from bench.imaging import Box, cover, crop, get_sensor

TWO_PASS = ["bdsd_pc", "bt_h", "gsa", "mtf_glp", "mtf_glp_fs", "mtf_glp_hpm", "mtf_glp_hpm_r"]


def scene(bands: int, size: tuple[int, int], ratio: int):
    """Return ms, pan in unit scale; texture in every octave, a ramp, and structure at borders."""
    generator = torch.Generator().manual_seed(3)
    height, width = size
    ramp = torch.linspace(0, 0.2, width).double()
    pan = 0.4 + ramp + 0.05 * torch.randn(1, height, width, generator=generator).double()
    pan[:, : height // 3] += 0.2
    low = pan.unflatten(1, (-1, ratio)).unflatten(3, (-1, ratio)).mean((2, 4))
    gains = torch.linspace(0.5, 1.1, bands).double()[:, None, None]
    noise = torch.randn(bands, *low.shape[1:], generator=generator).double()
    return (gains * low + 0.02 * noise).clamp(0, 1), pan.clamp(0, 1)


def parts(ms, pan, ratio, sensor) -> SceneParts:
    def window(image):
        def pull(box: Box):
            assert box.within(image.shape[-2:]) == box and min(box.size) > 0
            return crop(image, Box.whole(image.shape[-2:]), box)

        return pull

    return SceneParts(window(ms), window(pan), tuple(pan.shape[-2:]), ratio, sensor)


def by_windows(method, scene: SceneParts, side: int) -> torch.Tensor:
    method = in_windows(method)
    boxes = cover(scene.size, side)
    fit = method.look(scene, boxes) if method.two_pass else {}
    out = torch.full((scene.sensor.bands, *scene.size), torch.nan, dtype=torch.float64)
    for box in boxes:
        crop(out, Box.whole(scene.size), box).copy_(method.fuse_box(scene, box, fit))
    return out


@pytest.mark.parametrize("name", ["exp", *TWO_PASS])
@pytest.mark.parametrize(
    ("bands", "size", "ratio", "side"),
    [
        (4, (256, 200), 4, 64),
        (4, (120, 136), 2, 64),
        (8, (192, 256), 4, 96),
        (3, (180, 150), 3, 60),
    ],
)
def test_classical_methods_in_windows(name, bands, size, ratio, side):
    ms, pan = scene(bands, size, ratio)
    sensor = get_sensor("none", bands)
    method = create_method(name, bands=bands)
    whole = method.fuse(ms[None], pan[None], sensor)[0]
    windows = by_windows(method, parts(ms, pan, ratio, sensor), side)
    torch.testing.assert_close(windows, whole, rtol=1e-9, atol=1e-10)
