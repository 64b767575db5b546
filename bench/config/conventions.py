"""Border conventions of the reduced-resolution metrics."""

from __future__ import annotations

from dataclasses import dataclass

from backbones.names import UnknownNameError

__all__ = ["CONVENTIONS", "Convention", "get_convention"]


@dataclass(frozen=True)
class Convention:
    """How images are prepared for the reduced-resolution metrics; written into every row.

    Attributes:
        name: what tables print.
        cut: border cut d keeps rows and columns d..n-d, counted from one as in the reference: d - 1
            pixels are lost at the top and left, d at the bottom and right. 0 keeps everything.
        clip: clip the fused image to [0, 2^bits] (``thvalues`` of the reference).
        block: side of the blocks of Q and Q2n, in pixels.
    """

    name: str
    cut: int
    clip: bool = False
    block: int = 32


CONVENTIONS: dict[str, Convention] = {
    convention.name: convention
    for convention in (
        Convention("pancollection", cut=30),
        Convention("dlpan", cut=21),
        Convention("none", cut=0),
    )
}
"""PanCollection test kit (leaderboard tables), DLPan-Toolbox demo, whole image."""


def get_convention(convention: str | Convention) -> Convention:
    """Look a convention up by name; a :class:`Convention` is returned as it is.

    Raises:
        UnknownNameError: unknown name.
    """
    if isinstance(convention, Convention):
        return convention
    if convention not in CONVENTIONS:
        raise UnknownNameError("convention", convention, CONVENTIONS)
    return CONVENTIONS[convention]
