"""What a training is called: the hashes under which finished checkpoints lie, pinned.

A hash may change only by raising ``TRAINING_VERSION``, a backbone's ``version``, or a value itself.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.config import apply_overrides, config_hash, experiment_preset
from bench.recipes import DiffusionRecipe

PINNED = {
    "smoke/fno/two_stage": "9818c69654aa d173e5e569c4",
    "smoke/fno/joint": "e525db0e0452",
    "smoke/fno/one_stage": "845b6cc74808",
    "smoke/attention_unet/two_stage": "b874a55e5f9a 50eb793877f2",
    "smoke/attention_unet/joint": "e595cb59f6ea",
    "smoke/attention_unet/one_stage": "1857cca2368e",
    "smoke/conv_unet/two_stage": "8074d70cbe50 8f44aef3e06a",
    "smoke/conv_unet/joint": "88f530495452",
    "smoke/conv_unet/one_stage": "cdc866628a4b",
    "smoke/convnext/two_stage": "c559a669d215 f79eed3a09b3",
    "smoke/convnext/joint": "896d4ebb80ac",
    "smoke/convnext/one_stage": "5427941c5f1c",
    "laptop/fno/two_stage": "8dc8f63c75a5 3b37dd6dfadd",
    "laptop/fno/joint": "2b243ddda5b6",
    "laptop/fno/one_stage": "5a0a8516984b",
    "laptop/attention_unet/two_stage": "909c707e0cd8 4478c1e34e05",
    "laptop/attention_unet/joint": "ad30ce5ab88d",
    "laptop/attention_unet/one_stage": "74a0cb3010da",
    "laptop/conv_unet/two_stage": "86b8d363e94e b284fcae0c0e",
    "laptop/conv_unet/joint": "eada79d0e0f4",
    "laptop/conv_unet/one_stage": "441fe2d0a396",
    "laptop/convnext/two_stage": "f87079edb0fb 5889649bf982",
    "laptop/convnext/joint": "64480ff7a647",
    "laptop/convnext/one_stage": "50f6036ef66e",
    "paper/fno/two_stage": "07046d1b2bd9 c499c402ff81",
    "paper/fno/joint": "fc7679ca54fa",
    "paper/fno/one_stage": "80f0a31bbae1",
    "paper/attention_unet/two_stage": "659946f48e33 d3cb4a16f84e",
    "paper/attention_unet/joint": "506ad3911c99",
    "paper/attention_unet/one_stage": "ed0daa32c035",
    "paper/conv_unet/two_stage": "f65ece4ab03a d6e87a3c0993",
    "paper/conv_unet/joint": "fc08683dbbf7",
    "paper/conv_unet/one_stage": "242fa43a1167",
    "paper/convnext/two_stage": "3f4b8c9d6415 8e5efdc81e73",
    "paper/convnext/joint": "ea80b0813310",
    "paper/convnext/one_stage": "5560003734fe",
    "laptop/fno/modes": "39c779da3c34 32fa242f00b6",
    "laptop/fno/guidance": "8dc8f63c75a5 75db669182b5",
    "laptop/fno/seed": "9ca724c29ef4 18e259b9f072",
    "laptop/fno/steps": "8dc8f63c75a5 f39ff66b3bdb",
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
def test_finished_trainings_are_found_again(name):
    assert hashes(name) == PINNED[name]
