"""Metrics: closed forms, invariances, a peer library, bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backbones.torchvision_ops import ensure_torchvision
from bench.config.conventions import Convention
from bench.config.errors import UsageError
from bench.imaging import Sensor, get_sensor, imresize_bicubic, mtf_filter, upsample
from bench.metrics import (
    cut_border,
    error_map,
    full_resolution,
    hqnr_map,
    hypercomplex_product,
    q2n_map,
    reduced_resolution,
)
from bench.records.metric_specs import FULL_RESOLUTION, METRIC_SPECS, REDUCED_RESOLUTION

QB = get_sensor("QB", 4)
ORDER_FREE = (
    "PSNR", "PSNR_pooled", "SSIM", "SAM", "ERGAS", "SCC", "Q", "CC",
    "RMSE", "RMSE_low", "RMSE_mid", "RMSE_high",
)  # fmt: skip


def scene(seed=0, bands=4, size=64, batch=1, peak=2047.0):
    """Smooth counts, a PAN that depends on them, and a noisy copy of them."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, bands, size // 4, size // 4, generator=generator).double()
    fine = torch.rand(batch, 1, size, size, generator=generator).double()
    reference = (upsample(coarse, 4) * 0.5 + fine * 0.3 + 0.1).clamp(0, 1) * peak
    noise = torch.randn(reference.shape, generator=generator).double() * peak * 0.02
    return reference, reference + noise, reference.mean(1, keepdim=True)


def low(reference):
    return upsample(reference, 1)[..., 2::4, 2::4]


class TestReduced:
    @pytest.mark.parametrize("convention", ["none", "dlpan", "pancollection"])
    def test_identity_is_ideal(self, convention):
        reference, _, _ = scene(size=128)
        values = reduced_resolution(reference, reference, sensor=QB, convention=convention)
        for name, value in values.items():
            ideal = METRIC_SPECS[name].ideal
            assert value.item() == pytest.approx(ideal, abs=1e-12), name

    def test_closed_forms(self):
        """A reference of 1000 and an error of 100 in one of four bands."""
        reference = torch.full((4, 64, 64), 1000.0)
        fused = reference.clone()
        fused[0] += 100
        values = reduced_resolution(reference, fused, sensor=QB, convention="none")
        assert values["PSNR"].item() == np.inf
        assert values["PSNR_pooled"].item() == pytest.approx(20 * np.log10(2047 / 50), abs=1e-9)
        assert values["RMSE"].item() == pytest.approx(50 / 2047)
        assert values["ERGAS"].item() == pytest.approx(25 * np.sqrt(0.01 / 4))
        cosine = 4.1 / np.sqrt(4 * (3 + 1.21))
        assert values["SAM"].item() == pytest.approx(np.degrees(np.arccos(cosine)), abs=1e-9)
        assert values["Q"].item() == pytest.approx((2 * 1.1 / 2.21 + 3) / 4)

    def test_peer_library(self):
        ensure_torchvision()  # torchmetrics imports it
        from torchmetrics.functional.image import (
            error_relative_global_dimensionless_synthesis,
            spectral_angle_mapper,
        )

        reference, fused, _ = scene(size=96)
        values = reduced_resolution(reference, fused, sensor=QB, convention="none")
        ergas = error_relative_global_dimensionless_synthesis(fused, reference, ratio=4)
        assert values["ERGAS"].item() == pytest.approx(ergas.item(), rel=1e-12)
        sam = spectral_angle_mapper(fused, reference)
        assert values["SAM"].item() == pytest.approx(np.degrees(sam.item()), rel=1e-9)

    @settings(max_examples=15, deadline=None)
    @given(seed=st.integers(0, 2**20), order=st.permutations(range(4)))
    def test_band_order_does_not_matter(self, seed, order):
        """Except to Q2n, whose product is not commutative."""
        reference, fused, _ = scene(seed)
        a = reduced_resolution(reference, fused, sensor="none", convention="none")
        b = reduced_resolution(
            reference[:, order], fused[:, order], sensor="none", convention="none"
        )
        for name in ORDER_FREE:
            torch.testing.assert_close(a[name], b[name], rtol=1e-10, atol=1e-10, msg=name)

    @settings(max_examples=15, deadline=None)
    @given(seed=st.integers(0, 2**20), power=st.sampled_from([0.25, 0.5, 2.0, 4.0]))
    def test_common_scale_does_not_matter(self, seed, power):
        """Scaling both images and the peak leaves everything but the rounding in Q2n."""
        reference, fused, _ = scene(seed)
        scaled = Sensor("none", 2047 * power, QB.ms_gains, QB.pan_gain, QB.band_names)
        a = reduced_resolution(reference, fused, sensor=QB, convention="none")
        b = reduced_resolution(reference * power, fused * power, sensor=scaled, convention="none")
        for name in ORDER_FREE:
            torch.testing.assert_close(a[name], b[name], rtol=1e-10, atol=1e-10, msg=name)
        torch.testing.assert_close(a["Q2n"], b["Q2n"], rtol=0, atol=1e-4)

    @settings(max_examples=25, deadline=None)
    @given(
        seed=st.integers(0, 2**20),
        bands=st.integers(1, 8),
        height=st.integers(16, 80),
        width=st.integers(16, 80),
        offset=st.integers(-500, 500),
        gain=st.floats(0, 3),
    )
    def test_q2n_lies_between_0_and_1(self, seed, bands, height, width, offset, gain):
        generator = torch.Generator().manual_seed(seed)
        reference = torch.randint(0, 2048, (1, bands, height, width), generator=generator)
        reference[..., : height // 2, :] = 0
        fused = reference * gain + offset
        blocks = q2n_map(reference.double(), fused.double())
        assert ((blocks >= 0) & (blocks <= 1 + 1e-12)).all()

    @settings(max_examples=10, deadline=None)
    @given(seed=st.integers(0, 2**20))
    def test_float32_is_close(self, seed):
        reference, fused, _ = scene(seed)
        unit = [x / 2047 for x in (reference, fused)]
        a = reduced_resolution(*unit, sensor=QB, convention="none", scale="unit")
        b = reduced_resolution(
            *(x.float() for x in unit), sensor=QB, convention="none", scale="unit"
        )
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=1e-5, atol=1e-5, msg=name)

    def test_unit_scale_is_counts_over_peak(self):
        reference, fused, _ = scene(size=128)
        a = reduced_resolution(reference, fused, sensor=QB)
        b = reduced_resolution(reference / 2047, fused / 2047, sensor=QB, scale="unit")
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=1e-6, atol=1e-6, msg=name)

    def test_batch_array_and_single_image_agree(self):
        reference, fused, _ = scene(batch=3, size=64)
        whole = reduced_resolution(reference, fused, sensor="QB", convention="none")
        for i in range(3):
            single = reduced_resolution(
                reference[i].numpy(), fused[i].numpy(), sensor="QB", convention="none"
            )
            for name, value in single.items():
                assert value.shape == (1,)
                assert value.item() == pytest.approx(whole[name][i].item(), abs=1e-12)

    def test_integers_are_taken(self):
        reference = np.random.default_rng(0).integers(0, 2048, (4, 64, 64), dtype=np.uint16)
        values = reduced_resolution(reference, reference, sensor="QB", convention="none")
        assert values["Q2n"].item() == pytest.approx(1)

    def test_only_the_metrics_asked_for(self):
        reference, fused, _ = scene()
        values = reduced_resolution(
            reference, fused, sensor="QB", convention="none", metrics=("SAM", "PSNR")
        )
        assert list(values) == ["SAM", "PSNR"]

    def test_undefined_is_nan(self):
        image = torch.zeros(1, 4, 31, 64)
        values = reduced_resolution(image, image, sensor="QB", convention="none")
        undefined = {name for name, value in values.items() if value.isnan()}
        assert undefined == {"SAM", "ERGAS", "SCC", "Q", "CC"}

    @pytest.mark.parametrize("size", [42, 43, 60, 61, 128])
    def test_cut_keeps_the_toolbox_rows(self, size):
        rows = torch.arange(size).expand(1, 1, size, size).mT
        kept = cut_border(rows, 21)[0, 0, :, 0].tolist()
        assert kept == list(range(20, size - 21))  # MATLAB 21:end-21

    def test_cut_that_leaves_nothing_is_an_error(self):
        with pytest.raises(UsageError, match="cut of 30 leaves nothing of 59x59"):
            cut_border(torch.zeros(1, 1, 59, 59), 30)

    def test_clipping_goes_to_the_power_of_two(self):
        reference, _, _ = scene()
        fused = torch.where(reference > reference.mean(), 3000.0, -50.0)
        clip = Convention("clip", cut=0, clip=True)
        a = reduced_resolution(reference, fused, sensor="QB", convention=clip)
        b = reduced_resolution(reference, fused.clamp(0, 2048), sensor="QB", convention="none")
        assert a["ERGAS"].item() == b["ERGAS"].item()


class TestFull:
    def test_interpolated_ms_has_no_spectral_change(self):
        reference, _, pan = scene()
        values = full_resolution(upsample(low(reference), 4), low(reference), pan, sensor="QB")
        assert values["D_lambda"].item() == pytest.approx(0, abs=1e-12)

    def test_low_pass_pan_in_every_band_is_ideal_for_d_s(self):
        """The UQI of PAN with PAN is 1 at both scales."""
        _, _, pan = scene()
        lms = upsample(imresize_bicubic(pan, 4), 4).expand(1, 4, 64, 64)
        ms = imresize_bicubic(pan, 4).expand(1, 4, 16, 16)
        values = full_resolution(pan.expand(1, 4, 64, 64), ms, pan, lms=lms, sensor="QB")
        for name in ("D_s", "D_lambda", "D_sR"):
            assert values[name].item() == pytest.approx(0, abs=1e-12), name
        assert values["QNR"].item() == pytest.approx(1)

    def test_d_lambda_k_is_ideal_when_the_blurred_image_is_lms(self):
        _, fused, pan = scene()
        lms = mtf_filter(fused, QB, 4)
        values = full_resolution(fused, low(fused), pan, lms=lms, sensor="QB")
        assert values["D_lambda_K"].item() == pytest.approx(0, abs=1e-12)

    def test_d_sr_ignores_bands_that_say_the_same(self):
        _, fused, pan = scene()
        ms = low(fused)
        doubled = [torch.cat([x, 2 * x], 1) for x in (fused, ms)]
        one = full_resolution(fused, ms, pan, sensor="none")
        two = full_resolution(*doubled, pan, sensor="none")
        assert one["D_sR"].item() == pytest.approx(two["D_sR"].item(), rel=1e-9)

    @settings(max_examples=10, deadline=None)
    @given(seed=st.integers(0, 2**20), order=st.permutations(range(4)))
    def test_band_order_does_not_matter_to_qnr(self, seed, order):
        _, fused, pan = scene(seed)
        ms = low(fused)
        a = full_resolution(fused, ms, pan, sensor="none")
        b = full_resolution(fused[:, order], ms[:, order], pan, sensor="none")
        for name in ("D_s", "D_lambda", "QNR", "D_sR"):
            torch.testing.assert_close(a[name], b[name], rtol=1e-10, atol=1e-10, msg=name)

    @settings(max_examples=10, deadline=None)
    @given(seed=st.integers(0, 2**20))
    def test_float32_is_close(self, seed):
        reference, fused, pan = scene(seed)
        unit = [x / 2047 for x in (fused, low(reference), pan)]
        a = full_resolution(*unit, sensor="QB", scale="unit")
        b = full_resolution(*(x.float() for x in unit), sensor="QB", scale="unit")
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=1e-5, atol=1e-5, msg=name)

    def test_batch_and_single_image_agree(self):
        reference, fused, pan = scene(batch=3)
        ms = low(reference)
        whole = full_resolution(fused, ms, pan, sensor="QB")
        single = full_resolution(fused[2], ms[2], pan[2], sensor="QB")
        for name, value in single.items():
            assert value.item() == pytest.approx(whole[name][2].item(), abs=1e-12)

    @pytest.mark.parametrize("ratio", [2, 3])
    def test_other_ratios(self, ratio):
        _, fused, pan = scene(size=96)
        ms = fused[..., ratio // 2 :: ratio, ratio // 2 :: ratio]
        values = full_resolution(fused, ms, pan, sensor="QB", ratio=ratio)
        assert all(0 <= value.item() <= 1 for value in values.values())


class TestMaps:
    def test_hqnr_map_steps(self):
        reference, fused, pan = scene(size=128)
        ms = low(reference)
        coarse = hqnr_map(fused, ms, pan, sensor="QB")
        fine = hqnr_map(fused, ms, pan, sensor="QB", step=8)
        assert coarse.shape == (1, 4, 4)
        assert fine.shape == (1, 13, 13)
        torch.testing.assert_close(fine[:, ::4, ::4], coarse)

    def test_hqnr_map_bounds_the_index(self):
        """The absolute value of D_s comes after the mean in the index, before it in the map."""
        reference, fused, pan = scene(size=128)
        ms = low(reference)
        index = full_resolution(fused, ms, pan, sensor="QB")
        spectral = q2n_map(upsample(ms, 4), mtf_filter(fused, QB, 4))
        spatial = 1 - hqnr_map(fused, ms, pan, sensor="QB") / spectral
        assert spatial.mean() >= index["D_s"].item() - 1e-12
        assert 1 - spectral.mean().item() == pytest.approx(index["D_lambda_K"].item())

    def test_error_map(self):
        reference = torch.full((4, 8, 8), 1000.0)
        fused = reference.clone()
        fused[1, 2, 3] += 2047
        expected = torch.zeros(1, 8, 8, dtype=torch.float64)
        expected[0, 2, 3] = 0.25
        torch.testing.assert_close(error_map(reference, fused, sensor="QB"), expected)

    def test_errors(self):
        _, fused, pan = scene()
        with pytest.raises(UsageError, match="step 0"):
            hqnr_map(fused, low(fused), pan, sensor="QB", step=0)


class TestBadInput:
    """One clear error each."""

    REFERENCE, FUSED, PAN = scene()
    MS = low(REFERENCE)

    def reduced(self, message, reference=None, fused=None, **options):
        reference = self.REFERENCE if reference is None else reference
        fused = self.FUSED if fused is None else fused
        options = {"sensor": "QB", "convention": "none", **options}
        with pytest.raises(ValueError, match=message):
            reduced_resolution(reference, fused, **options)

    def full(self, message, fused=None, ms=None, pan=None, **options):
        images = [self.FUSED if fused is None else fused, self.MS if ms is None else ms]
        options = {"sensor": "QB", **options}
        with pytest.raises(UsageError, match=message):
            full_resolution(*images, self.PAN if pan is None else pan, **options)

    def test_shapes(self):
        self.reduced(r"fused has shape \(1, 4, 64, 60\); expected", fused=self.FUSED[..., :60])
        self.reduced(r"reference has shape \(64, 64\)", reference=self.REFERENCE[0, 0])
        self.reduced("not empty", reference=self.REFERENCE[:0])
        self.full(r"pan has shape \(1, 1, 32, 64\).*one band", pan=self.PAN[..., :32, :])
        self.full(r"pan has shape \(1, 4, 64, 64\)", pan=self.FUSED)
        self.full(r"ms has shape .*expected \(1, 4, 16, 16\): .*ratio 4", ms=self.MS[..., :8])
        self.full(r"lms has shape", lms=self.MS)

    def test_sizes(self):
        self.full("multiples of 32, e.g. 32x32", fused=self.FUSED[..., :60, :60])
        self.full("64x64 is not a multiple of the ratio 3", ratio=3)
        self.reduced("ratio 0", ratio=0)

    def test_sensor(self):
        self.reduced("WV3 has 8 bands but the data has 4", sensor="WV3")
        self.reduced("images have 4 bands; sensor WV3 has 8", sensor=get_sensor("WV3", 8))
        self.reduced("unknown sensor 'GF1'.*did you mean 'GF2'", sensor="GF1")
        self.full("images have 4 bands; sensor WV2 has 8", sensor=get_sensor("WV2", 8))

    def test_scale(self):
        unit = [x.clamp(1, 2047) / 2048 for x in (self.REFERENCE, self.FUSED)]
        self.reduced("reference lies in .*did you mean scale='unit'", *unit)
        self.reduced("fused lies in .*did you mean scale='unit'", fused=unit[1])
        self.reduced("did you mean scale='counts'", scale="unit")
        self.reduced("scale='dn'; expected 'counts' or 'unit'", scale="dn")
        self.full("fused lies in .*did you mean scale='unit'", fused=unit[1])
        self.full("did you mean scale='counts'", scale="unit")

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_not_finite(self, value):
        bad = self.FUSED.clone()
        bad[0, 1, 2, 3:5] = value
        self.reduced("fused has 2 NaN or infinite values in image 0", fused=bad)
        self.full("fused has 2 NaN or infinite values in image 0", fused=bad)

    def test_names(self):
        self.reduced("unknown convention 'dlpam' - did you mean 'dlpan'", convention="dlpam")
        self.reduced("no metric 'FID'", metrics=("FID",))


def test_hypercomplex_units():
    """i_a squares to -1; the norm of a quaternion product is the product of norms."""
    for n in (2, 4, 8):
        units = torch.eye(n, dtype=torch.float64)
        squares = hypercomplex_product(units[1:], units[1:])
        torch.testing.assert_close(squares, -units[:1].expand(n - 1, n))
    x, y = torch.randn(2, 50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        hypercomplex_product(x, y).norm(dim=1), x.norm(dim=1) * y.norm(dim=1)
    )


def test_every_metric_has_its_meaning():
    reference, fused, pan = scene()
    reduced = reduced_resolution(reference, fused, sensor="QB", convention="none")
    full = full_resolution(fused, low(reference), pan, sensor="QB")
    assert list(reduced) == [spec.name for spec in REDUCED_RESOLUTION]
    assert list(full) == [spec.name for spec in FULL_RESOLUTION]
    for spec in (*REDUCED_RESOLUTION, *FULL_RESOLUTION):
        assert METRIC_SPECS[spec.name] is spec
        worst = {"higher": -np.inf, "lower": np.inf}[spec.direction]
        assert abs(spec.ideal - worst) > 0
        assert spec.source


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_agrees_with_cpu():
    reference, fused, pan = scene(batch=5, size=128)
    cpu = reduced_resolution(reference, fused, sensor="QB")
    gpu = reduced_resolution(reference.cuda(), fused.cuda(), sensor="QB")
    cpu |= full_resolution(fused, low(reference), pan, sensor="QB")
    gpu |= full_resolution(fused.cuda(), low(reference).cuda(), pan.cuda(), sensor="QB")
    for name in cpu:
        torch.testing.assert_close(gpu[name], cpu[name], rtol=0, atol=1e-9, msg=name)


def test_unit_data_that_overshoots_a_little_is_no_counts():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 2048, (4, 96, 96)).astype(float)
    with pytest.raises(UsageError, match="did you mean scale='unit'"):
        reduced_resolution(counts, counts / 2047 - 0.05, sensor="QB", convention="none")
