"""Joint timings: one cell, whose competitors are timed round by round against each other."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from bench.cells.conditions import At, machine_identity
from bench.cells.guesses import guess_seconds, hopeless
from bench.cells.memory import not_fitting
from bench.cells.rows import Failure, failure, measured, missing
from bench.cells.works import WORKS, Entrant, build_work
from bench.config import MissingError
from bench.measure import Timing, gpu_energy_joules, time_interleaved
from bench.records import Row
from bench.running import Cell, Context, Desk

__all__ = ["Competitor", "timing_cell", "works_timing_cell"]

_log = logging.getLogger(__name__)
_BESIDE_ROUNDS = 2  # calls of a slow competitor: the one that shows how slow, and a warm-up
_ENERGY_SECONDS = 3.0  # the counter of a GPU moves every 20 to 100 ms


@dataclass(frozen=True)
class Competitor:
    """One of those that are timed against each other.

    Attributes:
        name: of the competitor, unique in its cell.
        build: makes the call to time; builders run one by one, before any timing.
        fields: row fields of its own.
        config: its own configuration.
        refuse: why it is not even built; None if it is.
        guess: guessed seconds of a call; 0 where nothing is known.
        energy: metric of its energy on a GPU; None where it is not measured.
    """

    name: str
    build: Callable[[], Callable[[], object]]
    fields: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    refuse: Callable[[Context], Failure | None] = lambda _context: None
    guess: Callable[[], float] = lambda: 0.0
    energy: str | None = None


def timing_cell(
    title: str,
    metric: str,
    competitors: Sequence[Competitor],
    desk: Desk,
    *,
    identity: Mapping[str, Any],
    fields: Mapping[str, Any],
    config: Mapping[str, Any],
    scale: float = 1e3,
    energy_scale: float = 1.0,
    threads: int = 1,
    rounds: int = 11,
    timeout: float | None = None,
    more: Callable[[Context], list[Row]] = lambda _context: [],
) -> Cell:
    """Return the one cell of a joint timing; only it names its rivals.

    Args:
        title: one line for people.
        metric: of the times.
        competitors: who is timed.
        desk: device and progress.
        identity: what of the cell the competitors' names do not say.
        fields: row fields that the competitors share.
        config: configuration that they share.
        scale: units of the metric in a second.
        energy_scale: units of the energy metric in a call's joules.
        threads: torch threads.
        rounds: every round times every competitor once, in random order.
        timeout: seconds for all of them together, warm-up included; the fastest are taken first, as
            long as they fit. None: no limit.
        more: further rows of the cell.
    """
    limit = float("inf") if timeout is None else timeout
    calls = rounds + _BESIDE_ROUNDS

    def row(context: Context, competitor: Competitor, make: Callable[..., Row], *values: Any,
            **extra: Any) -> Row:  # fmt: skip
        own = {**competitor.fields, "config": {**competitor.config, **extra.pop("config", {})}}
        return make(context, metric, *values, **{**own, **extra})

    def execute(context: Context) -> list[Row]:
        ready: dict[str, tuple[Callable[[], object], float]] = {}
        rows = []
        torch.compiler.reset()  # it compiles a code object a few times only, then runs it eagerly
        for one in competitors:
            entered = _enter(one, context, desk, threads, calls, limit)
            if isinstance(entered, Failure):
                rows.append(row(context, one, missing, entered))
            else:
                ready[one.name] = entered
        for name, why in _over_budget(ready, calls, limit).items():
            del ready[name]
            rows.append(row(context, _named(competitors, name), missing, why))
        steps = {name: step for name, (step, _) in ready.items()}
        timings: dict[str, Timing] = {}
        if steps:
            _log.info("timing %s", ", ".join(steps))
            with desk.progress.task(title, rounds * len(steps)) as task:
                timings = time_interleaved(
                    steps, rounds=rounds, warm=True, threads=threads, device=desk.device,
                    progress=task.advance,
                )  # fmt: skip
        for name, timing in timings.items():
            one = _named(competitors, name)
            samples = [scale * seconds for seconds in timing.samples()]
            conditions = {"timing": _conditions(timing)}
            rows.append(row(context, one, measured, scale * timing.median, samples,
                            config=conditions))  # fmt: skip
            if one.energy is not None and _has_energy(desk.device):
                joules = energy_scale * _joules(steps[name], timing.median, desk.device)
                own = {**one.fields, "config": dict(one.config)}
                rows.append(measured(context, one.energy, joules, **own))
        return [*rows, *more(context)]

    def estimate() -> float:
        guesses = [calls * one.guess() for one in competitors]
        return sum(seconds for seconds in guesses if seconds <= limit)

    return Cell(
        title=title,
        identity={
            **identity,
            "rivals": sorted(one.name for one in competitors),
            "rounds": rounds,
            "timeout": timeout,
            **machine_identity(desk.device, threads),
        },
        fields={"kind": "cost", "precision": "float32", **fields},
        config={**config, "threads": threads, "device": desk.device.type},
        execute=execute,
        estimate=estimate,
        company="none",
    )


def works_timing_cell(
    work: str, entrants: Sequence[Entrant], at: At, desk: Desk, memory: Mapping[str, Cell]
) -> Cell:
    """Return the cell that times one work of several denoisers against each other.

    Args:
        work: see :data:`bench.cells.works.WORKS`.
        entrants: whose; those that do not do this work are left out.
        at: size, batch, threads, rounds, time.
        desk: device and progress.
        memory: by entrant the cell that measures whether the work fits.
    """
    kind = WORKS[work]

    def competitor(one: Entrant) -> Competitor:
        guess = partial(guess_seconds, work, one, at)

        def refuse(context: Context) -> Failure | None:
            if misfit := one.misfit(at.size):
                return Failure("skip", misfit)
            if why := not_fitting(context, memory.get(one.name)):
                return why
            why = hopeless(guess(), at.rounds + _BESIDE_ROUNDS, at.timeout)
            return None if why is None else Failure("skip", why)

        return Competitor(
            one.name,
            lambda: build_work(**one.arguments(work, at)).step,
            fields=one.fields,
            config=one.settings,
            refuse=refuse,
            guess=lambda: 0.0 if one.misfit(at.size) else guess(),
            energy=kind.energy,
        )

    does = [one for one in entrants if one.works((work,))]
    each = 1 / at.batch if work == "image" else 1.0
    return timing_cell(
        f"timing {work} {at.words}",
        kind.latency,
        [competitor(one) for one in does],
        desk,
        identity={
            "timing": work,
            "entrants": sorted((one.identity for one in does), key=repr),
            **at.fields,
        },
        fields={"method": "denoisers", **at.fields},
        config={},
        scale=kind.per_second * each,
        energy_scale=each,
        threads=at.threads,
        rounds=at.rounds,
        timeout=at.timeout,
    )


def _enter(
    one: Competitor, context: Context, desk: Desk, threads: int, calls: int, limit: float
) -> tuple[Callable[[], object], float] | Failure:
    """Build a competitor and time one call, unless it takes too much memory or time."""
    if why := one.refuse(context):
        return why
    try:
        with torch_threads(threads):
            step = one.build()
            seconds = _seconds(step, desk.device)
            if 2 * calls * seconds > limit:  # a first call may take twice the time
                seconds = min(seconds, _seconds(step, desk.device))
    except MissingError as error:
        return Failure("skip", str(error))
    except Exception as error:  # one competitor's failure; the others are timed
        return failure(error)
    return step, seconds


def _over_budget(
    ready: Mapping[str, tuple[object, float]], calls: int, limit: float
) -> dict[str, Failure]:
    """Return those that do not fit into one joint timing, taken from the fastest on."""
    left_out = {}
    together = 0.0
    for name, (_, seconds) in sorted(ready.items(), key=lambda item: item[1][1]):
        together += seconds
        if calls * together > limit:
            left_out[name] = Failure(
                "skip",
                f"{calls} rounds of about {together:.3g} s, its own share {seconds:.3g} s,"
                f" are more than {limit:g} s (--timeout)",
            )
    return left_out


def _named(competitors: Sequence[Competitor], name: str) -> Competitor:
    return next(one for one in competitors if one.name == name)


def _seconds(step: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    step()
    _synchronise(device)
    return time.perf_counter() - began


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _has_energy(device: torch.device) -> bool:
    return device.type == "cuda" and gpu_energy_joules(device.index) is not None


def _joules(step: Callable[[], object], seconds: float, device: torch.device) -> float:
    """Return the energy of one call, from enough of them for the counter to move."""
    calls = max(1, round(_ENERGY_SECONDS / seconds))
    step()
    _synchronise(device)
    before = gpu_energy_joules(device.index)
    for _ in range(calls):
        step()
    _synchronise(device)
    return (gpu_energy_joules(device.index) - before) / calls


def _conditions(timing: Timing) -> dict[str, Any]:
    """Return what a timing was taken under, for its row."""
    return {
        "clock": timing.clock,
        "threads": timing.threads,
        "rounds": len(timing.wall),
        "calls": timing.calls,
        "warmup": timing.warmup,
        "load": timing.load,
        "cores_held": round(timing.cpu_per_wall, 2),
        "gpu": timing.gpu_state,
    }


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Run the block with so many torch threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
