"""FLOPs, memory, time, and what they were measured on.

Nothing here knows what it measures: it is handed callables, or the names of builders that a
fresh process calls. See the modules for conventions; each states its own.
"""

from bench.config.exhaustion import is_out_of_memory
from bench.measure.ceilings import Ceilings, measure_ceilings
from bench.measure.environment import (
    commit,
    gpu_energy_joules,
    gpu_state,
    machine,
    measured_device,
    versions,
)
from bench.measure.flops import (
    CONVENTION,
    FlopCounter,
    FlopReport,
    Flops,
    UnknownOperatorError,
    count_flops,
    image_flops,
    register_formula,
)
from bench.measure.isolation import IsolatedResult, end_isolated, run_isolated
from bench.measure.memory import (
    Fit,
    MemoryReport,
    MemoryUse,
    ResidentPeak,
    format_bytes,
    largest_fit,
    parse_bytes,
    peak_memory,
)
from bench.measure.parameters import count_parameters
from bench.measure.stock import STOCK_COUNTERS, StockCount, stock_flops
from bench.measure.timing import Ratio, Timing, paired_ratio, time_interleaved
from bench.measure.traffic import count_traffic
from bench.measure.workload import Workload

__all__ = [
    "CONVENTION",
    "STOCK_COUNTERS",
    "Ceilings",
    "Fit",
    "FlopCounter",
    "FlopReport",
    "Flops",
    "IsolatedResult",
    "MemoryReport",
    "MemoryUse",
    "Ratio",
    "ResidentPeak",
    "StockCount",
    "Timing",
    "UnknownOperatorError",
    "Workload",
    "commit",
    "count_flops",
    "count_parameters",
    "count_traffic",
    "end_isolated",
    "format_bytes",
    "gpu_energy_joules",
    "gpu_state",
    "image_flops",
    "is_out_of_memory",
    "largest_fit",
    "machine",
    "measure_ceilings",
    "measured_device",
    "paired_ratio",
    "parse_bytes",
    "peak_memory",
    "register_formula",
    "run_isolated",
    "stock_flops",
    "time_interleaved",
    "versions",
]
