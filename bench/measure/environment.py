"""What a number was measured on: machine, versions, commit, clocks.

No host name, user name, path or address is ever read, so that results can be published as they
are. NVML (the ``gpu`` extra, nvidia-ml-py) adds clocks, throttling and energy where it is there.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

from bench.config.errors import MissingError, UsageError

__all__ = [
    "commit",
    "gpu_energy_joules",
    "gpu_state",
    "machine",
    "measured_device",
    "versions",
]

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = (
    "nodiff-bench",
    "torch",
    "numpy",
    "scipy",
    "timm",
    "fvcore",
    "neuraloperator",
    "diffusers",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "h5py",
    "pandas",
    "safetensors",
)


def measured_device(device: str | torch.device) -> torch.device:
    """Check a device that something is to be measured on.

    Raises:
        UsageError: neither ``cpu`` nor ``cuda`` nor ``cuda:N``: others are timed wrongly.
        MissingError: no such GPU here.
    """
    kind, _, index = str(device).partition(":")
    if kind not in ("cpu", "cuda") or not (index or "0").isdigit():
        raise UsageError(f"device {str(device)!r}: expected cpu, cuda or cuda:N")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise MissingError(f"device {str(device)!r}: torch sees {torch.cuda.device_count()} GPUs")
    return torch.device(device)


def machine() -> dict[str, Any]:
    """Describe the machine and the switches that change what a measurement means.

    Returns:
        JSON-able: ``cpu``, ``cores`` (usable by this process), ``ram_gib``, ``os``, ``threads``,
        ``gpu`` (None without one: name, count, memory_gib, capability, driver, cuda, cudnn),
        ``flags`` (TF32, cudnn benchmark, deterministic, matmul precision).
    """
    return {
        "cpu": _cpu_name(),
        "cores": _usable_cores(),
        "ram_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "os": " ".join([platform.system(), *re.findall(r"^[\d.]+\d", platform.release())]),
        "arch": platform.machine(),
        "threads": torch.get_num_threads(),
        "gpu": _gpu(),
        "flags": {
            "matmul_tf32": torch.backends.cuda.matmul.allow_tf32,
            "cudnn_tf32": torch.backends.cudnn.allow_tf32,
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "cudnn_deterministic": torch.backends.cudnn.deterministic,
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
            "matmul_precision": torch.get_float32_matmul_precision(),
        },
    }


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of the libraries that carry numbers."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    # The build decides which libraries run: the metadata version drops "+cpu".
    found["torch"] = torch.__version__
    return found


def commit() -> dict[str, Any] | None:
    """Hash and dirty flag of the checkout; None when installed or without git."""
    try:
        top = Path(_git("rev-parse", "--show-toplevel"))
        if top.resolve() != _ROOT:
            return None  # installed inside somebody else's repository
        return {"hash": _git("rev-parse", "HEAD"), "dirty": bool(_git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def gpu_state(index: int | None = None) -> dict[str, Any] | None:
    """Clocks, temperature, power and throttling of a GPU now; None without NVML or GPU.

    Args:
        index: CUDA device index; the current device by default.

    Returns:
        ``sm_mhz``, ``memory_mhz``, ``temperature_c``, ``power_w``, ``throttle`` (list of reasons
        in force, empty when clocks are not held back).
    """
    opened = _nvml_handle(index)
    if opened is None:
        return None
    nvml, handle = opened
    mask = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
    prefix = "nvmlClocksThrottleReason"
    reasons = [
        name.removeprefix(prefix)
        for name, bit in vars(nvml).items()
        if name.startswith(prefix) and isinstance(bit, int) and bit and bit & mask == bit
    ]
    return {
        "sm_mhz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
        "memory_mhz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
        "temperature_c": nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
        "power_w": nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
        "throttle": sorted(set(reasons) - {"All", "GpuIdle", "None"}),
    }


def gpu_energy_joules(index: int | None = None) -> float | None:
    """Energy counter of a GPU since its driver was loaded; None where it cannot be read.

    Synchronise, read, run, synchronise, read: the difference is what the run took, the idle power
    of the card included. The counter moves about every 20 to 100 ms, so run for seconds.
    """
    opened = _nvml_handle(index)
    if opened is None:
        return None
    nvml, handle = opened
    try:
        return nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
    except nvml.NVMLError:
        return None


def _nvml_handle(index: int | None) -> tuple[Any, Any] | None:
    if not torch.cuda.is_available() or torch.version.cuda is None:
        return None
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        # NVML ignores CUDA_VISIBLE_DEVICES, so the card is found by its identity.
        index = torch.cuda.current_device() if index is None else index
        uuid = f"GPU-{torch.cuda.get_device_properties(index).uuid}"
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid)
    except pynvml.NVMLError:
        return None


def _gpu() -> dict[str, Any] | None:
    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    opened = _nvml_handle(0)
    return {
        "name": properties.name,
        "count": torch.cuda.device_count(),
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "capability": f"{properties.major}.{properties.minor}",
        "driver": None if opened is None else opened[0].nvmlSystemGetDriverVersion(),
        "cuda": torch.version.cuda or torch.version.hip,
        "cudnn": torch.backends.cudnn.version(),
    }


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    match = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text, re.MULTILINE)
    if match:
        return re.sub(r"\s+", " ", match.group(1)).strip()
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return platform.processor() or platform.machine()


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _git(*args: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(_ROOT), *args]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
