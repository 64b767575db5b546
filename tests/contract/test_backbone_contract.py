"""Every registered backbone against the contract; the checks stand in ``bench.contract``."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from backbones import create_backbone
from backbones.registry import BACKBONES
from bench.contract.probes import Subject
from bench.contract.suite import test_advice, test_contract

__all__ = ["test_advice", "test_contract"]

# Compiling takes seconds a layer; ddif_unet, of the most kinds of layers, takes six minutes. The
# networks of other libraries are compiled by their own projects.
TWO_LAYERS = {
    "fno": {"width": 8, "layers": 2, "modes": 4},
    "attention_unet": {"width": 8, "multipliers": (1,), "blocks": 1, "attention_levels": 1},
    "conv_unet": {"width": 8, "multipliers": (1,), "blocks": 1},
    "convnext": {"width": 8, "layers": 2, "kernel_size": 3},
    "pandiff_unet": {"width": 8, "multipliers": (1,), "blocks": 1},
    "galerkin": {"width": 8, "layers": 2, "heads": 2},
    "wfno": {"width": 8, "layers": 1, "rings": 6, "attention_layers": 1, "heads": 2},
    "ffno": {"width": 8, "layers": 2, "modes": 4},
    "uno": {"width": 8, "multipliers": (1,), "modes": 4},
    "improved_unet": {"width": 8, "multipliers": (1,), "blocks": 1, "attention": (0,), "heads": 2},
    "sr3_unet": {"width": 8, "multipliers": (1,), "blocks": 1, "attention": (0,), "dropout": 0.0},
    "nafnet": {"width": 8, "encoder": (1,), "middle": 1, "decoder": (1,)},
    "resnet": {"width": 8, "blocks": 2},
    "dit": {"width": 16, "layers": 2, "heads": 2},
}


def test_a_misspelt_option_is_named_with_the_nearest(backbone_name):
    field = dataclasses.fields(BACKBONES.get(backbone_name).Config)[0].name
    with pytest.raises(ValueError, match=f"{field}_.*did you mean '{field}'.*known: ") as info:
        create_backbone(backbone_name, 4, 5, **{f"{field}_": 1})
    assert "\n" not in str(info.value)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_compiles_forward_and_backward(backbone_name, device, compiler):
    if backbone_name not in TWO_LAYERS:
        pytest.skip("compiling it takes minutes")
    subject = Subject(backbone_name, TWO_LAYERS[backbone_name], device=device)
    net, (x, time, cond) = subject.build(), subject.inputs()
    parameters = list(net.parameters())
    expected = net(x, time, cond)
    expected_gradients = torch.autograd.grad(expected.square().mean(), parameters)
    torch.compiler.reset()  # of what other networks, which share a forward pass, made it expect
    compiled = torch.compile(net, fullgraph=True)
    out = compiled(x, time, cond)
    gradients = torch.autograd.grad(out.square().mean(), parameters)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-3, atol=1e-5)
