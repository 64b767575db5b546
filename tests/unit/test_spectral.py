"""The spectral convolution: forms against each other, peers and closed forms."""

from __future__ import annotations

import copy
import math
import pickle
import threading

import pytest
import torch

from backbones.contract import LowRank
from backbones.layers.spectral import FORMS, SpectralConv2d, choose_form, spectral_form

SIZES = [  # height, width, modes: even, odd, not square, every row with the Nyquist one, m = 1
    (32, 40, 12),
    (25, 27, 12),
    (33, 26, 5),
    (24, 24, 12),
    (24, 31, 12),
    (16, 16, 1),
]
EXECUTED = [("fft", False), ("dft", False), ("dft", True)]  # form, channels_last


def make(height, width, modes, rank=0, dtype=torch.float64):
    """A convolution 3 -> 5 with unit-normal weights, and all that ``forward`` takes."""
    torch.manual_seed(0)
    conv = SpectralConv2d(3, 5, modes).to(dtype)
    torch.nn.init.normal_(conv.weight)
    x = torch.randn(2, 3, height, width, dtype=dtype)
    base = torch.randn(2, 5, height, width, dtype=dtype)
    low_rank = None
    if rank:
        shapes = (rank, 3), (2 * modes**2, rank, 10), (2, rank)
        low_rank = LowRank(*(torch.randn(s, dtype=dtype) for s in shapes))
    return conv, x, low_rank, base


def outputs(conv, x, low_rank, base, form, channels_last=False):
    """Result and gradients of everything for a random cotangent."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x, base = (t.contiguous(memory_format=layout).requires_grad_() for t in (x, base))
    leaves = [x, base, conv.weight]
    if low_rank is not None:
        low_rank = LowRank(*(factor.clone().requires_grad_() for factor in low_rank))
        leaves += low_rank
    with spectral_form(conv, form):
        y = conv(x, low_rank, base)
    cotangent = torch.randn(y.shape, generator=torch.Generator().manual_seed(5), dtype=y.dtype)
    return [y.detach(), *torch.autograd.grad(y, leaves, cotangent)]


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("form", "channels_last"), EXECUTED)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
def test_forms_agree_forward_and_backward(size, rank, form, channels_last, dtype, bound):
    problem = make(*size, rank=rank, dtype=dtype)
    expected = outputs(*problem, "textbook")
    for got, want in zip(outputs(*problem, form, channels_last), expected, strict=True):
        # Gradients of A and the gate are a few numbers, each a cancelling sum over every mode.
        assert relative(got, want) < (bound if want.numel() > 10 else 5 * bound)


@pytest.mark.parametrize("form", ["textbook", "fft", "dft"])
@pytest.mark.parametrize("size", [(32, 40, 12), (26, 33, 5), (24, 24, 12), (24, 31, 12)], ids=str)
def test_agrees_with_neuraloperator(size, form):
    peer = pytest.importorskip("neuralop.layers.spectral_convolution").SpectralConv
    height, width, modes = size
    conv, x, _, _ = make(height, width, modes, dtype=torch.float32)
    # Even heights only: at odd ones version 2.0.0 undoes its fftshift with another fftshift.
    # Rows 2m and columns n // 2 + 1 = m: the same kept set, the rows in the order of fftshift.
    other = peer(3, 5, (2 * modes, 2 * modes - 2), bias=False, fft_norm="backward")
    weight = torch.complex(*conv.weight.detach().chunk(2, dim=-1)).unflatten(0, (2 * modes, modes))
    with torch.no_grad():
        other.weight.tensor.copy_(weight.roll(modes, dims=0).permute(2, 3, 0, 1))
    x.requires_grad_()
    cotangent = torch.randn(2, 5, height, width)
    expected = other(x)
    parameters = list(other.parameters())
    grad_x, grad_weight = torch.autograd.grad(expected, [x, *parameters], cotangent)
    with spectral_form(conv, form):
        got = conv(x)
    got_x, got_weight = torch.autograd.grad(got, [x, conv.weight], cotangent)
    got_weight = torch.complex(*got_weight.chunk(2, dim=-1)).unflatten(0, (2 * modes, modes))
    assert relative(got, expected) < 1e-6
    assert relative(got_x, grad_x) < 1e-6
    assert relative(got_weight.roll(modes, dims=0).permute(2, 3, 0, 1), grad_weight) < 1e-6


@pytest.mark.parametrize("form", ["textbook", "fft", "dft"])
@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 3), (2, 0), (-1, 2), (-8, 1), (7, 7)])
def test_a_plane_wave_is_scaled_by_the_weight_of_its_mode(form, row, column):
    """cos(a) becomes |w| cos(a + arg w) where the mode and its mirror image are both free."""
    size, modes = 16, 8
    conv = SpectralConv2d(1, 1, modes).double()
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    angle = 2 * math.pi * (row * y + column * x).double() / size
    index = (row % (2 * modes)) * modes + column
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[index, 0] = torch.tensor([0.6, 0.8], dtype=torch.float64)
    with spectral_form(conv, form), torch.no_grad():
        got = conv(angle.cos()[None, None])[0, 0]
    if column > 0:
        expected = 0.6 * angle.cos() - 0.8 * angle.sin()
    elif row % (size // 2) == 0:
        expected = 0.6 * angle.cos()  # its own mirror image: the imaginary part has no effect
    else:
        # Column 0 holds the mirror image too, here with weight 0: half the wave is lost.
        expected = 0.5 * (0.6 * angle.cos() - 0.8 * angle.sin())
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("form", ["textbook", "fft", "dft"])
def test_modes_outside_the_kept_set_are_removed(form):
    conv, *_ = make(16, 16, 4)
    y, x = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    for row, column in [(5, 0), (4, 1), (0, 4), (-5, 1), (3, 8)]:
        wave = (2 * math.pi * (row * y + column * x).double() / 16).cos().expand(1, 3, -1, -1)
        with spectral_form(conv, form):
            assert conv(wave).abs().max() < 1e-13


@pytest.mark.parametrize("form", ["textbook", "fft", "dft"])
def test_low_rank_equals_the_weight_it_stands_for(form):
    conv, x, low_rank, _ = make(20, 18, 6, rank=2)
    gate = low_rank.gate[:1].expand(2, -1)
    with spectral_form(conv, form), torch.no_grad():
        got = conv(x, low_rank._replace(gate=gate))
        conv.weight += (low_rank.down.t() * gate[0]) @ low_rank.up
        torch.testing.assert_close(got, conv(x), rtol=1e-12, atol=1e-12)


def test_low_rank_gate_belongs_to_its_sample():
    conv, x, low_rank, _ = make(20, 18, 6, rank=2)
    closed = low_rank._replace(gate=low_rank.gate * torch.tensor([[0.0], [1.0]]))
    with torch.no_grad():
        torch.testing.assert_close(conv(x, closed)[0], conv(x)[0])
        torch.testing.assert_close(conv(x, closed)[1], conv(x, low_rank)[1])


def test_gradients_and_second_gradients_are_right():
    conv, x, low_rank, base = make(7, 8, 3, rank=2)
    x, base = x[:, :, :7].requires_grad_(), base.requires_grad_()

    def run(x, base, weight, *factors):
        return torch.func.functional_call(conv, {"weight": weight}, (x, LowRank(*factors), base))

    inputs = (x, base, conv.weight, *(factor.requires_grad_() for factor in low_rank))
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


@pytest.mark.parametrize(("height", "width"), [(22, 64), (64, 23), (8, 8)])
def test_too_many_modes_for_the_size_is_one_clear_line(height, width):
    conv = SpectralConv2d(1, 1, 12)
    largest = min(height, width) // 2
    with pytest.raises(ValueError, match=f"^12 modes do not fit {height}x{width}.*{largest}") as e:
        conv(torch.zeros(1, 1, height, width))
    assert "\n" not in str(e.value)


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="'dtf' - did you mean 'dft'"):
        SpectralConv2d(1, 1, 2, form="dtf")
    with pytest.raises(ValueError, match="at least 1, got 0"):
        SpectralConv2d(1, 1, 0)


def test_auto_is_one_of_the_fast_forms():
    for size in (16, 64, 512):
        assert choose_form(size, size, size // 4, torch.device("cpu")) in {"fft", "dft"}
    assert "auto" in FORMS


def test_spectral_form_restores_what_was_set():
    conv = SpectralConv2d(1, 1, 2, form="fft")
    with pytest.raises(RuntimeError, match="inside"), spectral_form(conv, "textbook"):
        assert conv.form == "textbook"
        raise RuntimeError("inside")
    assert conv.form == "fft"


def test_matrices_first_built_in_inference_mode_serve_training():
    conv, x, _, _ = make(38, 34, 3)  # a size no other test has built matrices for
    with torch.inference_mode():
        conv(x)
    conv(x.requires_grad_()).sum().backward()
    assert x.grad.isfinite().all()


def test_survives_copy_pickle_and_moves():
    conv, x, _, _ = make(18, 20, 4)
    with torch.no_grad():
        expected = conv(x)
        assert list(conv.state_dict()) == ["weight"]
        for twin in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):
            assert torch.equal(twin(x), expected)
        single = conv.float()(x.float())
        assert single.dtype == torch.float32
        assert relative(single.double(), expected) < 1e-6
        assert conv.to("meta")(x.to("meta").float()).shape == expected.shape


def test_two_threads_may_share_one_module():
    conv, *_ = make(16, 16, 4)
    images = [torch.randn(1, 3, 20 + 2 * i, 22, dtype=torch.float64) for i in range(8)]
    with torch.no_grad():
        with spectral_form(conv, "textbook"):
            expected = [conv(image) for image in images]
        results = [[None] * len(images) for _ in range(2)]

        def work(out):
            for i, image in enumerate(images):
                with torch.no_grad():
                    out[i] = conv(image)

        threads = [threading.Thread(target=work, args=(out,)) for out in results]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for out in results:
        for got, want in zip(out, expected, strict=True):
            torch.testing.assert_close(got, want)


def test_half_precision_is_computed_in_single():
    conv, x, _, base = make(24, 24, 6, dtype=torch.float32)
    x, base = x.bfloat16(), base.bfloat16()
    with torch.no_grad():
        exact = conv(x.float(), base=base.float())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = conv(x, base=base)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got, exact.bfloat16())


@pytest.mark.slow
def test_compiles_and_follows_a_change_of_size(compiler):
    conv, *_ = make(16, 16, 4, dtype=torch.float32)
    compiled = torch.compile(conv, fullgraph=True)
    for height, width, batch in [(16, 16, 2), (20, 24, 2), (16, 16, 3)]:
        x = torch.randn(batch, 3, height, width, requires_grad=True)
        (got,) = torch.autograd.grad(compiled(x).square().sum(), x)
        (expected,) = torch.autograd.grad(conv(x).square().sum(), x)
        assert relative(got, expected) < 1e-5


def test_autocast_leaves_the_spectral_part_in_single_precision():
    conv, x, low_rank, _ = make(24, 24, 6, rank=2, dtype=torch.float32)
    with torch.no_grad():
        exact = conv(x, low_rank)
        for form in ("textbook", "fft", "dft"):
            with spectral_form(conv, form), torch.autocast("cpu", dtype=torch.bfloat16):
                got = conv(x, low_rank)
            assert got.dtype == torch.float32
            assert relative(got, exact) < 1e-6


def test_training_under_autocast_gives_single_precision_gradients():
    conv, x, _, _ = make(24, 24, 6, dtype=torch.float32)
    mix = torch.nn.Conv2d(3, 3, 1)

    def gradients():
        y = conv(mix(x)).square().mean()
        return torch.autograd.grad(y, [conv.weight, mix.weight])

    exact = gradients()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = gradients()
    for got, want in zip(mixed, exact, strict=True):
        assert got.dtype == torch.float32
        assert 0 < relative(got, want) < 0.02  # the 1x1 convolution alone is rounded
