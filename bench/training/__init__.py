"""The one training loop, its objectives, checkpoints and exact resume."""

from bench.training.batches import Batch, PatchBatches
from bench.training.checkpoints import Checkpoint, CheckpointError
from bench.training.loop import DivergedError, History, Stepper, train
from bench.training.objectives import AdaptedObjective, FusionObjective, Objective, PlainObjective

__all__ = [
    "AdaptedObjective",
    "Batch",
    "Checkpoint",
    "CheckpointError",
    "DivergedError",
    "FusionObjective",
    "History",
    "Objective",
    "PatchBatches",
    "PlainObjective",
    "Stepper",
    "train",
]
