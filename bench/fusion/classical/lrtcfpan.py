"""LRTCFPan: low-rank tensor completion (Wu et al., IEEE TIP 32, 2023).

Steps and constants follow the authors' MATLAB code. Here the singular value thresholding goes
through the eigenvalues of a Gram matrix, because the left singular vectors are not needed, and
slices that the threshold must empty are not decomposed; both together make it about twenty times
faster. Thresholds are absolute, so the image is taken on the unit scale, and its size matters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from backbones.names import nearest
from bench.config.errors import UsageError
from bench.fusion.classical.base import EPS, ClassicalMethod, Scene, band_mean, band_std, equalise
from bench.imaging import KERNEL_SIZE, decimate, ms_kernels, mtf_filter, pan_filter, upsample

__all__ = ["LRTCFPan"]

_LEVELS = 1500  # grey levels of the injection coefficients' histogram

Regime = Literal["reduced", "full"]


@dataclass(frozen=True)
class _Parameters:
    """Weights of the model (l), penalties of its splitting (eta), injection (lower, block)."""

    l1: float
    l2: float
    l3: float
    eta1: float
    eta2: float
    eta3: float
    lower: float
    block: int


_PARAMETERS: dict[tuple[str, str], _Parameters] = {
    ("GF2", "reduced"): _Parameters(0.05, 18, 1e-4, 1e-4, 8.1, 1.8, 0, 8),
    ("GF2", "full"): _Parameters(1, 50, 1e-4, 1e-4, 2.1, 4.7, 0.4, 10),
    ("QB", "reduced"): _Parameters(0.11, 65, 1e-4, 1e-4, 1.1, 8.7, 0, 8),
    ("QB", "full"): _Parameters(0.4, 75, 0.1, 1e-3, 2.1, 6.7, 0.8, 10),
    ("WV3", "reduced"): _Parameters(0.14, 56, 1e-4, 1e-4, 4.2, 8.3, 0, 8),
    ("WV3", "full"): _Parameters(1.1, 36, 1e-4, 1e-4, 6.2, 3.3, 0.6, 10),
}
_TUNED = ("GF2", "QB", "WV3")
_GENERIC = {"none": "GF2"}


class LRTCFPan(ClassicalMethod):
    """Alternating directions on a tensor log-norm, a completion term and injected detail.

    Injection coefficients are fitted on blocks of 8 (reduced) or 10 (full) MS pixels. Where the
    block does not divide the image, the image is parted into as many blocks as come nearest that
    side, equal to within one pixel.
    """

    name = "lrtcfpan"
    citation = "Wu et al., IEEE TIP 32, 2023"

    @dataclass(frozen=True)
    class Config:
        """Options.

        Attributes:
            regime: which of the authors' parameter sets: for reduced or for full resolution.
            parameters: sensor whose parameters are used: GF2, QB or WV3; None means the image's own
                (GF2 for the generic sensor). The authors tuned no other sensor.
            max_iterations: at most so many iterations.
            tolerance: stop when the image changes by less than this share of its norm.
        """

        regime: Regime = "reduced"
        parameters: str | None = None
        max_iterations: int = 200
        tolerance: float = 2e-5

        def __post_init__(self) -> None:
            regimes = get_args(Regime)
            if self.regime not in regimes:
                raise UsageError(
                    f"regime {self.regime!r}{nearest(self.regime, regimes)}; "
                    f"expected {' or '.join(regimes)}"
                )
            if self.parameters is not None and self.parameters not in _TUNED:
                raise UsageError(
                    f"parameters {self.parameters!r}{nearest(self.parameters, _TUNED)}; "
                    f"expected one of {', '.join(_TUNED)}"
                )
            if self.max_iterations < 1:
                raise UsageError(f"max_iterations {self.max_iterations}; expected at least 1")

    def _fuse(self, scene: Scene) -> Tensor:
        parameters = self._parameters(scene.sensor.name)
        peak = scene.sensor.peak
        scene = Scene(scene.ms / peak, scene.pan / peak, scene.lms, scene.sensor, scene.ratio)
        detail = _injected_detail(scene, parameters)
        return self._solve(scene, detail, parameters) * peak

    def _parameters(self, sensor: str) -> _Parameters:
        name = self.config.parameters or _GENERIC.get(sensor, sensor)
        if name not in _TUNED:
            raise UsageError(
                f"lrtcfpan has no parameters for sensor {sensor}; choose some with "
                f"parameters= one of {', '.join(_TUNED)}"
            )
        return _PARAMETERS[name, self.config.regime]

    def _solve(self, scene: Scene, detail: Tensor, p: _Parameters) -> Tensor:
        """Iterate; names as in the paper, ``lag1``..``lag3`` its multipliers Theta."""
        ms, sensor, ratio = scene.ms, scene.sensor, scene.ratio
        size = detail.shape[-2:]
        blur = _transfer_function(ms_kernels(sensor, ratio).to(ms), size)
        divisor = p.eta3 * blur.square() + (p.eta1 + p.eta2)
        x = upsample(ms, ratio)
        u, v, z, t, lag1, lag2, lag3 = (torch.zeros_like(x) for _ in range(7))
        for _ in range(self.config.max_iterations):
            previous = x
            sharp = torch.fft.rfft2(p.eta1 * u - lag1 + p.eta2 * v - lag2)
            blurred = torch.fft.rfft2(p.eta3 * z - lag3)
            # The kernels are symmetric: their transfer functions are real, conjugation is idle.
            x = torch.fft.irfft2((sharp + blur * blurred) / divisor, s=size).clamp_(0, 1)
            blurred_x = torch.fft.irfft2(blur * torch.fft.rfft2(x), s=size)
            u = _shrink_log(x + lag1 / p.eta1, 1 / p.eta1)
            v = (2 * p.l1 * (z + detail) + p.eta2 * x + lag2) / (2 * p.l1 + p.eta2)
            z = 2 * p.l1 * (v - detail) + 2 * p.l2 * t + p.eta3 * blurred_x + lag3
            z /= 2 * (p.l1 + p.l2) + p.eta3
            t = _shrink_log(z, p.l3 / (2 * p.l2))
            decimate(t, ratio).copy_(ms)
            lag1 += p.eta1 * (x - u)
            lag2 += p.eta2 * (x - v)
            # The authors' blur has a circular border above and a replicated one here.
            lag3 += p.eta3 * (mtf_filter(x, sensor, ratio) - z)
            if (x - previous).norm() < self.config.tolerance * previous.norm():
                break
        return x


def _injected_detail(scene: Scene, p: _Parameters) -> Tensor:
    """Return PAN's detail with each band's local gain, (C, H, W)."""
    ms, sensor, ratio = scene.ms, scene.sensor, scene.ratio
    pan = equalise(scene.pan, band_mean(ms), band_std(ms), scene.pan)
    pan_low = pan_filter(pan, sensor, ratio)
    pan_detail = decimate(mtf_filter(pan, sensor, ratio), ratio) - mtf_filter(
        decimate(pan_low, ratio), sensor, ratio
    )
    ms_detail = ms - mtf_filter(ms, sensor, ratio)
    rows, columns = (_partition(n, p.block) for n in ms.shape[-2:])
    cross, power = (
        _block_sums(pan_detail * other, rows, columns) for other in (ms_detail, pan_detail)
    )
    gain = torch.where(power > 0, cross / power, 0.0).clamp(min=0)
    gain = _stretch(gain.flatten(1), p.lower).view_as(gain)
    gain = gain[:, rows.repeat_interleave(ratio)][:, :, columns.repeat_interleave(ratio)]
    return gain * (pan - pan_low)


def _partition(length: int, block: int) -> Tensor:
    """Return the index of the block each pixel belongs to."""
    count = max(1, round(length / block))
    return torch.arange(length) * count // length


def _block_sums(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Sum (C, h, w) over blocks: (C, block rows, block columns)."""
    down, across = (
        torch.nn.functional.one_hot(index).to(image.device, image.dtype)
        for index in (rows, columns)
    )
    return down.T @ image @ across


def _stretch(gain: Tensor, lower: float) -> Tensor:
    """Round each band's gains (C, n) to 1/1500 and clip them as the authors' histogram does.

    Its bins are one level wide and closed above, the lowest taking the smallest level too: the
    lower limit is the first level that more than ``lower`` of the blocks do not exceed, but at
    least one above the smallest; the upper limit is one below the largest.
    """
    levels = (gain * _LEVELS + 0.5).floor()
    ranked = levels.sort(dim=1).values
    n = levels.shape[1]
    least = ranked[:, min(int(n * lower), n - 1)].maximum(ranked[:, 0] + 1)
    most = ranked[:, -1] - 1
    spread = ranked[:, -1] - ranked[:, 0] >= 2  # fewer levels leave nothing to clip
    clipped = levels.maximum(least[:, None]).minimum(most[:, None])
    return torch.where(spread[:, None], clipped, levels) / _LEVELS


def _transfer_function(kernels: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the circular transfer functions of kernels centred on the origin, real."""
    height, width = size
    offset = torch.arange(KERNEL_SIZE, device=kernels.device) - KERNEL_SIZE // 2
    rows, columns = torch.meshgrid(offset % height, offset % width, indexing="ij")
    index = (rows * width + columns).flatten()
    image = kernels.new_zeros(len(kernels), height * width)
    image.index_add_(1, index, kernels.flatten(1))  # taps beyond a small image wrap around
    return torch.fft.rfft2(image.view(-1, height, width)).real


def _shrink_log(image: Tensor, rho: float) -> Tensor:
    """Proximal operator of the tensor log-norm: shrink singular values of the bands' spectrum.

    A singular value s becomes the larger root of x^2 - (s - eps) x + rho - eps s = 0, halved as
    (s - eps + sqrt((s - eps)^2 - 4 (rho - eps s))) / 2, or 0 where there is none.

    Args:
        image: (C, H, W).
        rho: weight of the norm over that of the distance.
    """
    spectrum = torch.fft.rfft(image, dim=0)
    shrunk = torch.zeros_like(spectrum)
    for index, matrix in enumerate(spectrum):
        # No singular value exceeds the Frobenius norm.
        if torch.linalg.vector_norm(matrix) ** 2 <= 4 * rho:
            continue
        real = 2 * index % len(image) == 0  # the zero and the Nyquist frequency of the bands
        shrunk[index] = _shrink_matrix(matrix.real if real else matrix, rho)
    return torch.fft.irfft(shrunk, n=len(image), dim=0)


def _shrink_matrix(matrix: Tensor, rho: float) -> Tensor:
    if matrix.shape[0] < matrix.shape[1]:
        return _shrink_matrix(matrix.mT, rho).mT
    squares, right = torch.linalg.eigh(matrix.mH @ matrix)
    s = squares.clamp(min=0).sqrt()
    root = (s - EPS).square() - 4 * (rho - EPS * s)
    kept = root > 0
    s, right = s[kept], right[:, kept]
    factor = (s - EPS + root[kept].sqrt()).clamp(min=0) / (2 * s)
    return (matrix @ right * factor) @ right.mH
