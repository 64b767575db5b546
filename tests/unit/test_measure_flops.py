"""The FLOP counter against closed forms and hand counts; never against itself."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor, library, nn
from torch.nn import functional as F

from backbones.layers.spectral import SpectralConv2d
from bench.measure import (
    STOCK_COUNTERS,
    FlopCounter,
    UnknownOperatorError,
    Workload,
    count_flops,
    image_flops,
    register_formula,
    stock_flops,
)
from bench.measure.flops import FORMULAS


class TextbookFno(nn.Module):
    """conv3x3 16->C, 8 x gelu(spectral + 1x1), conv3x3 C->8; 12 modes; no time embedding."""

    def __init__(self, width: int):
        super().__init__()
        self.stem = nn.Conv2d(16, width, 3, padding=1)
        self.spectral = nn.ParameterList(
            torch.rand(width, width, 24, 12, dtype=torch.complex64) for _ in range(8)
        )
        self.pointwise = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(8))
        self.head = nn.Conv2d(width, 8, 3, padding=1)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        rows = [*range(12), *range(-12, 0)]
        f = self.stem(torch.cat([x, cond], 1))
        for weight, pointwise in zip(self.spectral, self.pointwise, strict=True):
            spectrum = torch.fft.rfft2(f)
            out = torch.zeros_like(spectrum)
            mixed = torch.einsum("bixy,ioxy->boxy", spectrum[:, :, rows, :12], weight)
            out[:, :, rows, :12] = mixed
            f = F.gelu(torch.fft.irfft2(out, s=f.shape[-2:]) + pointwise(f))
        return self.head(f)


class SpectralFno(nn.Module):
    """The same network on the repository's own spectral layer."""

    def __init__(self, width: int, form: str):
        super().__init__()
        self.stem = nn.Conv2d(16, width, 3, padding=1)
        self.spectral = nn.ModuleList(SpectralConv2d(width, width, 12, form) for _ in range(8))
        self.pointwise = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(8))
        self.head = nn.Conv2d(width, 8, 3, padding=1)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        f = self.stem(torch.cat([x, cond], 1))
        for spectral, pointwise in zip(self.spectral, self.pointwise, strict=True):
            f = F.gelu(spectral(f) + pointwise(f))
        return self.head(f)


def textbook_workload(width: int) -> Workload:
    net, x = TextbookFno(width), torch.rand(1, 8, 64, 64)
    return Workload(step=lambda: net(x, x), module=net, inputs=(x, x))


IMAGE = torch.rand(1, 8, 64, 64)

# MFLOP by hand, C = 32: rfft2 and irfft2 8 * 32 * 2.5 * 4096 * 12 = 31.457 each; mixing
# 8 * 288 * 32 * 32 * 8 = 18.874; 1x1 8 * 2 * 32 * 32 * 4096 = 67.109; stem 37.749; head 18.874.
HAND = {32: 205_520_896, 64: 583_008_256}
# Backward: rfft2 by a complex transform (2 x), irfft2 by rfft2 (1 x), products 2 x, stem's weight
# gradient alone.
HAND_TRAIN = {32: 547_356_672, 64: 1_610_612_736}


@pytest.mark.parametrize("width", [32, 64])
def test_textbook_fno_matches_the_hand_count(width: int) -> None:
    report = count_flops(TextbookFno(width), IMAGE, IMAGE)
    assert report.canonical == report.executed == HAND[width]
    assert report.backward == (0, 0)


@pytest.mark.parametrize("width", [32, 64])
def test_textbook_fno_backward_matches_the_hand_count(width: int) -> None:
    report = count_flops(TextbookFno(width), IMAGE, IMAGE, backward=True)
    assert report.canonical == HAND_TRAIN[width]
    assert report.forward.canonical == HAND[width]


@pytest.mark.parametrize("form", ["textbook", "fft", "dft", "auto"])
def test_canonical_count_does_not_depend_on_the_form_that_runs(form: str) -> None:
    net = SpectralFno(32, form)
    report = count_flops(net, IMAGE, IMAGE, backward=True)
    assert report.canonical == HAND_TRAIN[32]
    assert report.forward.canonical == HAND[32]
    assert (report.executed == report.canonical) == (form == "textbook")
    assert {layer.form for layer in net.spectral} == {form}


def test_executed_count_of_pruned_transforms() -> None:
    layer = SpectralConv2d(2, 2, 4, "fft")
    report = count_flops(layer, torch.rand(1, 2, 16, 16))
    # Each way and channel: 16 real rows of 16 points, 4 complex columns of 16 points; 32 modes.
    assert report.executed == 4 * (16 * 2.5 * 16 * 4 + 4 * 5 * 16 * 4) + 32 * 4 * 8
    assert report.canonical == 4 * 2.5 * 256 * 8 + 32 * 4 * 8


def test_three_dimensional_batches_scale_and_sizes_need_not_be_powers_of_two() -> None:
    one = count_flops(torch.fft.rfft2, torch.rand(1, 24, 40)).executed
    assert one == round(2.5 * 960 * 9.906890595608518)  # log2(960)
    assert count_flops(torch.fft.rfft2, torch.rand(3, 24, 40)).executed == pytest.approx(
        3 * one, abs=2
    )


CLOSED_FORMS = {
    "conv2d": (F.conv2d, [(2, 6, 10, 10), (12, 6, 3, 3)], 2 * 2 * 8 * 8 * 12 * 6 * 9),
    "grouped strided conv2d": (
        functools.partial(F.conv2d, stride=2, groups=3),
        [(1, 6, 9, 9), (12, 2, 3, 3)],
        2 * 4 * 4 * 12 * 2 * 9,
    ),
    "transposed conv2d": (
        functools.partial(F.conv_transpose2d, stride=2),
        [(1, 6, 5, 5), (6, 4, 2, 2)],
        2 * 25 * 6 * 4 * 4,
    ),
    "conv1d": (F.conv1d, [(1, 3, 10), (5, 3, 3)], 2 * 8 * 5 * 9),
    "linear": (F.linear, [(4, 7, 16), (32, 16), (32,)], 2 * 28 * 16 * 32),
    "matrix times vector": (torch.mv, [(5, 7), (7,)], 70),
    "broadcast matmul": (torch.matmul, [(24, 64), (26, 64, 32)], 2 * 26 * 24 * 64 * 32),
    "baddbmm": (torch.baddbmm, [(3, 4, 6), (3, 4, 5), (3, 5, 6)], 2 * 3 * 4 * 5 * 6),
    "rfft": (torch.fft.rfft, [(3, 64)], 3 * 2.5 * 64 * 6),
    "fft2 of real": (torch.fft.fft2, [(3, 16, 16)], 3 * 5 * 256 * 8),
    "elementwise, norms, reductions": (
        lambda x, w: F.softmax(F.layer_norm(F.gelu(x) * 2 + x, (8,), w), -1).mean(),
        [(4, 8), (8,)],
        0,
    ),
}


@pytest.mark.parametrize("case", CLOSED_FORMS)
def test_closed_forms(case: str) -> None:
    call, shapes, flops = CLOSED_FORMS[case]
    assert count_flops(call, *(torch.rand(shape) for shape in shapes)).executed == flops


COMPLEX_FORMS = {
    "bmm": (torch.bmm, [(5, 4, 3), (5, 3, 7)], 8 * 5 * 4 * 3 * 7),
    "einsum": (
        functools.partial(torch.einsum, "bim,iom->bom"),
        [(2, 3, 11), (3, 4, 11)],
        8 * 2 * 3 * 4 * 11,
    ),
    "product": (torch.mul, [(5, 4), (5, 4)], 6 * 20),
    "multiply and add": (torch.addcmul, [(5, 4), (5, 4), (4,)], 8 * 20),
    "ifft": (torch.fft.ifft, [(3, 64)], 3 * 5 * 64 * 6),
    "irfft2": (torch.fft.irfft2, [(3, 16, 9)], 3 * 2.5 * 256 * 8),
    "dot": (torch.vdot, [(9,), (9,)], 72),
}


@pytest.mark.parametrize("case", COMPLEX_FORMS)
def test_complex_closed_forms(case: str) -> None:
    call, shapes, flops = COMPLEX_FORMS[case]
    inputs = (torch.rand(shape, dtype=torch.complex64) for shape in shapes)
    assert count_flops(call, *inputs).executed == flops


COMPLEX_CONVOLUTIONS = {
    "conv1d": (nn.Conv1d(2, 6, 3, dtype=torch.cfloat), (3, 2, 9), 3 * 7 * 6 * 2 * 3),
    "grouped": (nn.Conv2d(4, 6, 3, 2, groups=2, dtype=torch.cfloat), (1, 4, 7, 7), 9 * 6 * 2 * 9),
    "one image": (nn.Conv2d(2, 5, 3, padding=1, dtype=torch.cfloat), (2, 4, 6), 24 * 5 * 2 * 9),
    "conv3d": (nn.Conv3d(2, 3, 2, bias=False, dtype=torch.cfloat), (1, 2, 3, 3, 3), 8 * 6 * 8),
    "transposed": (nn.ConvTranspose2d(3, 2, 2, 2, dtype=torch.cfloat), (2, 3, 5, 4), 40 * 6 * 4),
    "circular": (
        nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular", dtype=torch.cfloat),
        (1, 2, 5, 5),
        25 * 4 * 9,
    ),
}


@pytest.mark.parametrize("case", COMPLEX_CONVOLUTIONS)
def test_a_complex_convolution_is_eight_a_product_forward_and_backward(case: str) -> None:
    net, shape, products = COMPLEX_CONVOLUTIONS[case]
    x = torch.rand(shape, dtype=torch.cfloat, requires_grad=True)
    report = count_flops(net, x, backward=True)
    assert report.forward == (8 * products, 8 * products)
    assert report.backward.executed == 2 * 8 * products


def test_counting_a_complex_convolution_does_not_change_what_it_gives() -> None:
    for net, shape, _ in COMPLEX_CONVOLUTIONS.values():
        x = torch.rand(shape, dtype=torch.cfloat)
        with torch.no_grad(), FlopCounter(net):
            counted = net(x)
        torch.testing.assert_close(counted, net(x).detach())


OUT_VARIANTS = {
    "mm": (torch.mm, [(3, 4), (4, 5)], 120),
    "addmm": (torch.addmm, [(5,), (3, 4), (4, 5)], 120),
    "bmm": (torch.bmm, [(2, 3, 4), (2, 4, 5)], 240),
    "baddbmm": (torch.baddbmm, [(2, 3, 5), (2, 3, 4), (2, 4, 5)], 240),
    "mv": (torch.mv, [(3, 4), (4,)], 24),
    "matmul": (torch.matmul, [(2, 3, 4), (4, 5)], 240),
    "rfft2": (torch.fft.rfft2, [(4, 4)], 2.5 * 16 * 4),
    "divide": (torch.div, [(4, 4), (4, 4)], 0),
}


@pytest.mark.parametrize("case", OUT_VARIANTS)
def test_where_the_result_goes_changes_no_count(case: str) -> None:
    call, shapes, flops = OUT_VARIANTS[case]
    inputs = [torch.rand(shape) for shape in shapes]
    out = torch.empty_like(call(*inputs))
    assert count_flops(call, *inputs, out=out).executed == flops
    assert count_flops(call, *inputs).executed == flops


@pytest.mark.parametrize(
    "normed", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm]
)
def test_spectral_norm_is_its_products(normed) -> None:
    net = normed(nn.Linear(6, 4))
    layer, sigma = 2 * 3 * 6 * 4, 2 * 4 * 6 + 2 * 4
    assert count_flops(net.eval(), torch.rand(3, 6)).executed == layer + sigma
    # Training: one power iteration more, a product with the weight and one with its transpose.
    assert count_flops(net.train(), torch.rand(3, 6)).executed == layer + sigma + 2 * 2 * 4 * 6


class Scripted(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 8)
        body = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 2))
        self.body = torch.jit.script(body)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.first(x))


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_scripted_modules_and_functions_are_counted(device: str) -> None:
    net, x = Scripted(), torch.rand(3, 4)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    report = count_flops(net, x, backward=True, device=device)
    assert report.forward.executed == 2 * 3 * (32 + 64 + 16)
    assert report.backward.executed == 2 * 3 * (32 + 2 * 64 + 2 * 16)
    assert report.by_module["Scripted.first"].executed == 2 * 2 * 3 * 32
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None and p.device.type == "cpu" for p in net.parameters())
    product = torch.jit.trace(lambda a, b: a @ b, (x, x.mT))
    assert count_flops(product, x, x.mT, device=device).executed == 2 * 9 * 4


def test_what_a_script_hides_is_refused() -> None:
    net = torch.jit.script(nn.Conv2d(2, 2, 1, dtype=torch.cfloat))
    with pytest.raises(UnknownOperatorError, match="scripted"):
        count_flops(net, torch.rand(1, 2, 4, 4, dtype=torch.cfloat))


def attend(x: Tensor) -> Tensor:
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention(x, x, x)


def branch(x: Tensor) -> Tensor:
    return torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,))


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize(
    ("call", "name"), [(attend, "flex_attention"), (branch, "cond"), (torch.linalg.eigvals, "eig")]
)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_counted_is_one_line_with_its_name(call, name: str, device: str) -> None:
    with pytest.raises(UnknownOperatorError, match=name) as caught:
        count_flops(call, torch.rand(1, 2, 16, 16), device=device)
    assert len(str(caught.value).splitlines()) == 1


def test_what_needs_values_says_to_count_on_a_real_device() -> None:
    for call in (torch.nonzero, lambda x: x * x.sum().item()):
        with pytest.raises(UnknownOperatorError, match="device='cpu'"):
            count_flops(call, torch.rand(3))
        assert count_flops(call, torch.rand(3), device="cpu").executed == 0


def test_a_formula_that_fails_is_one_line_with_the_operators_name(monkeypatch) -> None:
    monkeypatch.setitem(FORMULAS, "mm", lambda out, a: 0)
    with pytest.raises(UnknownOperatorError, match="'mm'"):
        count_flops(torch.mm, torch.rand(2, 2), torch.rand(2, 2))


def test_composites_in_inference_mode_leave_the_modules_counted() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Conv1d(3, 3, 1), nn.Linear(4, 4))
    with torch.inference_mode():
        report = count_flops(net, torch.rand(2, 3, 4))
    executed = {name: flops.executed for name, flops in report.by_module.items()}
    assert executed == {
        "Sequential": 2 * 192 + 144, "Sequential.0": 192, "Sequential.1": 144, "Sequential.2": 192,
    }  # fmt: skip


def test_complex_times_real_is_scaling_and_free() -> None:
    z, x = torch.rand(4, dtype=torch.complex64), torch.rand(4)
    assert count_flops(torch.mul, z, x).executed == 0


def test_grouped_convolution_backward_costs_twice_its_forward() -> None:
    net = nn.Conv2d(6, 12, 3, groups=3, stride=2)
    x = torch.rand(1, 6, 9, 9, requires_grad=True)
    report = count_flops(net, x, backward=True)
    assert report.forward.executed == 2 * 16 * 12 * 2 * 9
    assert report.backward.executed == 2 * report.forward.executed


def test_frozen_parameters_and_inputs_have_no_gradient_to_count() -> None:
    net = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4))
    net[0].requires_grad_(False)
    report = count_flops(net, torch.rand(3, 8), backward=True)
    assert report.backward.executed == 2 * 3 * 16 * 4  # the second layer's weight, nothing else


@pytest.mark.parametrize(
    "device",
    ["meta", "cpu", pytest.param("cuda", marks=pytest.mark.gpu)],
)
def test_attention_counts_the_same_fused_or_not(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    query = torch.rand(2, 4, 64, 16, requires_grad=True)
    key, value = (torch.rand(2, 4, 48, 16, requires_grad=True) for _ in range(2))
    report = count_flops(
        F.scaled_dot_product_attention, query, key, value, backward=True, device=device
    )
    assert report.forward.executed == 2 * 2 * (2 * 4 * 64 * 48 * 16)
    assert report.backward.executed == 4 * 2 * (2 * 4 * 64 * 48 * 16)


def test_transformer_fast_path_does_not_hide_its_products() -> None:
    net = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True).eval()
    tokens, width = 2 * 10, 32
    projections = 2 * tokens * (4 * width * width + 2 * width * 64)
    attention = 2 * 2 * tokens * 10 * width
    with torch.inference_mode():
        report = count_flops(net, torch.rand(2, 10, 32))
    assert report.executed == projections + attention
    assert torch.backends.mha.get_fastpath_enabled()


@library.custom_op("nodiff_test::mystery", mutates_args=())
def mystery(x: Tensor) -> Tensor:
    return x.clone()


@mystery.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Planted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return mystery(F.gelu(x))


def test_a_planted_unknown_operator_stops_the_count_by_name(monkeypatch) -> None:
    with pytest.raises(UnknownOperatorError, match=r"nodiff_test::mystery") as caught:
        count_flops(Planted(), torch.rand(3, 4))
    assert caught.value.operator == "nodiff_test::mystery"
    monkeypatch.setattr("bench.measure.flops.FORMULAS", formulas := {})
    register_formula("nodiff_test::mystery")(lambda out, x: 7 * x.numel())
    assert formulas
    assert count_flops(Planted(), torch.rand(3, 4)).executed == 84


@pytest.mark.parametrize(
    ("call", "name"),
    [(torch.linalg.inv, "linalg_inv_ex"), (torch.linalg.eigvalsh, "_linalg_eigh")],
)
def test_factorisations_are_refused(call, name: str) -> None:
    with pytest.raises(UnknownOperatorError, match=name):
        count_flops(call, torch.eye(4))


def test_by_module_attributes_forward_and_backward() -> None:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Linear(4, 8)
            self.body = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8))
            self.time = nn.Linear(1, 8)

        def forward(self, x, t):
            return self.body(self.stem(x) + self.time(t))

    report = count_flops(Net(), torch.rand(3, 4), torch.rand(3, 1), backward=True)
    executed = {name: flops.executed for name, flops in report.by_module.items()}
    hidden = 2 * 3 * 8 * 8
    assert executed == {
        "Net": 2 * 192 + 6 * hidden + 2 * 48,  # first layers have no input gradient
        "Net.stem": 2 * 192,
        "Net.body": 6 * hidden,
        "Net.body.0": 3 * hidden,
        "Net.body.2": 3 * hidden,
        "Net.time": 2 * 48,
    }
    assert sum(flops.executed for flops in report.by_operator.values()) == report.executed
    assert [row["module"] for row in report.table(depth=1)] == [
        "Net",
        "Net.stem",
        "Net.body",
        "Net.time",
    ]
    assert report.table()[0]["share"] == 1.0


def test_recomputed_activations_are_part_of_the_backward_pass() -> None:
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))

    def checkpointed(net: nn.Module, x: Tensor) -> Tensor:
        return torch.utils.checkpoint.checkpoint(net, x, use_reentrant=False)

    report = count_flops(checkpointed, net, torch.rand(2, 8), backward=True)
    assert report.forward.executed == 512
    # The first layer again (the second's input is then known), then three products of 256.
    assert report.backward.executed == 4 * 256
    assert report.by_module["Sequential.0"].executed == 3 * 256
    assert report.by_module["Sequential.1"].executed == 3 * 256


def test_what_is_handed_in_is_not_touched() -> None:
    net = SpectralFno(8, "dft")
    x = torch.rand(1, 8, 32, 32, requires_grad=True)
    weight = net.stem.weight.detach().clone()
    count_flops(net, x, x, backward=True)
    assert x.grad is None
    assert all(p.grad is None and p.device.type == "cpu" for p in net.parameters())
    assert torch.equal(net.stem.weight, weight)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    with torch.no_grad():
        net(x, x)  # the layer's cached matrices are still real


def test_objects_methods_and_partials_that_hold_tensors() -> None:
    class Adapter:
        def __init__(self):
            self.feature, self.net = torch.rand(2, 4), nn.Linear(4, 4)

        def guide(self, x):
            return self.net(x + self.feature)

    adapter = Adapter()
    assert count_flops(adapter.guide, torch.rand(2, 4)).executed == 64
    assert count_flops(functools.partial(adapter.guide, torch.rand(2, 4))).executed == 64
    assert count_flops(lambda a, x: a.guide(x), adapter, torch.rand(2, 4)).executed == 64


def test_a_closure_over_a_module_is_refused_not_miscounted() -> None:
    net = nn.Conv2d(3, 4, 3)
    with pytest.raises((ValueError, RuntimeError), match=r"device|on cpu"):
        count_flops(lambda x: net(x), torch.rand(1, 3, 8, 8))
    assert net.weight.grad is None


def test_counter_as_a_context_sees_a_whole_training_step() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.BatchNorm1d(8), nn.Linear(8, 4))
    optimizer = torch.optim.AdamW(net.parameters())
    x = torch.rand(3, 4)
    with FlopCounter(net) as counter:
        optimizer.zero_grad()
        net(x).square().mean().backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    assert counter.total == 2 * 192 + 3 * 192
    assert counter.by_module["Sequential.0"] == 2 * 192
    assert counter.backward == 3 * 192


def test_image_counts_steps_tiles_and_what_is_done_once() -> None:
    assert image_flops(step=10, steps=25, once=7, tiles=16) == 4007


@pytest.mark.slow
def test_stock_counters_miss_transforms_and_complex_products() -> None:
    counts = stock_flops(f"{__file__}:textbook_workload", {"width": 32}, timeout=120)
    assert set(counts) == set(STOCK_COUNTERS)
    # Convolutions whole, mixing as if real (a quarter), transforms not at all.
    naive = 56_623_104 + 67_108_864 + 18_874_368 // 4
    assert counts["torch FlopCounterMode"].flops == naive
    assert counts["torch FlopCounterMode"].ratio == naive / HAND[32]
    assert counts["fvcore x2"].flops == pytest.approx(naive, rel=1e-3)
    assert counts["fvcore x2 with handlers"].flops == HAND[32]
