"""CPU time of the metrics on one thread, beside a plain implementation of the same formulas.

``plain`` is what a careful reader writes from the papers: a loop over blocks, the hypercomplex
product pixel by pixel, the 41 x 41 filter as a direct sum. Both run in one session, so the ratio in
brackets holds on any machine: ``pytest tests/perf/test_perf_metrics.py --benchmark-only``.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from scipy import fft, ndimage

from bench.fusion import create_method
from bench.imaging import get_sensor, imresize_bicubic, interp23tap, ms_kernels
from bench.metrics import full_resolution, q2n, reduced_resolution

LIMIT = {"q2n": 0.03, "suite": 0.1, "hqnr": 0.15, "hqnr_512": 0.7, "lrtcfpan": 60.0}
"""CPU seconds on one thread; 8 bands (LRTCFPan: 4), 256 x 256 pixels where nothing is said."""

SUITE = (
    "PSNR", "PSNR_pooled", "SAM", "ERGAS", "SCC", "Q", "Q2n", "CC", "RMSE",
    "RMSE_low", "RMSE_mid", "RMSE_high",
)  # fmt: skip
WV3 = get_sensor("WV3", 8)
ROUNDS = {"bench": 7, "plain": 1}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_scene(size):
    """Return reference, fused, ms, pan: (1, C, ., .) float64 counts on a grid of 1/16."""
    generator = torch.Generator().manual_seed(size)
    texture = sum(
        interp23tap(torch.randn(1, 8, size // step, size // step, generator=generator), step)
        for step in (1, 2, 4, 8)
    )
    reference = (600 + 80 * texture.double()).clamp(0, 2047).mul(16).round() / 16
    fused = reference + 30 * torch.randn(reference.shape, generator=generator).double()
    fused = fused.mul(16).round() / 16
    return reference, fused, reference[..., 2::4, 2::4], reference.mean(1, keepdim=True)


@pytest.fixture(scope="module")
def scene():
    return make_scene(256)


def run(benchmark, name, implementation, function):
    benchmark.group = name
    rounds = ROUNDS[implementation]
    value = benchmark.pedantic(function, rounds=rounds, warmup_rounds=rounds > 1)
    if implementation == "bench" and benchmark.stats is not None:
        assert benchmark.stats.stats.min <= LIMIT[name]
    return value


both = pytest.mark.parametrize("implementation", ["bench", "plain"])
cpu_time = pytest.mark.benchmark(timer=time.process_time)


@cpu_time
@both
def test_q2n(benchmark, scene, implementation):
    reference, fused = scene[:2]
    arrays = [x[0].numpy() for x in scene[:2]]
    functions = {"bench": lambda: q2n(reference, fused).item(), "plain": lambda: plain_q2n(*arrays)}
    value = run(benchmark, "q2n", implementation, functions[implementation])
    assert value == pytest.approx(plain_q2n(*arrays), abs=1e-9)


@cpu_time
@both
def test_suite(benchmark, scene, implementation):
    reference, fused = scene[:2]
    arrays = [x[0].numpy() for x in scene[:2]]

    def ours():
        return reduced_resolution(reference, fused, sensor=WV3, convention="none", metrics=SUITE)

    functions = {"bench": ours, "plain": lambda: plain_suite(*arrays)}
    values = run(benchmark, "suite", implementation, functions[implementation])
    for name, value in plain_suite(*arrays).items():
        assert float(values[name]) == pytest.approx(value, abs=1e-9), name


@cpu_time
@both
def test_hqnr(benchmark, scene, implementation):
    _, fused, ms, pan = scene

    def ours():
        return full_resolution(fused, ms, pan, sensor=WV3)["HQNR"].item()

    functions = {"bench": ours, "plain": lambda: plain_hqnr(fused, ms, pan)}
    value = run(benchmark, "hqnr", implementation, functions[implementation])
    assert value == pytest.approx(ours(), abs=1e-9)


@cpu_time
def test_hqnr_512(benchmark):
    _, fused, ms, pan = make_scene(512)
    values = run(
        benchmark, "hqnr_512", "bench", lambda: full_resolution(fused, ms, pan, sensor=WV3)
    )
    assert 0 < values["HQNR"].item() < 1


@cpu_time
def test_lrtcfpan(benchmark, scene):
    """Up to its 200 iterations; the authors' MATLAB code took about 480 s under Octave."""
    sensor = get_sensor("QB", 4)
    _, _, ms, pan = (image[:, :4] / sensor.peak for image in scene)
    method = create_method("lrtcfpan", bands=4)
    benchmark.group = "lrtcfpan"
    fused = benchmark.pedantic(method.fuse, args=(ms, pan, sensor), rounds=1)
    assert torch.isfinite(fused).all()
    if benchmark.stats is not None:
        assert benchmark.stats.stats.min <= LIMIT["lrtcfpan"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_twenty_images_on_a_gpu(scene):
    reference, fused, ms, pan = (x.expand(20, -1, -1, -1).cuda() for x in scene)

    def every_index():
        reduced_resolution(reference, fused, sensor=WV3)
        full_resolution(fused, ms, pan, sensor=WV3)
        torch.cuda.synchronize()

    every_index()
    began = time.perf_counter()
    every_index()
    assert time.perf_counter() - began < 1


def plain_product(x, y):
    n = x.shape[-1]
    if n == 1:
        return x * y

    def conj(v):
        return np.concatenate([v[..., :1], -v[..., 1:]], -1)

    a, b, c, d = *np.split(x, 2, -1), *np.split(y, 2, -1)
    b, d = conj(b), conj(d)
    if n == 2:
        return np.concatenate([a * c - d * b, a * d + c * b], -1)
    left = plain_product(a, c) - plain_product(d, conj(b))
    return np.concatenate([left, plain_product(conj(a), d) + plain_product(c, b)], -1)


def plain_q2n(reference, fused):
    bands, height, width = reference.shape
    reference, fused = (np.floor(np.clip(x, 0, 65535) + 0.5) for x in (reference, fused))
    sign = np.array([1] + [-1] * (bands - 1))
    values = []
    for i in range(0, height, 32):
        for j in range(0, width, 32):
            g, f = (x[:, i : i + 32, j : j + 32].reshape(bands, -1).T for x in (reference, fused))
            mean, std = g.mean(0), g.std(0, ddof=1)
            std = np.where(std == 0, np.finfo(float).eps, std)
            g = (g - mean) / std + 1
            f = sign * ((f - mean) / np.where(mean == 0, 1, std) + 1)
            q1, q2 = np.linalg.norm(g.mean(0)), np.linalg.norm(f.mean(0))
            bias = 2 * q1 * q2 / (q1**2 + q2**2)
            k = 1024 / 1023
            spread = k * ((g**2).sum(1).mean() + (f**2).sum(1).mean() - q1**2 - q2**2)
            cov = k * (plain_product(g, f).mean(0) - plain_product(g.mean(0), f.mean(0)))
            values.append(np.linalg.norm(cov * bias * 2 / spread))
    return float(np.mean(values))


def plain_frequencies(reference, fused):
    power = fft.dctn(reference - fused, axes=(1, 2), norm="ortho") ** 2
    f = np.hypot(*np.meshgrid(*(np.arange(n) / (2 * n) for n in power.shape[1:]), indexing="ij"))
    kept = {"RMSE_low": f < 1 / 8, "RMSE_mid": (f >= 1 / 8) & (f < 1 / 4), "RMSE_high": f >= 1 / 4}
    return {name: np.sqrt(power[:, mask].sum() / power.size) / 2047 for name, mask in kept.items()}


def plain_suite(reference, fused):
    bands = len(reference)
    mse = ((reference - fused) ** 2).mean((1, 2))
    dot = (reference * fused).sum(0)
    norms = np.linalg.norm(reference, axis=0) * np.linalg.norm(fused, axis=0)
    return {
        "PSNR": np.mean(10 * np.log10(2047**2 / mse)),
        "PSNR_pooled": 10 * np.log10(2047**2 / mse.mean()),
        "RMSE": np.sqrt(mse.mean()) / 2047,
        "ERGAS": 25 * np.sqrt(np.mean(mse / reference.mean((1, 2)) ** 2)),
        "SAM": np.degrees(np.arccos(np.clip(dot / norms, -1, 1)).mean()),
        "CC": np.mean(
            [np.corrcoef(reference[b].ravel(), fused[b].ravel())[0, 1] for b in range(bands)]
        ),
        "SCC": plain_scc(reference, fused),
        "Q": np.mean([plain_uqi(reference[b], fused[b]) for b in range(bands)]),
        "Q2n": plain_q2n(reference, fused),
        **plain_frequencies(reference, fused),
    }


def plain_scc(reference, fused):
    sobel = np.array([[1, 2, 1], [0, 0, 0], [-1, -2, -1]])
    edges = []
    for image in (reference, fused):
        gradients = [
            [ndimage.correlate(band[1:-1, 1:-1], k, mode="constant") for k in (sobel, sobel.T)]
            for band in image
        ]
        edges.append(np.hypot(*np.moveaxis(np.array(gradients), 1, 0)))
    return (edges[0] * edges[1]).sum() / np.sqrt((edges[0] ** 2).sum() * (edges[1] ** 2).sum())


def plain_uqi(x, y):
    def box(image):
        total = np.pad(image, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
        return total[32:, 32:] - total[:-32, 32:] - total[32:, :-32] + total[:-32, :-32]

    s1, s2 = box(x), box(y)
    power = s1**2 + s2**2
    cov = 1024 * box(x * y) - s1 * s2
    return np.mean(4 * cov * s1 * s2 / ((1024 * box(x**2 + y**2) - power) * power))


def plain_hqnr(fused, ms, pan):
    lms = interp23tap(ms, 4)[0].numpy()
    pan_low = interp23tap(imresize_bicubic(pan, 4), 4)[0, 0].numpy()
    fused, pan = fused[0].numpy(), pan[0, 0].numpy()
    blurred = np.stack(
        [
            ndimage.correlate(band, kernel.numpy(), mode="nearest")
            for band, kernel in zip(fused, ms_kernels(WV3, 4), strict=True)
        ]
    )

    def quality(x, y):
        values = []
        for i in range(0, x.shape[0], 32):
            for j in range(0, x.shape[1], 32):
                u, v = (z[i : i + 32, j : j + 32].ravel() for z in (x, y))
                (c11, c12), (_, c22) = np.cov(u, v)
                m1, m2 = u.mean(), v.mean()
                values.append(4 * c12 * m1 * m2 / (c11 + c22) / (m1**2 + m2**2))
        return np.mean(values)

    change = [abs(quality(f, pan) - quality(m, pan_low)) for f, m in zip(fused, lms, strict=True)]
    return plain_q2n(lms, blurred) * (1 - np.mean(change))
