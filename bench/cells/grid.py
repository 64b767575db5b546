"""The cells that a denoiser's cost takes, at one size and batch: what is shared, what is joint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.cells.conditions import At
from bench.cells.counted import counted_cell
from bench.cells.experiments import check_contract
from bench.cells.memory import fit_cell, memory_cell
from bench.cells.timing import works_timing_cell
from bench.cells.works import WORKS, Entrant
from bench.config import CommonFlags, UsageError
from bench.fusion import FUSION_METHODS
from bench.recipes import method_experiment, method_training
from bench.running import Cell, Desk

__all__ = ["cost_cells", "cost_entrants"]


def cost_entrants(flags: CommonFlags, desk: Desk, bands: int) -> list[Entrant]:
    """Return the denoisers and deep methods that the flags name, once each, settings checked.

    Args:
        flags: of the command; its ``method``, where it has one, names deep methods.
        desk: of the command.
        bands: s, spectral bands.

    Raises:
        UsageError: a method that has no network; a setting that cannot be.
    """
    configs = {config.backbone: config for config in desk.experiments()}
    labels = {"preset": flags.preset}
    entrants = [Entrant(one, bands, flags.backbone_module, labels) for one in configs.values()]
    for name in FUSION_METHODS.match(getattr(flags, "method", ())):
        if method_training(name) is None:
            raise UsageError(f"--method {name}: it has no network, its cost is an image's time")
        config = method_experiment(name, flags.preset, flags.override)
        entrants.append(Entrant(config, bands, (), labels, method=name))
    for one in entrants:
        if not one.deep:
            check_contract(one.recipe)
        one.recipe.check()
    return entrants


def cost_cells(
    entrants: Sequence[Entrant],
    works: Sequence[str],
    at: At,
    desk: Desk,
    *,
    stock: bool = False,
    modules: bool = False,
    fit: str | None = None,
) -> Iterator[Cell]:
    """Yield the cells of one size and batch: memory, counts, joint timings, what fits.

    Args:
        entrants: whose cost.
        works: see :data:`bench.cells.works.WORKS`.
        at: size, batch, device, threads, rounds, time.
        desk: device and progress.
        stock: also ask stock FLOP counters.
        modules: also keep FLOPs by module.
        fit: memory, e.g. ``8GiB``: also search for what fits within it.

    Raises:
        UsageError: no entrant takes images of this size.
    """
    misfits = [one.misfit(at.size) for one in entrants]
    if entrants and all(misfits):  # what only some do not take is a row of theirs
        raise UsageError(misfits[0])
    weighed = dict.fromkeys(WORKS[work].fits_as or work for work in works)
    memory = {
        (work, one.name): memory_cell(one, work, at)
        for one in entrants
        for work in one.works(tuple(weighed))
    }
    yield from memory.values()
    for one in entrants:
        fits = memory.get(("forward", one.name))
        yield counted_cell(one, works, at, stock=stock, modules=modules, fits=fits)
    for work in works:
        fits_as = WORKS[work].fits_as or work
        of_each = {one: cell for (kind, one), cell in memory.items() if kind == fits_as}
        yield works_timing_cell(work, entrants, at, desk, of_each)
    for one in entrants if fit is not None else ():
        yield fit_cell(one, fit, at)
