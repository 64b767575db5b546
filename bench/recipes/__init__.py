"""What is trained, and how it becomes a fusion method."""

from bench.recipes.base import (
    TRAINING_VERSION,
    Recipe,
    Stage,
    Trained,
    checkpoints,
    discard,
    train_recipe,
    training_flops,
)
from bench.recipes.diffusion import DiffusionRecipe
from bench.recipes.fused import (
    ClassicalRecipe,
    DeepRecipe,
    check_weights,
    method_experiment,
    method_recipe,
    method_training,
)
from bench.recipes.stored import StoredNetwork, describe, load_trained

__all__ = [
    "TRAINING_VERSION",
    "ClassicalRecipe",
    "DeepRecipe",
    "DiffusionRecipe",
    "Recipe",
    "Stage",
    "StoredNetwork",
    "Trained",
    "check_weights",
    "checkpoints",
    "describe",
    "discard",
    "load_trained",
    "method_experiment",
    "method_recipe",
    "method_training",
    "train_recipe",
    "training_flops",
]
