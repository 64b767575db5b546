"""Test images put together again: only those that do lie side by side."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn import functional as F

from bench.data import Split
from bench.data.joining import grounds


def split(areas, order=(0, 1, 2, 3)):
    """Four quarters of one smooth image of 64 pixels at ratio 4, in some order, and one more."""
    torch.manual_seed(0)
    gt = F.interpolate(torch.rand(2, 3, 9, 9), 64, mode="bicubic")
    cut = [gt[:1, :, y : y + 32, x : x + 32] for y in (0, 32) for x in (0, 32)]
    gt = torch.cat([*(cut[i] for i in order), gt[1:, :, :32, :32]])
    ms = F.avg_pool2d(gt, 4)
    return Split("reduced", Path("x"), gt, ms, F.interpolate(ms, 32), gt[:, :1], 0, areas)


def test_an_area_is_one_image_again():
    held = grounds(split(("a", "a", "a", "a", "b")), (16, 32, 64), 4)
    assert list(held) == [32, 64]
    assert held[32].areas == ("b",) and held[64].areas == ("a",)
    assert held[64].ms.shape == (1, 3, 16, 16) and held[64].pan.shape == (1, 1, 64, 64)
    whole = split(("a",) * 4 + ("b",)).gt
    assert torch.equal(held[64].gt[0, :, 32:, :32], whole[2])
    assert torch.equal(F.avg_pool2d(held[64].gt, 4), held[64].ms)


def test_images_that_do_not_go_on_are_left_alone():
    for one in (split(("a", "a", "a", "a", "b"), (0, 2, 1, 3)), split(None), split(tuple("abcde"))):
        assert {side: len(of) for side, of in grounds(one, (32, 64), 4).items()} == {32: 5}
    # Cropped to the largest extent that they hold; none is held: nothing.
    held = grounds(split(tuple("abcde")), (24, 48), 4)
    assert held[24].lms.shape == (5, 3, 24, 24) and held[24].ms.shape == (5, 3, 6, 6)
    assert grounds(split(None), (48,), 4) == {}
