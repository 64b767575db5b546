"""Frozen configuration, presets, hashes, command-line flags. No torch."""

from bench.config.cli import CommonFlags, RunFlags, run_command
from bench.config.errors import BenchError, ExitCode, MissingError, UsageError
from bench.config.experiment import (
    AdapterConfig,
    DenoiserTraining,
    DiffusionConfig,
    EvaluationConfig,
    ExperimentConfig,
    MethodTraining,
    Precision,
    SamplerConfig,
    StageConfig,
)
from bench.config.hashing import (
    as_plain,
    canonical_json,
    config_hash,
    derive_seed,
    historic_values,
)
from bench.config.overrides import apply_overrides
from bench.config.paths import results_home
from bench.config.plain import experiment_from_plain, from_plain
from bench.config.presets import (
    DATASETS,
    DEPARTURES,
    PRESETS,
    experiment_preset,
    method_preset,
    preset_seeds,
    with_operator,
    with_rate,
    with_steps,
)
from bench.config.shards import Shard

__all__ = [
    "DATASETS",
    "DEPARTURES",
    "PRESETS",
    "AdapterConfig",
    "BenchError",
    "CommonFlags",
    "DenoiserTraining",
    "DiffusionConfig",
    "EvaluationConfig",
    "ExitCode",
    "ExperimentConfig",
    "MethodTraining",
    "MissingError",
    "Precision",
    "RunFlags",
    "SamplerConfig",
    "Shard",
    "StageConfig",
    "UsageError",
    "apply_overrides",
    "as_plain",
    "canonical_json",
    "config_hash",
    "derive_seed",
    "experiment_from_plain",
    "experiment_preset",
    "from_plain",
    "historic_values",
    "method_preset",
    "preset_seeds",
    "results_home",
    "run_command",
    "with_operator",
    "with_rate",
    "with_steps",
]
