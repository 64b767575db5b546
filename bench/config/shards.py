"""``--shard i/n``: one part of a grid, for a machine that shares no locks with the others."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from bench.config.errors import UsageError

__all__ = ["Shard"]

Item = TypeVar("Item")


class Shard(NamedTuple):
    """Part ``number`` of ``count``, from 1 on."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``i/n``.

        Raises:
            UsageError: anything but two whole numbers with 1 <= i <= n.
        """
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        shard = cls(int(found[1]), int(found[2])) if found else cls(0, 0)
        if not 1 <= shard.number <= shard.count:
            likely = f"{min(max(shard.number, 1), shard.count)}/{shard.count}"
            raise UsageError(
                f"--shard {text}: expected i/n with 1 <= i <= n, e.g. "
                f"{likely if shard.count else '1/4'}"
            )
        return shard

    @property
    def name(self) -> str:
        """Of its folders, e.g. ``shard-1-of-4``."""
        return f"shard-{self.number}-of-{self.count}"

    def deal(
        self, items: Sequence[Item], key: Callable[[Item], str], together: Callable[[Item], bool]
    ) -> list[Item]:
        """Return the items of this part, in their order; every item is in one part alone.

        Items are dealt like cards, in the order of their keys. Keys are hashes, so that no part
        gets all the heavy ones of a regular grid, and parts differ by one item at most. Who deals,
        when, and what is done by then does not matter.

        Args:
            items: of the whole grid.
            key: a hash of an item.
            together: whether an item belongs to the first part, with all others of its kind.
        """
        cards = sorted(key(item) for item in items if not together(item))
        mine = set(cards[self.number - 1 :: self.count])
        first = self.number == 1
        return [item for item in items if (first if together(item) else key(item) in mine)]
