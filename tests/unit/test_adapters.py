"""Stage II's parts against closed forms, scipy, and increments written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn
from torch.nn import functional as F

from backbones import create_backbone, list_backbones
from backbones.contract import AdaptableOp, GuidedBlock
from backbones.layers.adaptation import adapted_conv2d, adapted_linear
from backbones.layers.spectral import FORMS, SpectralConv2d
from backbones.registry import BACKBONES
from bench.adapters import (
    AdaptedDenoiser,
    AuxiliaryPredictor,
    GuidanceAdapter,
    TimeAwareLowRank,
)
from bench.adapters.predictor import sobel_gradients
from bench.config import AdapterConfig

TINY = {
    "fno": {"width": 8, "layers": 2, "modes": 4},
    "attention_unet": {"width": 8, "multipliers": (1, 2), "blocks": 1, "heads": 2},
    "conv_unet": {"width": 8, "multipliers": (1, 2), "blocks": 1},
    "convnext": {"width": 8, "layers": 2, "kernel_size": 3},
    "pandiff_unet": {"width": 8, "multipliers": (1, 2), "blocks": 1, "heads": 2},
    "galerkin": {"width": 8, "layers": 2, "heads": 2},
    "wfno": {"width": 8, "layers": 2, "rings": 6, "attention_layers": 1, "heads": 2},
    "ffno": {"width": 8, "layers": 2, "modes": 4},
    "uno": {"width": 8, "multipliers": (1, 2), "modes": 4},
    "ddif_unet": {
        "width": 8,
        "multipliers": (1, 2),
        "blocks": 1,
        "heads": 2,
        "dropout": 0.0,
        "drop_path": 0.0,
    },
    "improved_unet": {
        "width": 8,
        "multipliers": (1, 2),
        "blocks": 1,
        "attention": (1,),
        "heads": 2,
    },
    "sr3_unet": {"width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (1,), "dropout": 0.0},
    "nafnet": {"width": 8, "encoder": (1,), "middle": 1, "decoder": (1,)},
    "resnet": {"width": 8, "blocks": 2},
    "dit": {"width": 16, "layers": 2, "heads": 2},
}
TINY |= {
    name: BACKBONES.get(name).scales["tiny"]
    for name in list_backbones()
    if name.startswith(("diffusers_", "neuralop_", "timm_")) and not BACKBONES.missing(name)
}
CONFIG = AdapterConfig(predictor_width=6, predictor_blocks=1, rank=3)
BANDS, SIDE, BATCH = 4, 16, 2


class Pointwise(nn.Module):
    """The least a backbone must be: no ``condition``, no subclass of anything of ours."""

    guided = (GuidedBlock("only", 5),)
    adaptable = (AdaptableOp("out", "conv", 5, BANDS),)
    bands = cond_channels = BANDS

    def __init__(self):
        super().__init__()
        self.enter = nn.Conv2d(2 * BANDS, 5, 1)
        self.out = nn.Conv2d(5, BANDS, 1)

    def forward(self, x, time, cond, adapt=None):
        feature = self.enter(torch.cat([x, cond], 1)) + time[:, None, None, None]
        if adapt is None:
            return self.out(feature)
        return adapted_conv2d(self.out, adapt.guide("only", feature), adapt.low_rank("out"))


@pytest.fixture(params=[*(n for n in list_backbones() if not BACKBONES.missing(n)), "pointwise"])
def backbone(request):
    torch.manual_seed(0)
    if request.param == "pointwise":
        return Pointwise()
    network = create_backbone(request.param, BANDS, BANDS, **TINY.get(request.param, {})).eval()
    return stir(network)


def stir(module: nn.Module) -> nn.Module:
    """Put noise where zeros would hide what follows them."""
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return module


def images(*channels: int, side: int = SIDE, seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(BATCH, c, side, side, generator=generator) for c in channels]


TIME = torch.tensor([0.1, 0.9])


def run(denoiser: AdaptedDenoiser, x, pan, lms, time=TIME):
    detail, image = denoiser.predictor(pan, lms)
    return denoiser(x, time, denoiser.condition(image, detail)), image


# Around a backbone


def test_stage_two_starts_as_stage_one_shown_the_upsampled_image(backbone):
    x, pan, lms = images(BANDS, 1, BANDS)
    denoiser = AdaptedDenoiser(backbone, CONFIG).eval()
    with torch.no_grad():
        out, image = run(denoiser, x, pan, lms)
        assert torch.equal(image, lms)
        torch.testing.assert_close(out, backbone(x, TIME, lms), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", ["light", "conv3x3"])
def test_every_adapter_parameter_learns_and_no_frozen_one_does(backbone, form):
    config = AdapterConfig(predictor_width=6, predictor_blocks=1, rank=3, guidance_form=form)
    denoiser = stir(AdaptedDenoiser(backbone, config)).train()
    assert not backbone.training
    out, _ = run(denoiser, *images(BANDS, 1, BANDS))
    out.square().mean().backward()
    for name, parameter in denoiser.named_parameters():
        if name.startswith("backbone."):
            assert parameter.grad is None and not parameter.requires_grad, name
        else:
            assert parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_joint_training_frees_the_backbone(backbone):
    AdaptedDenoiser(backbone, CONFIG, freeze=False).train()
    assert backbone.training
    assert all(parameter.requires_grad for parameter in backbone.parameters())


@pytest.mark.parametrize("part", ["guidance", "low_rank"])
def test_a_part_switched_off_is_not_there(backbone, part):
    torch.manual_seed(0)
    full = AdaptedDenoiser(backbone, CONFIG)
    config = AdapterConfig(**{**vars(CONFIG), part: False})
    reduced = stir(AdaptedDenoiser(backbone, config)).eval()
    kept = {name for name, _ in full.named_parameters() if not name.startswith(f"{part}.")}
    assert {name for name, _ in reduced.named_parameters()} == kept
    x, pan, lms = images(BANDS, 1, BANDS)
    with torch.no_grad():
        plain = backbone(x, TIME, reduced.predictor(pan, lms)[1])
        assert not torch.allclose(run(reduced, x, pan, lms)[0], plain)


def test_without_both_parts_only_the_condition_is_new(backbone):
    config = AdapterConfig(predictor_width=6, guidance=False, low_rank=False)
    denoiser = stir(AdaptedDenoiser(backbone, config)).eval()
    x, pan, lms = images(BANDS, 1, BANDS)
    with torch.no_grad():
        out, image = run(denoiser, x, pan, lms)
        assert not torch.allclose(image, lms)
        torch.testing.assert_close(out, backbone(x, TIME, image), rtol=1e-5, atol=1e-5)


def test_the_condition_serves_every_step(backbone):
    denoiser = stir(AdaptedDenoiser(backbone, CONFIG)).eval()
    x, pan, lms = images(BANDS, 1, BANDS)
    with torch.no_grad():
        detail, image = denoiser.predictor(pan, lms)
        condition = denoiser.condition(image, detail)
        once = [denoiser(x, TIME * share, condition) for share in (1.0, 0.5)]
        fresh = [run(denoiser, x, pan, lms, TIME * share)[0] for share in (1.0, 0.5)]
    assert all(torch.equal(a, b) for a, b in zip(once, fresh, strict=True))
    assert not torch.allclose(*once)


# Auxiliary predictor


def test_gradients_are_scipys_sobel_over_eight():
    (image,) = images(3, side=11)
    gradients = sobel_gradients(image).numpy()
    for channel in range(3):
        plane = image[:, channel].numpy()
        for offset, axis in ((0, 1), (3, 0)):
            expected = [ndimage.sobel(one, axis=axis, mode="nearest") / 8 for one in plane]
            np.testing.assert_allclose(gradients[:, channel + offset], expected, atol=1e-6)


def test_gradients_of_a_ramp_are_its_slopes():
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(9.0), indexing="ij")
    gradients = sobel_gradients((0.5 * columns - 2 * rows)[None, None])[0, :, 1:-1, 1:-1]
    torch.testing.assert_close(gradients[0], torch.full((6, 7), 0.5))
    torch.testing.assert_close(gradients[1], torch.full((6, 7), -2.0))


@pytest.mark.parametrize(
    ("kind", "channels"), [("sobel", 2 * (BANDS + 1)), ("sobel_magnitude", 5), ("raw", 5)]
)
def test_what_the_predictor_sees(kind, channels):
    predictor = AuxiliaryPredictor(BANDS, 6, 1, kind, gain=3.0)
    seen = []
    predictor.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    pan, lms = images(1, BANDS)
    predictor(pan, lms)
    joined = torch.cat([pan, lms], dim=1)
    along_x, along_y = (3 * sobel_gradients(joined)).chunk(2, dim=1)
    expected = {
        "sobel": torch.cat([along_x, along_y], dim=1),
        "sobel_magnitude": (along_x**2 + along_y**2).sqrt(),
        "raw": joined,
    }[kind]
    assert seen[0].shape[1] == channels
    torch.testing.assert_close(seen[0], expected)


def test_gain_is_taken_back_out_of_the_image():
    predictor = AuxiliaryPredictor(BANDS, 6, 1, gain=10.0)
    nn.init.constant_(predictor.to_image.bias, 0.5)
    pan, lms = images(1, BANDS)
    torch.testing.assert_close(predictor(pan, lms)[1], lms + 0.05)


# Guidance adapter


@pytest.mark.parametrize("factor", [1, 2])
def test_guidance_is_one_convolution_of_both_features(factor):
    torch.manual_seed(0)
    light = stir(GuidanceAdapter(3, 5, factor, "light"))
    wide = stir(GuidanceAdapter(3, 5, factor, "conv3x3"))
    detail, feature = images(3, 5)
    feature = feature[..., : SIDE // factor, : SIDE // factor]
    blocks = detail.reshape(BATCH, 3, SIDE // factor, factor, SIDE // factor, factor)
    joined = torch.cat([blocks.mean(dim=(3, 5)), feature], dim=1)
    for adapter in (light, wide):
        weight = torch.cat([adapter.from_detail.weight, adapter.from_feature.weight], dim=1)
        first = F.conv2d(joined, weight, adapter.from_detail.bias, padding=weight.shape[-1] // 2)
        out = adapter(adapter.detail_part(detail), feature)
        torch.testing.assert_close(out, feature + adapter.mix(first))
    assert not torch.allclose(light(light.detail_part(detail), feature), feature)


# Time-aware LoRA: dR[i, o, k] = alpha sum_r A[r, i] g_r B[o, r, k], written out per sample


def lora(op: AdaptableOp, alpha: float = 0.7, rank: int = 3):
    torch.manual_seed(0)
    other = AdaptableOp("other", "linear", 2, 2)
    adapter = stir(TimeAwareLowRank([other, op], rank, alpha)).double()
    gates = adapter.gates(TIME.double())
    return adapter.factors[1], gates[:, 1], adapter.increments(gates)[op.name]


@pytest.mark.parametrize("alpha", [1.0, 0.25])
def test_gates_lie_between_zero_and_twice_alpha(alpha):
    op = AdaptableOp("a", "linear", 4, 4)
    adapter = TimeAwareLowRank([op, op, op], 5, alpha)
    time = torch.linspace(0.002, 1.0, 50)
    with torch.no_grad():
        gates = adapter.gates(time)
        assert gates.shape == (50, 3, 5)
        assert gates.min() > 0 and gates.max() < 2 * alpha
        assert (gates.std(dim=0) > 0).all()
        for parameter in adapter.mlp.parameters():
            parameter.zero_()
        assert torch.equal(adapter.gates(time), torch.full((50, 3, 5), alpha))


def test_a_fresh_increment_is_nothing():
    ops = [
        AdaptableOp("a", "linear", 4, 6),
        AdaptableOp("b", "conv", 4, 6, kernel_size=3),
        AdaptableOp("c", "spectral", 4, 6, modes=8),
    ]
    adapter = TimeAwareLowRank(ops, 3)
    assert all(factors.down.any() and not factors.up.any() for factors in adapter.factors)
    assert list(adapter.increments(adapter.gates(TIME))) == ["a", "b", "c"]
    # A (r, C_in); B (C_out, r) per mode, complex where the weight is: METHODS of the paper.
    assert [f.down.numel() + f.up.numel() for f in adapter.factors] == [
        3 * 4 + 6 * 3,
        3 * 4 * 9 + 6 * 3,
        3 * 4 + 2 * 6 * 3 * 8,
    ]


@pytest.mark.parametrize("form", [form for form in FORMS if form != "auto"])
def test_spectral_increment_written_out(form):
    modes, rank, c_in, c_out, side = 3, 3, 4, 5, 10
    conv = SpectralConv2d(c_in, c_out, modes, form).double()
    op = AdaptableOp("s", "spectral", c_in, c_out, modes=2 * modes**2)
    factors, gate, low_rank = lora(op, rank=rank)
    x = torch.randn(BATCH, c_in, side, side, dtype=torch.float64)
    with torch.no_grad():
        added = (conv(x, low_rank) - conv(x)).numpy()

    up = factors.up.detach().numpy()
    b = np.moveaxis(up[..., :c_out] + 1j * up[..., c_out:], 2, 0)  # (modes, r, o) -> (o, modes, r)
    rows = [*range(modes), *range(-modes, 0)]
    for n in range(BATCH):
        change = np.einsum("ri,r,okr->iok", factors.down.detach(), gate[n].detach(), b)
        spectrum = np.fft.fft2(x[n].numpy())
        out = np.zeros((c_out, side, side // 2 + 1), complex)
        for k, (row, column) in enumerate((r, c) for r in rows for c in range(modes)):
            out[:, row, column] = spectrum[:, row, column] @ change[:, :, k]
        np.testing.assert_allclose(added[n], np.fft.irfft2(out, s=(side, side)), atol=1e-12)


def test_convolution_increment_written_out():
    conv = nn.Conv2d(4, 5, 3, stride=2, padding=1).double()
    factors, gate, low_rank = lora(AdaptableOp("c", "conv", 4, 5, kernel_size=3))
    x = torch.randn(BATCH, 4, 9, 9, dtype=torch.float64)
    for n in range(BATCH):
        change = torch.einsum("rihw,r,or->oihw", factors.down, gate[n], factors.up)
        expected = F.conv2d(x[n : n + 1], conv.weight + change, conv.bias, stride=2, padding=1)
        torch.testing.assert_close(adapted_conv2d(conv, x, low_rank)[n : n + 1], expected)


def test_linear_increment_written_out():
    linear = nn.Linear(4, 5).double()
    factors, gate, low_rank = lora(AdaptableOp("l", "linear", 4, 5))
    x = torch.randn(BATCH, 7, 4, dtype=torch.float64)
    for n in range(BATCH):
        change = torch.einsum("ri,r,or->oi", factors.down, gate[n], factors.up)
        expected = x[n] @ (linear.weight + change).T + linear.bias
        torch.testing.assert_close(adapted_linear(linear, x, low_rank)[n], expected)
