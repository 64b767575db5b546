"""Breaking bytes, by a seed: what disks, networks and other programs do to files."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["MUTATIONS", "mutate"]

_ABSURD = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1)


def _place(content: bytearray, rng: np.random.Generator) -> int:
    """Half of the faults hit the first kilobyte, where headers are."""
    end = min(1024, len(content)) if rng.random() < 0.5 else len(content)
    return int(rng.integers(max(end, 1)))


def flip_bits(content: bytearray, rng: np.random.Generator) -> None:
    at = _place(content, rng)
    content[at] ^= 1 << int(rng.integers(8))


def absurd_number(content: bytearray, rng: np.random.Generator) -> None:
    at, width = _place(content, rng), int(rng.choice((2, 4, 8)))
    order = str(rng.choice(("little", "big")))
    value = int(rng.choice(_ABSURD)) & ((1 << 8 * width) - 1)
    content[at : at + width] = value.to_bytes(width, order)


def blank_block(content: bytearray, rng: np.random.Generator) -> None:
    at, width = _place(content, rng), int(rng.integers(1, 600))
    content[at : at + width] = bytes(len(content[at : at + width]))


def random_block(content: bytearray, rng: np.random.Generator) -> None:
    at, width = _place(content, rng), int(rng.integers(1, 64))
    content[at : at + width] = rng.bytes(len(content[at : at + width]))


def truncate(content: bytearray, rng: np.random.Generator) -> None:
    del content[_place(content, rng) :]


def drop_block(content: bytearray, rng: np.random.Generator) -> None:
    at = _place(content, rng)
    del content[at : at + int(rng.integers(1, 300))]


def repeat_block(content: bytearray, rng: np.random.Generator) -> None:
    at = _place(content, rng)
    content[at:at] = content[at : at + int(rng.integers(1, 300))]


def append(content: bytearray, rng: np.random.Generator) -> None:
    content += rng.bytes(int(rng.integers(1, 500)))


MUTATIONS: tuple[Callable[[bytearray, np.random.Generator], None], ...] = (
    flip_bits,
    absurd_number,
    blank_block,
    random_block,
    truncate,
    drop_block,
    repeat_block,
    append,
)


def mutate(content: bytearray, rng: np.random.Generator) -> list[str]:
    """Break ``content`` in one to three ways; return their names."""
    names = []
    for _ in range(int(rng.integers(1, 4))):
        if not content:
            break
        mutation = MUTATIONS[int(rng.integers(len(MUTATIONS)))]
        names.append(mutation.__name__)
        mutation(content, rng)
    return names
