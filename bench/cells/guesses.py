"""Guesses of seconds: counted FLOPs over a speed measured on a small image."""

from __future__ import annotations

import functools
import json

import torch

from bench.cells.conditions import At
from bench.cells.works import WORKS, Entrant, build_work
from bench.config import canonical_json
from bench.measure import FlopCounter, UnknownOperatorError, time_interleaved

__all__ = ["GUESS_ERROR", "guess_seconds", "hopeless"]

GUESS_ERROR = 1.5
"""How far off a guess may be: what is guessed beyond a limit by more than that is not tried."""


def guess_seconds(work: str, entrant: Entrant, at: At) -> float:
    """Guess the seconds of one call.

    Returns 0 for what cannot be run or counted: measuring it will say why.
    """
    sampler, forwards, side = entrant.config.sampler, WORKS[work].forwards, at.size
    if forwards is None and entrant.deep:
        forwards = 1
    elif forwards is None:  # a whole image, in tiles
        side = min(sampler.tile or at.size, at.size)
        forwards = WORKS["denoise_step"].forwards * sampler.steps * (at.size / side) ** 2
    try:
        speed = _speed(_key(entrant), str(at.device), at.threads)
        seconds = _forward_flops(_key(entrant), side) / speed
    except Exception:  # a user's own network may raise anything
        return 0.0
    return at.batch * forwards * seconds


def hopeless(seconds: float, calls: int, timeout: float) -> str | None:
    """Return why something is not even begun; None if it may end in time."""
    if calls * seconds <= GUESS_ERROR * timeout:
        return None
    return (
        f"{calls} calls of an estimated {seconds:.3g} s are far more than {timeout:g} s (--timeout)"
    )


def _key(entrant: Entrant) -> str:
    arguments = entrant.arguments("forward", At(0, 1, torch.device("cpu")))
    return canonical_json({**arguments, "patch": entrant.config.patch})


@functools.cache
def _forward_flops(key: str, size: int) -> int:
    """Count the FLOPs of a forward pass on one image; its pixels where they cannot be counted."""
    with torch.device("meta"):
        workload = build_work(**_arguments(key, size, "meta"))
        try:
            with torch.no_grad(), FlopCounter() as counter:
                workload.module(*workload.inputs)
        except UnknownOperatorError:
            return size**2
    return counter.total


@functools.cache
def _speed(key: str, device: str, threads: int) -> float:
    """Time a forward pass on one small image: what :func:`_forward_flops` counts, per second."""
    patch = json.loads(key)["patch"]
    side = patch if device == "cpu" else 4 * patch  # a patch is too little for a GPU
    step = build_work(**_arguments(key, side, device)).step
    timing = time_interleaved(
        {"step": step}, rounds=3, min_sample_s=0.0, threads=threads, device=device
    )["step"]
    return _forward_flops(key, side) / timing.median


def _arguments(key: str, size: int, device: str) -> dict[str, object]:
    arguments = json.loads(key)
    del arguments["patch"]
    return {**arguments, "size": size, "device": device}
