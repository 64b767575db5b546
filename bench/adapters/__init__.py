"""What stage II adds to a frozen denoiser: predictor, guidance adapter, time-aware LoRA."""

from bench.adapters.adapted import AdaptedDenoiser, Condition, SampledDenoiser, TimePart
from bench.adapters.guidance import GuidanceAdapter
from bench.adapters.inputs import INPUTS, Inputs
from bench.adapters.low_rank import TimeAwareLowRank
from bench.adapters.predictor import AuxiliaryPredictor
from bench.adapters.recording import recorded

__all__ = [
    "INPUTS",
    "AdaptedDenoiser",
    "AuxiliaryPredictor",
    "Condition",
    "GuidanceAdapter",
    "Inputs",
    "SampledDenoiser",
    "TimeAwareLowRank",
    "TimePart",
    "recorded",
]
