"""Imaging against closed forms and a peer library."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from bench.config.errors import UsageError
from bench.imaging import (
    SENSOR_NAMES,
    blend_tiles,
    decimate,
    extract_tiles,
    get_sensor,
    imresize_bicubic,
    interp23tap,
    lpfilter_gauss,
    ms_kernels,
    mtf_filter,
    mtf_kernel,
    pan_filter,
    tile_starts,
    upsample,
)

F64 = torch.float64


def random_image(*shape, seed=0, dtype=F64):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class TestSensors:
    def test_peaks(self):
        peaks = {"WV3": 2047, "WV2": 2047, "QB": 2047, "GF2": 1023, "IKONOS": 2047, "GeoEye1": 2047}
        for name, peak in peaks.items():
            assert get_sensor(name, 8 if name.startswith("WV") else 4).peak == peak
        assert get_sensor("none", 6, peak=10000).peak == 10000
        assert get_sensor("GF2", 4, bits=11).peak == 2047

    def test_every_sensor_is_complete(self):
        for name in SENSOR_NAMES:
            sensor = get_sensor(name, 8 if name.startswith("WV") else 4)
            assert sensor.name == name
            assert sensor.bands == len(sensor.band_names) == len(set(sensor.band_names))

    def test_case_and_alias(self):
        assert get_sensor("wv3", 8) == get_sensor("WV3", 8)
        assert get_sensor("WV4", 4).name == "GeoEye1"

    @pytest.mark.parametrize(
        ("name", "bands", "options", "message"),
        [
            ("WV33", 8, {}, "did you mean 'WV3'"),
            ("", 4, {}, "unknown sensor"),
            ("WV3", 4, {}, "WV3 has 8 bands but the data has 4; .*QB, GF2, IKONOS, GeoEye1, none"),
            ("none", 0, {}, "at least one band"),
            ("QB", 4, {"bits": 11, "peak": 2047.0}, "give one of them"),
            ("QB", 4, {"bits": 0}, "bits=0"),
            ("none", 4, {"peak": -1.0}, "peak=-1.0"),
        ],
    )
    def test_errors(self, name, bands, options, message):
        with pytest.raises(UsageError, match=message):
            get_sensor(name, bands, **options)


class TestFilters:
    @pytest.mark.parametrize("ratio", [2, 4, 5])
    def test_equals_the_direct_sum(self, ratio):
        sensor = get_sensor("WV3", 8)
        image = random_image(8, 70, 53) * 2047
        kernels = ms_kernels(sensor, ratio)
        direct = [
            ndimage.correlate(band.numpy(), kernel.numpy(), mode="nearest")
            for band, kernel in zip(image, kernels, strict=True)
        ]
        error = np.abs(mtf_filter(image, sensor, ratio).numpy() - np.stack(direct)).max()
        assert error < 1e-14 * 2047

    def test_response_at_nyquist_is_the_gain(self):
        """Designed as the fifth of 40 intervals, Nyquist at ratio 4 is the fifth of 41 bins."""
        for gain in (0.14, 0.3, 0.36):
            taps = mtf_kernel(gain, 4).sum(0)
            wave = torch.cos(2 * torch.pi * 5 / 41 * (torch.arange(41, dtype=F64) - 20))
            assert float(taps @ wave) == pytest.approx(gain, rel=0.01)

    def test_kernels_are_not_normalised(self):
        for gain in (0.14, 0.22, 0.3, 0.365):
            assert 0.9975 < float(mtf_kernel(gain, 4).sum()) < 0.999

    def test_one_band_meets_every_kernel(self):
        sensor = get_sensor("QB", 4)
        pan = random_image(2, 1, 48, 48)
        every = mtf_filter(pan, sensor, 4)
        assert every.shape == (2, 4, 48, 48)
        torch.testing.assert_close(every, mtf_filter(pan.expand(2, 4, 48, 48), sensor, 4))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_keeps_dtype_and_shape(self, dtype):
        pan = random_image(3, 1, 40, 37).to(dtype)
        sensor = get_sensor("GF2", 4)
        for out in (pan_filter(pan, sensor, 4), lpfilter_gauss(pan, 4)):
            assert (out.dtype, out.shape) == (dtype, pan.shape)

    def test_errors(self):
        with pytest.raises(UsageError, match="image has 3 bands; sensor QB has 4"):
            mtf_filter(random_image(3, 40, 40), get_sensor("QB", 4), 4)
        with pytest.raises(UsageError, match=r"gain 1\.0"):
            mtf_kernel(1.0, 4)
        with pytest.raises(UsageError, match="ratio 0"):
            mtf_kernel(0.3, 0)


class TestResampling:
    @pytest.mark.parametrize("ratio", [1, 2, 3, 4, 5, 6, 8])
    def test_interpolation_passes_through_the_samples(self, ratio):
        image = random_image(2, 3, 12, 16)
        large = upsample(image, ratio)
        assert large.shape == (2, 3, 12 * ratio, 16 * ratio)
        torch.testing.assert_close(decimate(large, ratio), image)

    @pytest.mark.parametrize("ratio", [2, 4, 8])
    def test_a_slow_wave_is_interpolated(self, ratio):
        """The phase of the grids, and a closed form: a periodic wave well below Nyquist."""
        n = 32
        position = (torch.arange(n * ratio, dtype=F64) - ratio // 2) / ratio

        def wave(x):
            return torch.cos(2 * torch.pi * 2 * x / n)

        image = wave(torch.arange(n, dtype=F64)).expand(n, n)
        expected = wave(position).expand(n * ratio, -1)
        torch.testing.assert_close(interp23tap(image, ratio), expected, atol=3e-3, rtol=0)

    def test_cubic_reproduces_a_ramp(self):
        ramp = torch.arange(20, dtype=F64).expand(20, 20)
        large = upsample(ramp, 3)
        expected = (torch.arange(60, dtype=F64) - 1) / 3
        torch.testing.assert_close(large[30, 6:-6], expected[6:-6])

    def test_shrinking_keeps_a_ramp_and_a_constant(self):
        ramp = torch.arange(80, dtype=F64).expand(80, 80)
        for ratio in (2, 4, 5):
            small = imresize_bicubic(ramp, ratio)
            centres = torch.arange(80 // ratio, dtype=F64) * ratio + (ratio - 1) / 2
            torch.testing.assert_close(small[10, 4:-4], centres[4:-4])
            torch.testing.assert_close(
                imresize_bicubic(torch.full((8 * ratio, 8 * ratio), 3.0), ratio),
                torch.full((8, 8), 3.0),
            )

    def test_shrinking_a_tiny_image_mirrors_more_than_once(self):
        torch.testing.assert_close(
            imresize_bicubic(torch.full((1, 4, 4), 2.0), 4), torch.full((1, 1, 1), 2.0)
        )

    @pytest.mark.parametrize("function", [upsample, interp23tap, imresize_bicubic])
    def test_float32_and_device_kept(self, function):
        image = random_image(1, 2, 16, 16, dtype=torch.float32)
        out = function(image, 4)
        assert out.dtype == torch.float32
        torch.testing.assert_close(out.double(), function(image.double(), 4), atol=1e-5, rtol=0)

    def test_errors(self):
        image = random_image(1, 30, 32)
        with pytest.raises(UsageError, match=r"power of two, not 3; upsample\(\)"):
            interp23tap(image, 3)
        with pytest.raises(UsageError, match="ratio 0"):
            upsample(image, 0)
        for function in (decimate, imresize_bicubic):
            with pytest.raises(
                UsageError, match=r"30x32 is not a multiple of the ratio 4; .*28x32"
            ):
                function(image, 4)


class TestTiling:
    @settings(max_examples=60, deadline=None)
    @given(
        size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
        tile=st.integers(1, 40),
        share=st.floats(0, 0.95),
    )
    def test_blending_restores_the_image(self, size, tile, share):
        overlap = int(tile * share)
        image = random_image(1, 2, *size)
        tiles, positions = extract_tiles(image, tile, overlap)
        torch.testing.assert_close(blend_tiles(tiles, positions, size), image, atol=1e-14, rtol=0)

    def test_starts(self):
        assert tile_starts(64, 64, 16) == [0]
        assert tile_starts(50, 64, 16) == [0]
        assert tile_starts(160, 64, 16) == [0, 48, 96]
        assert tile_starts(150, 64, 16) == [0, 48, 86]

    def test_seams_are_smooth(self):
        """Tiles that disagree by one step fade into each other without a jump."""
        tiles = torch.stack([torch.zeros(1, 1, 32, 32), torch.ones(1, 1, 32, 32)]).double()
        blended = blend_tiles(tiles, [(0, 0), (0, 16)], (32, 48))
        steps = blended[0, 0, 0].diff()
        assert (steps >= 0).all()
        assert float(steps.max()) < 0.1

    def test_errors(self):
        with pytest.raises(UsageError, match="0 <= overlap < tile"):
            tile_starts(64, 16, 16)
        with pytest.raises(UsageError, match="do not cover 48 pixels"):
            blend_tiles(torch.zeros(2, 1, 1, 16, 16), [(0, 0), (0, 32)], (16, 48))
