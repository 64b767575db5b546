"""The fusion contract and properties of the classical methods; their numbers: tests/golden."""

from __future__ import annotations

import pytest
import torch

from backbones import UnknownNameError
from bench.config.errors import UsageError
from bench.fusion import create_method, list_methods
from bench.imaging import decimate, get_sensor, mtf_filter, upsample
from bench.metrics import reduced_resolution

CLASSICAL = [
    "bdsd_pc", "bt_h", "exp", "gsa", "lrtcfpan", "mtf_glp", "mtf_glp_fs", "mtf_glp_hpm",
    "mtf_glp_hpm_r",
]  # fmt: skip
FAST = [name for name in CLASSICAL if name != "lrtcfpan"]


def scene(bands=4, size=64, ratio=4, batch=2, seed=0):
    """Return gt, ms, pan in unit scale, simulated by Wald's protocol.

    Texture has equal power in every octave, as in nature; its gain differs by band.
    """
    generator = torch.Generator().manual_seed(seed)

    def octave(channels, step):
        side = size // step
        image = torch.randn(batch, channels, side, side, generator=generator).double()
        return upsample(image, step)

    texture = sum(octave(1, step) for step in (1, 2, 4, 8, 16))
    gains = torch.linspace(0.6, 1.2, bands).double()[:, None, None]
    gt = (0.4 + 0.02 * octave(bands, 16) + 0.03 * gains * texture).clamp(0, 1)
    sensor = get_sensor("none", bands)
    return gt, decimate(mtf_filter(gt, sensor, ratio), ratio), gt.mean(1, keepdim=True), sensor


def options(name):
    return {"max_iterations": 20} if name == "lrtcfpan" else {}


def test_list():
    assert set(CLASSICAL) <= set(list_methods())
    assert list_methods("mtf_*") == ["mtf_glp", "mtf_glp_fs", "mtf_glp_hpm", "mtf_glp_hpm_r"]


@pytest.mark.parametrize("name", CLASSICAL)
class TestContract:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_shape_dtype_name(self, name, dtype):
        _, ms, pan, sensor = scene()
        method = create_method(name, bands=4, **options(name))
        fused = method.fuse(ms.to(dtype), pan.to(dtype), sensor)
        assert method.name == name
        assert (fused.shape, fused.dtype) == ((2, 4, 64, 64), dtype)
        assert fused.isfinite().all()

    def test_images_do_not_see_each_other(self, name):
        _, ms, pan, sensor = scene()
        method = create_method(name, bands=4, **options(name))
        both = method.fuse(ms, pan, sensor)
        torch.testing.assert_close(both[1:], method.fuse(ms[1:], pan[1:], sensor))

    def test_lms_is_the_interpolated_ms(self, name):
        _, ms, pan, sensor = scene(batch=1)
        method = create_method(name, bands=4, **options(name))
        given = method.fuse(ms, pan, sensor, upsample(ms, 4))
        torch.testing.assert_close(given, method.fuse(ms, pan, sensor), rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("ratio", [2, 3])
    def test_other_ratios(self, name, ratio):
        gt, ms, pan, sensor = scene(size=96, ratio=ratio, batch=1)
        fused = create_method(name, bands=4, **options(name)).fuse(ms, pan, sensor)
        assert fused.shape == gt.shape
        assert fused.isfinite().all()

    def test_odd_number_of_bands(self, name):
        gt, ms, pan, sensor = scene(bands=3, batch=1)
        fused = create_method(name, bands=3, **options(name)).fuse(ms, pan, sensor)
        assert fused.shape == gt.shape

    def test_bad_input(self, name):
        _, ms, pan, sensor = scene()
        method = create_method(name, bands=4, **options(name))
        with pytest.raises(UsageError, match=r"expected \(2, 1, r \* 16"):
            method.fuse(ms, pan[..., :60], sensor)
        with pytest.raises(UsageError, match="lms has shape"):
            method.fuse(ms, pan, sensor, ms)
        with pytest.raises(UsageError, match=r"ms has 3 bands, method .* 4"):
            method.fuse(ms[:, :3], pan, sensor)
        with pytest.raises(UsageError, match="ms has 4 bands, WV3 8"):
            method.fuse(ms, pan, get_sensor("WV3", 8))
        with pytest.raises(UsageError, match="pan has shape"):
            method.fuse(ms, pan[0], sensor)
        with pytest.raises(UsageError, match="NaN or infinite"):
            method.fuse(ms * torch.nan, pan, sensor)
        with pytest.raises(UsageError, match="expected floating point"):
            method.fuse((ms * 2047).long(), pan, sensor)


@pytest.mark.parametrize("name", sorted(set(CLASSICAL) - {"exp"}))
def test_sharpens(name):
    """With a PAN that tells the texture, every method is nearer the truth than interpolation."""
    gt, ms, pan, sensor = scene(batch=1)
    score = {
        method: reduced_resolution(
            gt,
            create_method(method, bands=4).fuse(ms, pan, sensor),
            sensor=sensor,
            convention="none",
            scale="unit",
        )["ERGAS"].item()
        for method in ("exp", name)
    }
    assert score[name] < 0.5 * score["exp"]


def test_exp_is_interpolation():
    _, ms, pan, sensor = scene()
    fused = create_method("exp", bands=4).fuse(ms, pan, sensor)
    torch.testing.assert_close(fused, upsample(ms, 4))


def test_gsa_keeps_band_means():
    _, ms, pan, sensor = scene()
    lms = upsample(ms, 4)
    fused = create_method("gsa", bands=4).fuse(ms, pan, sensor, lms)
    torch.testing.assert_close(fused.mean((2, 3)), lms.mean((2, 3)))


def test_counts_do_not_depend_on_the_peak():
    """Unit-scale images of another peak are the same counts."""
    _, ms, pan, sensor = scene()
    other = get_sensor("none", 4, peak=1023.5)
    for name in FAST:
        method = create_method(name, bands=4)
        a = method.fuse(ms, pan, sensor)
        b = method.fuse(ms * 2, pan * 2, other)
        torch.testing.assert_close(2 * a, b, rtol=1e-8, atol=1e-8, msg=name)


class TestLRTCFPan:
    def test_regimes_differ(self):
        _, ms, pan, sensor = scene(batch=1)
        reduced, full = (
            create_method("lrtcfpan", bands=4, regime=regime, max_iterations=5).fuse(
                ms, pan, sensor
            )
            for regime in ("reduced", "full")
        )
        assert (reduced - full).abs().max() > 1e-3

    def test_size_that_blocks_do_not_divide(self):
        gt, ms, pan, sensor = scene(size=80, batch=1)  # 20 pixels in blocks of 8
        method = create_method("lrtcfpan", bands=4)
        values = [
            reduced_resolution(gt, x, sensor=sensor, convention="none", scale="unit")
            for x in (method.fuse(ms, pan, sensor), upsample(ms, 4))
        ]
        assert values[0]["ERGAS"] < 0.5 * values[1]["ERGAS"]

    def test_stays_in_range(self):
        _, ms, pan, sensor = scene(batch=1)
        fused = create_method("lrtcfpan", bands=4, max_iterations=5).fuse(ms, pan, sensor)
        assert 0 <= fused.min() <= fused.max() <= 1 + 1e-12

    def test_sensor_without_parameters(self):
        _, ms, pan, _ = scene(bands=4)
        ikonos = get_sensor("IKONOS", 4)
        with pytest.raises(UsageError, match=r"no parameters for sensor IKONOS; .*GF2, QB, WV3"):
            create_method("lrtcfpan", bands=4).fuse(ms, pan, ikonos)
        method = create_method("lrtcfpan", bands=4, parameters="QB", max_iterations=2)
        assert method.fuse(ms, pan, ikonos).isfinite().all()

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ({"regime": "ful"}, "regime 'ful' - did you mean 'full'"),
            ({"parameters": "WV2"}, "parameters 'WV2' - did you mean 'WV3'"),
            ({"max_iterations": 0}, "max_iterations 0"),
        ],
    )
    def test_bad_config(self, config, message):
        with pytest.raises(UsageError, match=message):
            create_method("lrtcfpan", bands=4, **config)


def test_unknown_names():
    with pytest.raises(UnknownNameError, match="unknown fusion method 'bth' - did you mean 'bt_h'"):
        create_method("bth", bands=4)
    with pytest.raises(UnknownNameError, match="option of fusion method 'lrtcfpan' 'regim'"):
        create_method("lrtcfpan", bands=4, regim="full")


def test_what_fuse_is_handed_is_checked():
    ms, pan = torch.full((1, 4, 8, 8), 0.2), torch.full((1, 1, 32, 32), 0.2)
    method = create_method("exp", bands=4)
    assert method.fuse(ms, pan, "QB").shape == (1, 4, 32, 32)
    with pytest.raises(UsageError, match=r"ms has mean 409\.4; expected counts divided by 2047"):
        method.fuse(ms * 2047, pan, "QB")
    with pytest.raises(UsageError, match="ms is a ndarray; expected a torch tensor"):
        method.fuse(ms.numpy(), pan, "QB")
    with pytest.raises(UsageError, match="bands = 0: expected at least 1"):
        create_method("exp", bands=0)
