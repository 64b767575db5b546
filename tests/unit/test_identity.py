"""What a training is called: the hashes under which finished checkpoints lie, pinned.

A hash may change only by raising ``TRAINING_VERSION``, a backbone's ``version``, or a value itself
(of laptop's rates: by another sweep, see ``bench/config/tuned.toml``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench.cells.works import Entrant
from bench.config import UsageError, apply_overrides, config_hash, experiment_preset
from bench.recipes import DiffusionRecipe
from bench.recipes.fused import method_experiment, method_recipe

PINNED = {
    "smoke/fno/two_stage": "1f30c67b0265 6f173ae96e06",
    "smoke/fno/joint": "674f5f432c66",
    "smoke/fno/one_stage": "a651a4efeb37",
    "smoke/attention_unet/two_stage": "a9ead0bcc307 9d3ace575ed0",
    "smoke/attention_unet/joint": "96f13fc249fb",
    "smoke/attention_unet/one_stage": "4abe15bc727b",
    "smoke/conv_unet/two_stage": "61b9e8cde07b 8960c76190e2",
    "smoke/conv_unet/joint": "d446b59a62f5",
    "smoke/conv_unet/one_stage": "9803854377f2",
    "smoke/convnext/two_stage": "2516bd43175c 403b3b58eeb3",
    "smoke/convnext/joint": "d0a0988f9ae0",
    "smoke/convnext/one_stage": "17f2467722e1",
    "laptop/fno/two_stage": "651359d5a8c5 86ba09894f96",
    "laptop/fno/joint": "af9e7e77cce5",
    "laptop/fno/one_stage": "fbfc639f13c1",
    "laptop/attention_unet/two_stage": "e6602d62bb9a 192f6ae4ae05",
    "laptop/attention_unet/joint": "460a77e15e16",
    "laptop/attention_unet/one_stage": "0d03f62f945d",
    "laptop/conv_unet/two_stage": "bcf380bfd7ea e549819a548c",
    "laptop/conv_unet/joint": "206562a0066a",
    "laptop/conv_unet/one_stage": "9c56e6c401c9",
    "laptop/convnext/two_stage": "daf24e13eeff 139e6e00aec0",
    "laptop/convnext/joint": "59d7b53cba69",
    "laptop/convnext/one_stage": "31b40cab8302",
    "paper/fno/two_stage": "5bdfc71ecf9b bcf246f22d88",
    "paper/fno/joint": "6dd634160b4a",
    "paper/fno/one_stage": "1c6f205de5af",
    "paper/attention_unet/two_stage": "17f30953e089 7419fe9669fe",
    "paper/attention_unet/joint": "154cb1fe66e6",
    "paper/attention_unet/one_stage": "ad10fab171e2",
    "paper/conv_unet/two_stage": "4934facc9756 3e5f0aac60bf",
    "paper/conv_unet/joint": "265d8c8ead7d",
    "paper/conv_unet/one_stage": "a74c0d4e4901",
    "paper/convnext/two_stage": "11f4dfb01a03 f893f179d10e",
    "paper/convnext/joint": "006dd99d955e",
    "paper/convnext/one_stage": "0870a9823995",
    "smoke/attention_unet/precondition": "7516a6f71e22 b5f7a50b23f3",
    "smoke/attention_unet/refine": "7516a6f71e22 ab445357ba8d",
    "laptop/attention_unet/precondition": "c28498059e3d e948bf95188c",
    "laptop/attention_unet/refine": "c28498059e3d 392069457813",
    "paper/attention_unet/precondition": "8e7bac94c988 bad5edb7af0c",
    "paper/attention_unet/refine": "8e7bac94c988 c986bd79a670",
    "laptop/fno/modes": "6cb94c96c0e3 eada92272015",
    "laptop/fno/guidance": "651359d5a8c5 4344f4dbcebd",
    "laptop/fno/seed": "18b66827529a f3bb114f76cf",
    "laptop/fno/steps": "0354dadb9627 8171c2223b21",
}
"""preset/backbone/scheme or change -> hash of every stage, for training data called "pinned"."""

CHANGES = {
    "modes": ("backbone.modes=16",),
    "guidance": ("adapters.guidance=false",),
    "seed": (),
    "steps": ("steps=440",),
}


def hashes(name: str) -> str:
    preset, backbone, what = name.split("/")
    config = apply_overrides(experiment_preset(preset, backbone), CHANGES.get(what, ()))
    config = replace(config, seed=3 if what == "seed" else 0)
    if what not in CHANGES:
        config = replace(config, scheme=what)
    recipe = DiffusionRecipe(config, bands=4)
    return " ".join(config_hash(stage.identity) for stage in recipe.stages("pinned"))


@pytest.mark.parametrize("name", PINNED)
def test_finished_trainings_are_found_again(name, tmp_path, monkeypatch):
    monkeypatch.setenv("NODIFF_BENCH_HOME", str(tmp_path))  # a sweep of the user's own counts
    assert hashes(name) == PINNED[name]


def test_precision_is_part_of_a_training_and_of_its_rows_once_it_is_not_float32():
    def recipes(precision: str) -> list[Any]:
        overrides = [f"precision={precision}"]
        config = apply_overrides(experiment_preset("smoke", "fno"), overrides)
        deep = method_experiment("fusionnet", "smoke", overrides)
        return [DiffusionRecipe(config, bands=4), method_recipe("fusionnet", deep, 4, 4)]

    for whole, half in zip(recipes("float32"), recipes("bfloat16"), strict=True):
        assert "precision" not in whole.settings
        assert whole.fields["precision"] == "float32"
        assert half.fields["precision"] == half.settings["precision"] == "bfloat16"
        assert half.settings["historic"]["precision"] == "float32"
        for one, other in zip(whole.stages("pinned"), half.stages("pinned"), strict=True):
            assert (one.precision, other.precision) == ("float32", "bfloat16")
            assert config_hash(one.identity) != config_hash(other.identity)


def test_a_precision_that_does_not_exist_and_costs_in_another_are_refused():
    with pytest.raises(UsageError, match="precision"):
        apply_overrides(experiment_preset("smoke", "fno"), ["precision=half"])
    config = apply_overrides(experiment_preset("smoke", "fno"), ["precision=bfloat16"])
    with pytest.raises(UsageError, match="costs are measured in float32"):
        Entrant(config, bands=4)
