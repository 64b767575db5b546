"""Cutting images into overlapping tiles and blending the tiles back together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from bench.config.errors import UsageError

__all__ = ["blend_tiles", "extract_tiles", "tile_fades", "tile_starts"]


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Return the first pixels of tiles that cover ``length``.

    Neighbours share ``overlap`` pixels; the last tile ends at the border and may share more.
    Where ``length`` is not above ``tile``, one tile starts at 0.
    """
    if tile < 1 or not 0 <= overlap < tile:
        raise UsageError(f"tile={tile}, overlap={overlap}; expected 0 <= overlap < tile")
    last = max(length - tile, 0)
    return [*range(0, last, tile - overlap), last]


def extract_tiles(image: Tensor, tile: int, overlap: int) -> tuple[Tensor, list[tuple[int, int]]]:
    """Cut (B, C, H, W) into overlapping tiles.

    Args:
        image: (B, C, H, W).
        tile: side in pixels; a side of the image that is shorter is taken whole.
        overlap: pixels that neighbouring tiles share, 0 <= overlap < tile.

    Returns:
        tiles: (N, B, C, min(tile, H), min(tile, W)).
        positions: N pairs (top, left), row by row.
    """
    height, width = image.shape[-2:]
    rows, columns = min(tile, height), min(tile, width)
    positions = [
        (top, left)
        for top in tile_starts(height, tile, overlap)
        for left in tile_starts(width, tile, overlap)
    ]
    tiles = [image[..., y : y + rows, x : x + columns] for y, x in positions]
    return torch.stack(tiles), positions


def blend_tiles(
    tiles: Tensor,
    positions: Sequence[tuple[int, int]],
    size: tuple[int, int],
    fades: tuple[Mapping[int, Tensor], Mapping[int, Tensor]] | None = None,
    corner: tuple[int, int] = (0, 0),
) -> Tensor:
    """Put the tiles of :func:`extract_tiles` together.

    Tiles fade into each other by a raised cosine over the pixels they share; the weights of a
    pixel sum to one.

    Args:
        tiles: (N, B, C, h, w).
        positions: N pairs (top, left) that form a grid.
        size: (H, W) of the whole image.
        fades: for a part of an image, whose other tiles are not here: the vertical and the
            horizontal :func:`tile_fades` of the whole. Pixels that other tiles share are too small.
        corner: (top, left) of that part, whose (H, W) is ``size``.

    Returns:
        (B, C, H, W), dtype and device of ``tiles``.
    """
    rows, columns = tiles.shape[-2:]
    if fades is None:
        fades = (
            tile_fades({top for top, _ in positions}, rows, size[0]),
            tile_fades({left for _, left in positions}, columns, size[1]),
        )
    vertical, horizontal = fades
    out = tiles.new_zeros(*tiles.shape[1:-2], *size)
    for tile, (top, left) in zip(tiles, positions, strict=True):
        weight = (vertical[top][:, None] * horizontal[left]).to(tile)
        y, x = top - corner[0], left - corner[1]
        out[..., y : y + rows, x : x + columns] += tile * weight
    return out


def tile_fades(starts: Iterable[int], tile: int, length: int) -> dict[int, Tensor]:
    """Return the weight of each tile along one axis, by its first pixel; they sum to one."""
    order = sorted(set(starts))
    windows = {}
    for index, start in enumerate(order):
        window = torch.ones(tile, dtype=torch.float64)
        if index > 0:
            window *= _ramp(order[index - 1] + tile - start, tile)
        if index + 1 < len(order):
            window *= _ramp(start + tile - order[index + 1], tile).flip(0)
        windows[start] = window
    total = torch.zeros(length, dtype=torch.float64)
    for start, window in windows.items():
        total[start : start + tile] += window
    if not bool((total > 0).all()):
        raise UsageError(f"tiles of {tile} pixels at {order} do not cover {length} pixels")
    return {start: window / total[start : start + tile] for start, window in windows.items()}


def _ramp(shared: int, tile: int) -> Tensor:
    """Rise from 0 to 1 over the first ``shared`` pixels, then stay."""
    if shared < 1:
        return torch.ones(tile, dtype=torch.float64)
    phase = (torch.arange(tile, dtype=torch.float64) + 0.5) / shared
    return torch.sin(phase.clamp(max=1.0) * (math.pi / 2)) ** 2
