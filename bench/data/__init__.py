"""Data sets: PanCollection files, the shipped sample, Wald's simulation, your own scenes."""

from bench.data.dataset import Dataset, Split, load_dataset
from bench.data.files import SPLITS
from bench.data.fused import check_fused_path, read_fused, write_fused
from bench.data.sample import SAMPLES
from bench.data.wald import Simulated, simulate, simulate_pan

__all__ = [
    "SAMPLES",
    "SPLITS",
    "Dataset",
    "Simulated",
    "Split",
    "check_fused_path",
    "load_dataset",
    "read_fused",
    "simulate",
    "simulate_pan",
    "write_fused",
]
