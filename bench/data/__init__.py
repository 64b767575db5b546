"""Data sets: PanCollection files, the shipped sample, Wald's simulation, your own scenes."""

from bench.data.dataset import Dataset, Split, load_dataset
from bench.data.files import SPLITS
from bench.data.sample import SAMPLES
from bench.data.wald import Simulated, simulate, simulate_pan

__all__ = [
    "SAMPLES",
    "SPLITS",
    "Dataset",
    "Simulated",
    "Split",
    "load_dataset",
    "simulate",
    "simulate_pan",
]
