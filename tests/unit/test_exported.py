"""ONNX graphs of every backbone: what onnxruntime computes is what PyTorch does, at two sizes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from backbones import list_backbones
from backbones.registry import BACKBONES
from bench.config import UsageError, experiment_preset
from bench.fusion.exported import DenoisingStep, WholeSampler, export_onnx, load_onnx, noise_draws
from bench.imaging.windows import Box
from bench.recipes import DiffusionRecipe

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)

SIZES = ((32, 32), (48, 40))


def recipe_of(backbone, scheme="one_stage", **sampler):
    config = experiment_preset("smoke", backbone)
    sampler = replace(config.sampler, tile=None, **sampler)
    return DiffusionRecipe(replace(config, scheme=scheme, sampler=sampler), 4)


def network_of(recipe):
    """Untrained, with noise where layers start at zero: zeros would agree with anything."""
    network = recipe.network().eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.05)
    return network


def images(height, width):
    generator = torch.Generator().manual_seed(1)
    pan, lms = (torch.rand(1, c, height, width, generator=generator) for c in (1, 4))
    return {"pan": pan, "lms": lms}


def step_inputs(height, width):
    x = torch.randn(1, 4, height, width, generator=torch.Generator().manual_seed(2))
    return {"x": x, "time": torch.full((1,), 0.3), **images(height, width)}


def assert_agrees(path, module, inputs):
    with torch.no_grad():
        expected = module(*inputs.values())
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(load_onnx(path)(*inputs.values()), expected, rtol=1e-5, atol=1e-5)


QUICK = ("fno", "conv_unet", "convnext", "dit")
"""Of every kind one; exporting takes seconds to a minute each."""
COMPLEX = ("neuralop_fno", "neuralop_tfno", "neuralop_uno")
"""In complex arithmetic, which ONNX does not know (pytorch issues 107588 and 164698)."""
EXPORTED = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in list_backbones()
    if name not in COMPLEX and not BACKBONES.missing(name)
]


@pytest.mark.parametrize("name", EXPORTED)
def test_a_denoising_step_agrees_at_two_sizes(name, tmp_path):
    recipe = recipe_of(name)
    module = DenoisingStep(network_of(recipe)).eval()
    multiple = module.denoiser.backbone.size_multiple
    graph = export_onnx(module, step_inputs(*SIZES[0]), tmp_path / "a.onnx", multiple=multiple)
    assert list(graph.inputs) == ["x", "time", "pan", "lms"]
    assert_agrees(graph.path, module, step_inputs(*SIZES[0]))
    if not graph.any_size:
        assert graph.why.startswith("its layers are built for one size")
        graph = export_onnx(module, step_inputs(*SIZES[1]), tmp_path / "b.onnx")
    assert_agrees(graph.path, module, step_inputs(*SIZES[1]))


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPLEX)
def test_complex_arithmetic_is_refused_in_one_line(name, tmp_path):
    if BACKBONES.missing(name):
        pytest.skip(BACKBONES.missing(name))
    module = DenoisingStep(network_of(recipe_of(name))).eval()
    with pytest.raises(UsageError, match="cannot be exported to ONNX: ") as info:
        export_onnx(module, step_inputs(32, 32), tmp_path / "a.onnx")
    assert "\n" not in str(info.value) and not (tmp_path / "a.onnx").exists()


def test_convolutions_take_any_size_and_spectral_layers_one(tmp_path):
    found = {}
    for name in ("conv_unet", "fno"):
        module = DenoisingStep(network_of(recipe_of(name))).eval()
        found[name] = export_onnx(module, step_inputs(32, 32), tmp_path / name, multiple=2).any_size
    assert found == {"conv_unet": True, "fno": False}


@pytest.mark.parametrize("kind", ["ddim", "ddpm"])
@pytest.mark.parametrize("scheme", ["one_stage", "two_stage", "refine"])
def test_the_whole_sampler_is_one_graph(scheme, kind, tmp_path):
    recipe = recipe_of("fno", scheme, steps=3, kind=kind)
    fusion = recipe.fusion(network_of(recipe))
    draws = noise_draws(fusion.sampler)
    assert draws == {"ddim": 1, "ddpm": 3}[kind]
    noise = torch.randn(draws, 1, 4, 32, 32, generator=torch.Generator().manual_seed(3))
    inputs = {"noise": noise, **images(32, 32)}
    module = WholeSampler(fusion).eval()
    graph = export_onnx(module, inputs, tmp_path / "sampler.onnx")
    assert list(graph.inputs) == ["noise", "pan", "lms"]
    assert_agrees(graph.path, module, inputs)
    other = {**inputs, "noise": -noise}
    assert not torch.allclose(load_onnx(graph.path)(*other.values()), module(*inputs.values()))


def test_a_window_is_what_fusing_it_gives(monkeypatch):
    recipe = recipe_of("fno", "two_stage", steps=3)
    fusion = recipe.fusion(network_of(recipe))
    inputs = images(32, 32)
    fused = fusion.fuse(inputs["lms"][..., ::4, ::4], inputs["pan"], None, inputs["lms"])
    whole = Box(0, 0, 32, 32)
    drawn = fusion._block(4, whole, whole, 0, 0)
    window = fusion.fuse_window(drawn[None, None], **inputs)
    torch.testing.assert_close(window, fused)


def test_what_onnx_cannot_do_is_one_line(tmp_path):
    class Complex(torch.nn.Module):
        def forward(self, x):
            return torch.linalg.svdvals(x)

    with pytest.raises(UsageError, match="cannot be exported to ONNX: ") as info:
        export_onnx(Complex(), {"x": torch.rand(2, 3)}, tmp_path / "c.onnx")
    assert "\n" not in str(info.value)
