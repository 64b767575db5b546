"""Where the pass band of a multispectral camera ends, in Fourier modes of a patch. No torch."""

from __future__ import annotations

__all__ = ["pass_band_modes"]

_END = 1.5
"""In Nyquist frequencies: a Gaussian MTF of 0.3 at Nyquist has 0.3 ** 2.25 = 0.07 there."""


def pass_band_modes(patch: int, ratio: int) -> float:
    """Return the mode of a patch at which the MS camera's MTF has fallen to 0.07.

    Mode m of P pixels is the frequency m / P cycles per pixel; MS Nyquist is 1 / (2 ratio).

    Args:
        patch: P, reference pixels.
        ratio: PAN pixels per MS pixel.
    """
    return _END * patch / (2 * ratio)
