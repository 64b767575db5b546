"""Fourmer, HFIN and HOIF: sizes, and the parts that are easily wrong; their numbers: golden."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from bench.config.errors import UsageError
from bench.fusion.deep.fourmer import Fourmer, FourmerConfig
from bench.fusion.deep.hfin import HFIN, HFINConfig, _joined, _phase, _Polar, _Windowed
from bench.fusion.deep.hoif import HOIF, SHIP, HOIFConfig, _CentralDifference, _PixelNorm
from bench.fusion.deep.layers import (
    ConvUnit,
    Coupling,
    InvertibleMix,
    real_bins,
    spectrum,
    to_image,
)
from bench.measure import FlopCounter, count_parameters


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize(
    ("method", "bands", "options", "parameters", "dead"),
    [
        (Fourmer, 8, {}, 5_205_128, 46_720),
        (Fourmer, 4, {}, 5_183_876, 5_183_876 - 5_157_892),
        (Fourmer, 8, {"width": 32}, 1_345_416, 46_720),
        (Fourmer, 8, {"width": 16}, 375_944, 46_720),
        (Fourmer, 8, {"width": 8}, 131_304, 46_720),
        (Fourmer, 4, {"width": 8}, 110_500, 25_984),
        (HFIN, 4, {}, 79_449, 834),
        (HFIN, 4, {"width": 8}, 191_118, 3_268),
        (HFIN, 4, {"width": 16}, 593_928, 12_936),
        (HFIN, 4, {"width": 32}, 2_117_436, 51_472),
        (HFIN, 8, {"width": 8}, 191_698, 3_268),
    ],
)
def test_published_sizes(method, bands, options, parameters, dead):
    with torch.device("meta"):
        built = method(bands, method.Config(**options))
    assert count_parameters(built.network) == parameters
    idle = [p for name, p in built.network.named_parameters() if "unused." in name]
    assert sum(p.numel() for p in idle) == dead
    assert all(pattern.endswith("unused.*") for pattern in method.dead)


@pytest.mark.parametrize(
    ("bands", "width", "parameters", "buffers"), [(1, 16, 547_509, 5_520), (8, 8, 228_068, 1_416)]
)
def test_published_sizes_of_ship(bands, width, parameters, buffers):
    with torch.device("meta"):
        network = SHIP(bands, 1, width)
    assert count_parameters(network) == parameters
    assert sum(b.numel() for b in network.buffers()) == buffers


def test_hoif_is_ship_on_lms_and_pan_added_to_lms():
    method = HOIF(4, HOIFConfig(width=4))
    network = method.network.double()
    ms, pan, lms = draw(1, 4, 16, 16), draw(1, 1, 64, 64, seed=1), draw(1, 4, 64, 64, seed=2)
    torch.testing.assert_close(network(ms, pan, lms), network.ship(lms, pan) + lms)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (lambda: FourmerConfig(width=6), "width = 6"),
        (lambda: FourmerConfig(width=0), "width = 0"),
        (lambda: HFINConfig(width=1), "width = 1"),
        (lambda: HOIFConfig(width=1), "width = 1"),
    ],
)
def test_widths_that_cannot_be_built_are_refused(config, message):
    with pytest.raises(UsageError, match=message):
        config()


def test_fourmer_has_scales():
    sizes = [Fourmer(4, FourmerConfig(**options)).config.width for options in (
        Fourmer.scales["tiny"], Fourmer.scales["small"], Fourmer.scales["base"]
    )]  # fmt: skip
    assert sizes == [8, 16, FourmerConfig().width]


# --- spectra --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 64), (65, 66), (66, 65), (67, 65)])
class TestSpectra:
    def test_there_and_back(self, size):
        x = draw(2, 3, *size)
        torch.testing.assert_close(to_image(spectrum(x), *size), x)

    def test_what_is_no_spectrum_of_an_image_is_inverted_as_numpy_does(self, size):
        half = torch.complex(
            draw(2, size[0], size[1] // 2 + 1), draw(2, size[0], size[1] // 2 + 1, seed=1)
        )
        expected = np.fft.irfft2(half.numpy(), s=size)
        np.testing.assert_allclose(to_image(half, *size), expected, rtol=0, atol=1e-12)

    def test_libraries_are_handed_nothing_that_they_may_read_in_two_ways(self, size, monkeypatch):
        half = torch.complex(
            draw(2, size[0], size[1] // 2 + 1), draw(2, size[0], size[1] // 2 + 1, seed=1)
        )
        handed = []
        inverse = torch.fft.irfft
        monkeypatch.setattr(
            torch.fft, "irfft", lambda x, **kw: handed.append(x) or inverse(x, **kw)
        )
        to_image(half, *size)
        columns = handed[0].imag.abs().amax((0, 1)) == 0
        assert columns[real_bins(size[1])].all()
        assert columns.sum() == len(range(size[1])[real_bins(size[1])])

    def test_the_argument_is_left_as_it_was(self, size):
        half = spectrum(draw(1, *size))
        before = half.clone()
        to_image(half, *size)
        assert torch.equal(half, before)

    def test_real_bins_are_those_without_an_imaginary_part(self, size):
        # The full transform, so that rows and columns have all their coefficients.
        imaginary = torch.fft.fft2(draw(*size)).imag.abs()
        mask = torch.ones(size, dtype=torch.bool)
        rows, columns = (range(n)[real_bins(n)] for n in size)
        for row in rows:
            for column in columns:
                mask[row, column] = False
        assert imaginary[~mask].max() < 1e-9 < imaginary[mask].min()


def test_gradient_of_the_inverse_transform():
    half = torch.complex(draw(6, 4), draw(6, 4, seed=1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: to_image(x, 6, 6), half)


@pytest.mark.parametrize("network", [lambda: Fourmer(4, FourmerConfig(width=8)), lambda: HFIN(4)])
def test_spectra_are_full_precision_under_autocast(network):
    torch.manual_seed(0)
    network = network().network
    given = [draw(1, c, n, n, dtype=torch.float32) for c, n in ((4, 16), (1, 64), (4, 64))]
    full = network(*given)
    with torch.autocast("cpu", torch.bfloat16):
        half = network(*given)
    assert 0 < (half - full).abs().max() < 0.1


def test_spectra_are_counted():
    x = draw(1, 8, 64, 64, dtype=torch.float32).to("meta")
    with torch.device("meta"):
        polar = _Polar(4, 4)
    with FlopCounter() as counter:
        polar(x)
    points = 64 * 64
    assert counter.by_operator["_fft_r2c"] == 2.5 * 8 * points * 12
    # To the image: complex along the 33 columns, then real along the rows.
    assert counter.by_operator["_fft_c2c"] == 5 * 4 * 33 * 64 * 6
    assert counter.by_operator["_fft_c2r"] == 2.5 * 4 * points * 6


# --- HFIN -----------------------------------------------------------------------------------


def test_phases_of_real_coefficients_do_not_hang_on_the_sign_of_a_zero():
    mirrored = (real_bins(8), real_bins(8))
    for zero in (0.0, -0.0):
        half = torch.full((8, 5), -1.0, dtype=torch.complex128)
        half.imag[:] = zero
        phase = _phase(half, 8, 8)
        assert (phase[mirrored] == torch.pi).all()
        # Elsewhere the sign is information.
        assert phase[1, 1] == (torch.pi if str(zero) == "0.0" else -torch.pi)


def test_phases_of_rounding_have_no_gradient_and_others_the_true_one():
    x = draw(8, 8).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: _phase(spectrum(x), 8, 8)[1:4], x)
    half = spectrum(torch.ones(8, 8)).clone()
    half[1, 1], half[2, 1] = 1e-24 + 1e-24j, 1 + 1j
    half.requires_grad_()
    phase = _phase(half, 8, 8)
    torch.testing.assert_close(phase[1, 1].item(), torch.pi / 4)
    phase.sum().backward()
    assert half.grad[1, 1] == 0 and half.grad.isfinite().all() and half.grad[2, 1] != 0


@pytest.mark.parametrize(
    ("height", "width", "tall", "wide"), [(128, 128, 85, 85), (64, 97, 42, 64), (65, 200, 43, 133)]
)
def test_windows_are_two_thirds_at_either_end(height, width, tall, wide):
    seen = []

    class Tell(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value = value

        def forward(self, x):
            seen.append((x.shape[-2:], x[0, 0, 0, 0].item()))
            return torch.full_like(x, self.value)

    windows = _Windowed(1)
    for i in range(4):
        windows[i] = Tell(10.0**i)
    places = torch.arange(height * width, dtype=torch.float64).view(1, 1, height, width)
    merged = windows(places)[0, 0]
    top, left = height - tall, width - wide
    assert [shape for shape, _ in seen] == [(tall, wide)] * 4
    assert [corner for _, corner in seen] == [0, left, top * width, top * width + left]
    # Alone, in pairs, and all four where all overlap.
    assert merged[0, 0] == 1 and merged[0, -1] == 10
    assert merged[-1, 0] == 100 and merged[-1, -1] == 1000
    assert merged[0, left] == merged[0, wide - 1] == 5.5 and merged[0, left - 1] == 1
    assert merged[0, wide] == 10 and merged[tall - 1, 0] == 50.5 and merged[tall, 0] == 100
    assert merged[top, left] == merged[tall - 1, wide - 1] == 1111 / 4


def test_joined_windows_of_one_image_are_the_image():
    x = draw(1, 2, 30, 50)
    assert torch.equal(_joined(x[..., :33], x[..., 17:], 50, -1), x)


def test_hfin_interpolates_ms_by_its_corners_and_ignores_lms():
    torch.manual_seed(0)
    network = HFIN(4).network.double()
    nn.init.zeros_(network.refine.last.weight)
    nn.init.zeros_(network.refine.last.bias)
    ms, pan = draw(1, 4, 17, 20), draw(1, 1, 68, 80, seed=1)
    fused = network(ms, pan, draw(1, 4, 68, 80, seed=2))
    corners = (..., slice(None, None, 67), slice(None, None, 79))
    torch.testing.assert_close(fused[corners], ms[..., ::16, ::19])


@pytest.mark.parametrize("value", [0.0, 0.3])
@pytest.mark.parametrize("method", [lambda: Fourmer(4, FourmerConfig(8)), lambda: HFIN(4)])
def test_flat_images_have_finite_gradients(method, value):
    """Amplitudes of nothing, angles of nothing, deviations of nothing."""
    given = [torch.full((1, c, n, n), value) for c, n in ((4, 16), (1, 64), (4, 64))]
    for seed in range(2):
        torch.manual_seed(seed)
        network = method().network
        network(*given).square().mean().backward()
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        assert gradients and all(gradient.abs().max() < 1e3 for gradient in gradients)


# --- couplings ------------------------------------------------------------------------------


class TestInvertibleMix:
    def test_it_starts_as_a_rotation(self):
        torch.manual_seed(0)
        matrix = InvertibleMix(12).matrix()
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(12), atol=1e-5, rtol=0)
        assert (matrix - torch.eye(12)).abs().max() > 0.1

    def test_what_is_masked_has_no_effect(self):
        torch.manual_seed(0)
        mix = InvertibleMix(6)
        x = draw(1, 6, 5, 7, dtype=torch.float32)
        before = mix(x)
        with torch.no_grad():
            mix.lower += torch.ones(6, 6).triu()
            mix.upper += torch.ones(6, 6).tril()
        assert torch.equal(mix(x), before)
        with torch.no_grad():
            mix.log_scale += 1
        assert not torch.allclose(mix(x), before)

    def test_a_seed_gives_it_whatever_the_device(self):
        torch.manual_seed(3)
        mix, after = InvertibleMix(4), torch.rand(1)
        torch.manual_seed(3)
        with torch.device("meta"):
            other = InvertibleMix(4)
        assert {b.device.type for b in other.state_dict().values()} == {"meta"}
        assert torch.equal(torch.rand(1), after)
        assert mix.matrix().isfinite().all()


@pytest.mark.parametrize("mix", [False, True])
def test_coupling_can_be_undone(mix):
    torch.manual_seed(0)
    coupling = Coupling(3, 5, lambda i, o: ConvUnit(i, o, norm=False), mix).double()
    x = draw(1, 8, 9, 9)
    first, second = coupling(x).split([3, 5], 1)
    factor = torch.exp(0.8 * (2 * torch.sigmoid(coupling.scale_second(first)) - 1))
    second = (second - coupling.shift_second(first)) / factor
    undone = torch.cat([first - coupling.shift_first(second), second], 1)
    if mix:
        undone = torch.einsum("oc,bchw->bohw", coupling.mix.matrix().inverse(), undone)
    torch.testing.assert_close(undone, x)


def test_half_of_the_channels_is_normalised_by_image():
    torch.manual_seed(0)
    unit = ConvUnit(2, 6, norm=True).double().eval()
    seen = []
    unit.conv2.register_forward_pre_hook(lambda _m, given: seen.append(given[0].clone()))
    x = draw(2, 2, 16, 16)
    for bright in (x, x * torch.tensor([1.0, 7.0]).view(2, 1, 1, 1).double()):
        unit(bright)
    one, other = seen
    assert torch.equal(one[0], other[0])  # no image sees its neighbour
    # Seven times the contrast is taken out of the normalised half, but for the bias.
    nn.init.zeros_(unit.conv1.bias)
    seen.clear()
    unit(x), unit(7 * x)
    torch.testing.assert_close(seen[0][:, :3], seen[1][:, :3], atol=1e-3, rtol=0)
    torch.testing.assert_close(7 * seen[0][:, 3:], seen[1][:, 3:])


# --- HOIF -----------------------------------------------------------------------------------


def test_central_difference_is_two_convolutions_less_their_centres():
    torch.manual_seed(0)
    layer = _CentralDifference(2).double()
    nn.init.constant_(layer.balance, 0.7)
    x = draw(1, 2, 9, 11)
    expected = x.clone()
    share = torch.sigmoid(torch.tensor(0.7, dtype=torch.float64))
    for taps, places, weight in (
        (layer.cross, [1, 3, 4, 5, 7], share),
        (layer.diagonal, [0, 2, 4, 6, 8], 1 - share),
    ):
        kernel = torch.zeros(2, 2, 9, dtype=torch.float64)
        kernel[..., places] = taps[:, :, 0]
        around = nn.functional.conv2d(x, kernel.view(2, 2, 3, 3), padding=1)
        centre = nn.functional.conv2d(x, kernel.sum(-1)[..., None, None])
        expected += weight * (around - 0.8 * centre)
    torch.testing.assert_close(layer(x), expected)


def test_pixel_norm_is_layer_norm_over_channels():
    norm = _PixelNorm(6).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = draw(2, 6, 5, 4)
    expected = nn.functional.layer_norm(x.movedim(1, -1), (6,), norm.weight, norm.bias, 1e-5)
    torch.testing.assert_close(norm(x), expected.movedim(-1, 1))


@pytest.mark.parametrize("method", [Fourmer, HFIN, HOIF])
def test_renaming_leaves_our_own_names_alone(method):
    with torch.device("meta"):
        built = method(4)
    state = built.network.state_dict()
    assert built.published(copy.copy(state)).keys() == state.keys()
