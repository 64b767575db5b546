"""An operator before the diffusion, or refined by it (figure 1): image, base, identities."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from bench.adapters import OperatorDenoiser, SampledDenoiser, SuperResolver
from bench.config import (
    CommonFlags,
    DiffusionConfig,
    SamplerConfig,
    UsageError,
    apply_overrides,
    config_hash,
    experiment_preset,
)
from bench.diffusion import Diffusion
from bench.fusion.diffusion import DiffusionFusion
from bench.imaging import get_sensor
from bench.recipes import DiffusionRecipe
from bench.running import Desk
from bench.training import AdaptedObjective, Batch

BANDS, GAIN = 4, 10.0
DIFFUSION = Diffusion(DiffusionConfig(target="x0", residual_scale=GAIN, timesteps=100))
SCHEMES = ("precondition", "refine")


class Constant(nn.Module):
    """Answers one number everywhere; remembers what it was asked."""

    guided = adaptable = ()
    bands, size_multiple, min_size = BANDS, 1, 1

    def __init__(self, value: float):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))
        self.asked = []

    def forward(self, x, time, cond, adapt=None):
        self.asked.append((x, time, cond))
        return self.value.expand_as(x)


def denoiser(scheme: str, answer: float = 0.0, residual: float = 0.5) -> OperatorDenoiser:
    """The operator's image is L + ``residual`` / GAIN; the denoiser's x0 is ``answer``."""
    operator = SuperResolver(Constant(residual), GAIN)
    return OperatorDenoiser(Constant(answer), operator, refines=scheme == "refine")


def images(side: int = 24, count: int = 2):
    generator = torch.Generator().manual_seed(1)
    lms, pan = (torch.rand(count, c, side, side, generator=generator) for c in (BANDS, 1))
    return 0.2 + 0.5 * lms, pan


def test_an_operator_sees_the_inputs_and_no_noise_and_answers_the_residual():
    lms, pan = images()
    operator = SuperResolver(Constant(0.5), GAIN)
    torch.testing.assert_close(operator(None, pan, lms), lms + 0.05)
    ((x, time, cond),) = operator.backbone.asked
    assert not x.any() and torch.equal(time, torch.ones(2))
    assert torch.equal(cond, torch.cat([lms, pan], dim=1))


@pytest.mark.parametrize("tile", [None, 16])
@pytest.mark.parametrize(("scheme", "expected"), [("precondition", 0.02), ("refine", 0.07)])
def test_the_residual_is_over_the_image_of_the_scheme(scheme, expected, tile):
    """L + 0.2 / 10 where S only informs, S + 0.2 / 10 where S is the base; S = L + 0.05."""
    lms, pan = images()
    sampler = SamplerConfig(steps=3, tile=tile, overlap=4)
    fusion = DiffusionFusion(denoiser(scheme, answer=0.2), DIFFUSION, sampler)
    fused = fusion.fuse(lms[..., ::4, ::4], pan, get_sensor("none", BANDS), lms)
    torch.testing.assert_close(fused, lms + expected)
    torch.testing.assert_close(fusion.super_resolved(pan, lms), lms + 0.05)
    x, _, cond = fusion.denoiser.backbone.asked[-1]
    assert cond.shape[1] == 2 * BANDS + 1
    torch.testing.assert_close(cond[:, -BANDS:], cond[:, :BANDS] + 0.05)
    assert {tuple(x.shape[-2:]) for x, *_ in fusion.denoiser.operator.backbone.asked} == {
        x.shape[-2:]
    }  # the operator, too, sees tiles


@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_window_from_given_noise_has_that_base_too(scheme):
    lms, pan = images()
    fusion = DiffusionFusion(denoiser(scheme, answer=0.2), DIFFUSION, SamplerConfig(steps=2))
    noise = torch.randn(1, *lms.shape)
    base = 0.05 if scheme == "refine" else 0.0
    torch.testing.assert_close(fusion.fuse_window(noise, pan, lms), lms + base + 0.02)


@pytest.mark.parametrize(("scheme", "perfect"), [("precondition", 1.0), ("refine", 0.5)])
def test_training_aims_at_the_residual_over_the_same_base(scheme, perfect):
    """H = L + 0.1: ten times that over L, ten times 0.05 over S."""
    lms, pan = images()
    module = denoiser(scheme, answer=perfect).train()
    batch = Batch(lms + 0.1, lms, pan)
    loss = AdaptedObjective(DIFFUSION)(module, batch, torch.Generator().manual_seed(0))
    assert loss.item() < 1e-5
    assert not module.operator.training and module.backbone.training
    assert [name for name, p in module.named_parameters() if p.requires_grad] == ["backbone.value"]


def test_sizes_are_those_that_both_networks_take():
    both = denoiser("refine")
    both.backbone.size_multiple, both.operator.backbone.size_multiple = 8, 12
    both.backbone.min_size, both.operator.backbone.min_size = 16, 40
    assert (both.size_multiple, both.min_size) == (24, 40)
    assert SampledDenoiser(both.backbone).size_multiple == 8


# Recipes


def recipe_of(scheme: str, *overrides: str, backbone="attention_unet", **fields):
    config = apply_overrides(experiment_preset("smoke", backbone), overrides)
    return DiffusionRecipe(replace(config, scheme=scheme, **fields), BANDS)


def hashes(recipe: DiffusionRecipe) -> list[str]:
    return [config_hash(stage.identity) for stage in recipe.stages("data")]


def test_the_operator_is_one_training_whatever_comes_after_it():
    first, last = hashes(recipe_of("refine"))
    same = [
        recipe_of("precondition"), recipe_of("refine", backbone="convnext"),
        recipe_of("refine", "stage2.learning_rate=0.5"), recipe_of("refine", "backbone.heads=2"),
        recipe_of("refine", "diffusion.target=eps"),
    ]  # fmt: skip
    assert {hashes(one)[0] for one in same} == {first}
    assert len({last, *(hashes(one)[1] for one in same)}) == len(same) + 1
    other = [
        recipe_of("refine", operator="galerkin"), recipe_of("refine", "stage1.learning_rate=0.5"),
        recipe_of("refine", "diffusion.residual_scale=2"), recipe_of("refine", seed=1),
        recipe_of("refine", "prior_share=0.25"),
    ]  # fmt: skip
    firsts, lasts = zip(*map(hashes, other), strict=True)
    assert len({first, *firsts}) == len({last, *lasts}) == len(other) + 1
    assert hashes(recipe_of("refine", "adapters.rank=3")) == [first, last]  # it has none


def test_rows_say_scheme_and_operator_and_others_none():
    recipe = recipe_of("refine", operator="galerkin")
    assert recipe.fields["method"] == "refine" and recipe.settings["scheme"] == "refine"
    assert recipe.settings["operator"]["name"] == "galerkin"
    assert "adapters" not in recipe.settings
    assert "operator" not in recipe_of("two_stage").settings
    network = recipe.network()
    assert network.backbone.cond_channels == 2 * BANDS + 1
    assert network.operator.backbone.cond_channels == BANDS + 1
    own, added = (recipe.costs(network)[name] for name in ("params", "params_added"))
    operator = sum(p.numel() for p in network.operator.parameters())
    assert added == pytest.approx(operator / 1e6) and own > 0


@pytest.mark.parametrize(
    ("scheme", "overrides", "fields", "words"),
    [
        ("two_stage", (), {"operator": "galerkin"}, "scheme 'two_stage' super-resolves by none"),
        ("refine", (), {"condition": "wavelets"}, "condition = 'wavelets': scheme 'refine'"),
        ("refine", ("patch=10", "sampler.tile=none"), {}, "patch = 10: backbone 'attention_unet'"),
        ("precondition", ("patch=26", "sampler.tile=none"), {"operator": "attention_unet",
                         "backbone": "fno"}, "patch = 26: backbone 'attention_unet'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(scheme, overrides, fields, words):
    with pytest.raises(UsageError, match=words) as info:
        recipe_of(scheme, *overrides, **fields).check()
    assert "\n" not in str(info.value)


def test_each_network_has_the_rate_it_has_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("NODIFF_BENCH_HOME", str(tmp_path))  # no rates of the user's own

    def of(*overrides, scheme="refine"):
        flags = CommonFlags(backbone=("attention_unet",), preset="laptop", override=overrides)
        (config,) = Desk(flags, "test").experiments(scheme=scheme)
        return config.stage1.learning_rate, config.stage2.learning_rate

    alone = {
        name: experiment_preset("laptop", name).stage1.learning_rate
        for name in ("fno", "attention_unet", "convnext")
    }
    assert len(set(alone.values())) == 3
    assert of() == (alone["fno"], alone["attention_unet"])
    assert of("operator=convnext") == (alone["convnext"], alone["attention_unet"])
    assert of("stage1.learning_rate=0.5") == (0.5, alone["attention_unet"])
    assert of(scheme="one_stage")[0] == alone["attention_unet"]
    with pytest.raises(Exception, match="did you mean 'fno'"):
        of("operator=fnoo")
