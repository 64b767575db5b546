"""What every command line shares: flags, log, exit codes."""

from __future__ import annotations

import logging
import os
import sys
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from backbones.names import MissingExtraError, UnknownNameError, nearest
from bench.config import stopping
from bench.config.allocator import keep_freed_memory
from bench.config.errors import BenchError, ExitCode, UsageError
from bench.config.exhaustion import is_out_of_memory
from bench.config.shards import Shard

__all__ = ["CommonFlags", "RunFlags", "prepare_process", "run_command"]

Flags = TypeVar("Flags")


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """Flags with the same name and meaning in everything that computes cells."""

    preset: Literal["smoke", "laptop", "workstation", "paper"] = "laptop"
    """Scale of the run: smoke (no claim), laptop (two cores), workstation (two cores and an
    evening: several seeds), paper (a GPU)."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    out: Path | None = None
    """Result folder; the same folder continues a run."""
    dry_run: bool = False
    """Show the cells, which are done and what the rest may cost; run nothing."""
    force: bool = False
    """Run cells again that are done; weights that are trained already are used as they are."""
    jobs: int | None = None
    """Cells at once, each in a process of its own with its share of the threads; what measures
    time still runs alone. By default one for each core in studies that train many small networks
    on a CPU (not with smoke), else one."""
    shard: str | None = None
    """i/n: part i of n of the grid, into a folder of its own (shard-i-of-n below --out), for
    machines that share no folder, or one without locks. bench/merge.py puts them together."""
    launcher: Literal["slurm", "local"] | None = None
    """Run parts of the grid as jobs, a Slurm array or processes here, and merge them (needs
    submitit: the extra slurm); --time-limit is a job's."""
    parts: int = 4
    """Jobs of --launcher; each takes the part of the grid that --shard would give it."""
    slurm: tuple[str, ...] = ()
    """What submitit is told of a job, e.g. slurm_partition=gpu gpus_per_node=1 cpus_per_task=8."""
    time_limit: str | None = None
    """Stop before so long, e.g. 55m or 1h30m: nothing is begun that is estimated not to end by
    then, a training is saved half-way, and exit code 75 says to run the same command again."""
    deterministic: bool = False
    """The same command gives the same rows to the last bit, whatever --jobs: one thread a process,
    and no operator whose order of summation is left to chance (one that has no other way fails)."""
    log: tuple[Literal["tensorboard", "trackio"], ...] = ()
    """Also write training curves and rows there as they come; packages of their own, both local."""
    json: bool = False
    """Print the result as JSON."""
    quiet: bool = False
    """No progress bar and no log below warnings."""

    def check(self) -> None:
        """Refuse numbers that no command could mean, before any work.

        Raises:
            UsageError: a count below one, a seed below zero, a duration that is not positive, a
                shard or a time that is none.
        """
        for name, value in vars(self).items():
            least = 0 if name == "seed" else 1
            for number in value if isinstance(value, tuple) else (value,):
                flag = f"--{name.replace('_', '-')}"
                if isinstance(number, bool):
                    continue
                if isinstance(number, int) and number < least:
                    raise UsageError(f"{flag} = {number}: expected at least {least}")
                if isinstance(number, float) and not number > 0:
                    raise UsageError(f"{flag} = {number:g}: expected more than 0")
        if self.shard is not None:
            Shard.parse(self.shard)
        if self.launcher is not None and self.shard is not None:
            raise UsageError("--launcher gives each of its jobs a --shard; give one of the two")
        if self.time_limit is not None:
            stopping.parse_duration(self.time_limit)


@dataclass(frozen=True, kw_only=True)
class CommonFlags(RunFlags):
    """What they share who run experiments: backbones on a data set."""

    backbone: tuple[str, ...] = ("fno",)
    """Backbones by name or glob, e.g. fno attention_unet '*conv*'."""
    dataset: str = "sample"
    """sample (= sample-4), sample-4-x2, sample-8, sample-pan, or PanCollection's: an HDF5
    file or a folder of them (bench/prepare.py --check says what they hold), or test images in .mat
    files."""
    sensor: str | None = None
    """Sensor of files that do not name theirs: WV3, WV2, QB, GF2, IKONOS, GeoEye1, none."""
    seed: tuple[int, ...] = ()
    """Seeds; empty means the preset's own."""
    retrain: bool = False
    """Like --force, and train again, too: the weights that these cells would use are dropped."""
    override: tuple[str, ...] = ()
    """Config fields, e.g. steps=200 backbone.modes=16."""
    backbone_module: tuple[str, ...] = ()
    """Python files, folders of packages or importable packages that register backbones of your
    own."""
    list: bool = False
    """List what can be named here (backbones, presets, datasets) and stop."""


def run_command(flags_type: type[Flags], main: Callable[[Flags], int], *, prog: str) -> None:
    """Parse ``sys.argv`` into ``flags_type``, run ``main``, and exit with its code.

    Standard output is left to ``main``; log, progress and errors go to standard error.
    """
    prepare_process()
    import tyro

    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes)
    try:
        stopping.listen()
        for stream in (sys.stdout, sys.stderr):  # a console that knows no arrow prints a question
            stream.reconfigure(errors="replace")
        _refuse_repeats(sys.argv[1:])
        _refuse_choices(sys.argv[1:], flags_type)
        flags = tyro.cli(Annotated[(flags_type, *config)], prog=prog)  # exits with 2 on bad usage
        _start_log(getattr(flags, "quiet", False))
        code = main(flags)
    except KeyboardInterrupt as error:
        late = error.args == (stopping.TIME_LIMIT,)
        why = "stopped by --time-limit" if late else "interrupted"
        print(f"{why}; the same command continues where it stopped", file=sys.stderr)
        code = ExitCode.CONTINUE if late else ExitCode.INTERRUPTED
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        # A backbone that cannot be built for want of memory is no bad usage.
        code = ExitCode.SOME_FAILED if is_out_of_memory(error) else error.exit_code
    except UnknownNameError as error:
        print(f"error: {error}", file=sys.stderr)
        code = ExitCode.USAGE
    except MissingExtraError as error:
        print(f"error: {error}", file=sys.stderr)
        code = ExitCode.MISSING
    except (MemoryError, RuntimeError, ImportError) as error:
        if not is_out_of_memory(error):
            raise
        print(f"error: out of memory: {str(error).splitlines()[0]}", file=sys.stderr)
        code = ExitCode.SOME_FAILED
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = ExitCode.SOME_FAILED
    except OSError as error:
        # Disk full, read-only, no permission, a file where a folder is asked for.
        place = f": {error.filename}" if error.filename is not None else ""
        print(f"error: {error.strerror or error}{place}", file=sys.stderr)
        code = ExitCode.MISSING
    sys.exit(int(code))


def _refuse_choices(arguments: Sequence[str], flags_type: type) -> None:
    """Name the nearest choice of a flag that has a fixed list of them."""
    for name, hint in typing.get_type_hints(flags_type).items():
        choices = _choices(hint)
        flag = f"--{name.replace('_', '-')}"
        for at, argument in enumerate(arguments) if choices else ():
            given, found, value = argument.partition("=")
            if given.replace("_", "-") != flag:
                continue
            value = value if found else "".join(arguments[at + 1 : at + 2])
            if value not in choices:
                known = ", ".join(choices)
                raise UsageError(f"{flag} {value!r}{nearest(value, choices)} (one of: {known})")


def _choices(hint: Any) -> tuple[str, ...]:
    """Return the words that an annotation admits; none where it admits others, too."""
    if typing.get_origin(hint) is Literal:
        return typing.get_args(hint)
    parts = [part for part in typing.get_args(hint) if part is not type(None)]
    return _choices(parts[0]) if len(parts) == 1 and typing.get_origin(hint) is not tuple else ()


def prepare_process(quiet: bool | None = None) -> None:
    """Set up a process that computes, before it imports torch.

    Args:
        quiet: also start the log, with warnings alone if it is true.
    """
    # Before torch loads its thread pool: threads that spin while they wait for each other make a
    # training step 20 times slower beside one busy neighbour; this little costs nothing alone.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    keep_freed_memory()
    if quiet is not None:
        _start_log(quiet)


def _start_log(quiet: bool) -> None:
    logging.basicConfig(
        level=logging.WARNING if quiet else logging.INFO,
        format="%(message)s",
        handlers=[_log_handler()],
        force=True,
    )


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
