"""What stands around a denoiser: what it is conditioned on, NODiff's stage II, an operator."""

from bench.adapters.adapted import AdaptedDenoiser, Condition, SampledDenoiser, TimePart
from bench.adapters.guidance import GuidanceAdapter
from bench.adapters.inputs import INPUTS, Inputs
from bench.adapters.low_rank import TimeAwareLowRank
from bench.adapters.operators import OperatorDenoiser, SuperResolver
from bench.adapters.predictor import AuxiliaryPredictor
from bench.adapters.recording import recorded

__all__ = [
    "INPUTS",
    "AdaptedDenoiser",
    "AuxiliaryPredictor",
    "Condition",
    "GuidanceAdapter",
    "Inputs",
    "OperatorDenoiser",
    "SampledDenoiser",
    "SuperResolver",
    "TimeAwareLowRank",
    "TimePart",
    "recorded",
]
