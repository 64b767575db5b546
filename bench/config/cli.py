"""What every command line shares: flags, log, exit codes."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from backbones import UnknownNameError
from bench.config.allocator import keep_freed_memory
from bench.config.errors import BenchError, ExitCode, UsageError

__all__ = ["CommonFlags", "RunFlags", "run_command"]

Flags = TypeVar("Flags")


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """Flags with the same name and meaning in everything that computes cells."""

    preset: Literal["smoke", "laptop", "paper"] = "laptop"
    """Scale of the run: smoke (no claim), laptop (two cores), paper (a GPU)."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    out: Path | None = None
    """Result folder; the same folder continues a run."""
    dry_run: bool = False
    """Show the cells, which are done and what the rest may cost; run nothing."""
    force: bool = False
    """Run cells again that are done; weights that are trained already are used as they are."""
    json: bool = False
    """Print the result as JSON."""
    quiet: bool = False
    """No progress bar and no log below warnings."""


@dataclass(frozen=True, kw_only=True)
class CommonFlags(RunFlags):
    """What they share who run experiments: backbones on a data set."""

    backbone: tuple[str, ...] = ("fno",)
    """Backbones by name or glob, e.g. fno attention_unet '*conv*'."""
    dataset: str = "sample"
    """sample (= sample-4), sample-8, or a folder of PanCollection HDF5 files."""
    sensor: str | None = None
    """Sensor of files that do not name theirs: WV3, WV2, QB, GF2, IKONOS, GeoEye1, none."""
    seed: tuple[int, ...] = ()
    """Seeds; empty means the preset's own."""
    override: tuple[str, ...] = ()
    """Config fields, e.g. stage1.steps=200 backbone.modes=16."""
    backbone_module: Path | None = None
    """Python file that registers a backbone of your own."""
    list: bool = False
    """List what can be named here (backbones, presets, datasets) and stop."""


def run_command(flags_type: type[Flags], main: Callable[[Flags], int], *, prog: str) -> None:
    """Parse ``sys.argv`` into ``flags_type``, run ``main``, and exit with its code.

    Standard output is left to ``main``; log, progress and errors go to standard error.
    """
    # Before torch loads its thread pool: threads that spin while they wait for each other make a
    # training step 20 times slower beside one busy neighbour; this little costs nothing alone.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    keep_freed_memory()
    import tyro

    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes)
    try:
        _refuse_repeats(sys.argv[1:])
        flags = tyro.cli(Annotated[(flags_type, *config)], prog=prog)  # exits with 2 on bad usage
        quiet = getattr(flags, "quiet", False)
        logging.basicConfig(
            level=logging.WARNING if quiet else logging.INFO,
            format="%(message)s",
            handlers=[_log_handler()],
            force=True,
        )
        code = main(flags)
    except KeyboardInterrupt:
        print("interrupted; the same command continues where it stopped", file=sys.stderr)
        code = ExitCode.INTERRUPTED
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except UnknownNameError as error:
        print(f"error: {error}", file=sys.stderr)
        code = ExitCode.USAGE
    sys.exit(int(code))


def _log_handler() -> logging.Handler:
    """Colours on a terminal; plain lines, not wrapped, in a file."""
    from rich.console import Console
    from rich.logging import RichHandler

    console = Console(stderr=True)
    if console.is_terminal:
        return RichHandler(console=console, show_path=False, show_time=False)
    return logging.StreamHandler()


def _refuse_repeats(arguments: Sequence[str]) -> None:
    """A flag given twice would lose its first values in silence."""
    names = [argument.partition("=")[0] for argument in arguments if argument.startswith("--")]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{name} is given twice; expected one {name} with all its values")
