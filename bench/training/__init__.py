"""The one training loop, its objectives, checkpoints and exact resume."""

from bench.training.batches import Batch, PatchBatches
from bench.training.checkpoints import Checkpoint
from bench.training.loop import DivergedError, History, Stepper, train
from bench.training.objectives import AdaptedObjective, Objective, PlainObjective
from bench.training.progress import Progress

__all__ = [
    "AdaptedObjective",
    "Batch",
    "Checkpoint",
    "DivergedError",
    "History",
    "Objective",
    "PatchBatches",
    "PlainObjective",
    "Progress",
    "Stepper",
    "train",
]
