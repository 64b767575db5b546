"""``--launcher``: the parts of a grid as jobs of a Slurm array, by submitit.

A job is the same command with ``--shard i/n``, so that it needs no locks on the cluster's folders.
When Slurm preempts it, or its time is over, it is told to stop - a training is saved -, and
submitit puts it back into the queue; one that ends by ``--time-limit`` is submitted again. In the
end the parts are merged.
"""

from __future__ import annotations

import logging
import math
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.config import ExitCode, MissingError, RunFlags, UsageError, stopping
from bench.records import merge_folders
from bench.running.desk import Desk

__all__ = ["Part", "launch"]

_log = logging.getLogger(__name__)
_OWN = ("--launcher", "--parts", "--slurm", "--json")
_ROUNDS = 20
"""How often a part is submitted again, and requeued, before somebody should look at it."""
_SPARE_MIN = 2
"""Minutes that a job may have beyond ``--time-limit``, in which it ends by itself."""


class Part:
    """A command as a job: returns its exit code; stopped and requeued when submitit says so.

    It is pickled by value and needs nothing of this house where it is run.
    """

    def __init__(self, command: Sequence[str]):
        self.command = list(command)
        self._process: Any = None

    def __call__(self) -> int:
        self._process = subprocess.Popen(self.command)
        return self._ended()

    def checkpoint(self) -> Any:
        """Let the command keep what it has, and return what to run when it is our turn again."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._ended()
        return DelayedSubmission(Part(self.command))

    def _ended(self) -> int:
        # Not wait(): the signal may come while it waits, and it cannot be entered twice.
        while self._process.poll() is None:
            time.sleep(0.2)
        return self._process.returncode


def launch(flags: RunFlags, desk: Desk, cells: int) -> ExitCode:
    """Run a grid as jobs, wait for them, and merge what they found into the grid's folder.

    Args:
        flags: of the command, which ``sys.argv`` still holds.
        desk: its folder.
        cells: how many there are.

    Returns:
        the worst of the jobs' exit codes.

    Raises:
        MissingError: submitit is not installed, or there is no Slurm.
        UsageError: settings that submitit does not know, or a job that failed.
    """
    if flags.launcher == "slurm" and flags.time_limit is None:
        raise UsageError("--launcher slurm: say how long a job may take, e.g. --time-limit 55m")
    executor = _executor(flags, desk.folder / "jobs")
    count = min(flags.parts, cells)
    shards = [f"{number}/{count}" for number in range(1, count + 1)]
    codes: dict[str, ExitCode] = {}
    left = shards
    for _ in range(_ROUNDS):
        codes |= _submitted(executor, {shard: Part(_command(shard)) for shard in left})
        left = [shard for shard in left if codes[shard] == ExitCode.CONTINUE]
        if not left:
            break
        _log.info("%d of %d parts go on", len(left), count)
    folders = [
        folder for folder in desk.folder.glob("shard-*") if (folder / "rows.jsonl").is_file()
    ]
    if folders:
        merge_folders(desk.folder, sorted(folders))
    return max(codes.values())


def _executor(flags: RunFlags, folder: Path) -> Any:
    try:
        import cloudpickle
        import submitit
    except ImportError as error:
        raise MissingError(
            "--launcher needs submitit: pip install 'nodiff-bench[slurm]'"
        ) from error
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    minutes = 60 * 24
    if flags.time_limit is not None:
        minutes = math.ceil(stopping.parse_duration(flags.time_limit) / 60) + _SPARE_MIN
    given = dict(_setting(item) for item in flags.slurm)
    try:
        executor = submitit.AutoExecutor(
            folder, cluster=flags.launcher, **_at_most(flags.launcher, _ROUNDS)
        )
        executor.update_parameters(**{"timeout_min": minutes, **given})
    except RuntimeError as error:  # no srun, e.g.
        raise MissingError(f"--launcher {flags.launcher}: {error}") from error
    except (NameError, TypeError, ValueError) as error:
        raise UsageError(f"--slurm: {' '.join(str(error).split())}") from error
    return executor


def _at_most(launcher: str, times: int) -> dict[str, int]:
    return {f"{launcher}_max_num_timeout": times}


def _setting(item: str) -> tuple[str, Any]:
    name, found, value = item.partition("=")
    if not (found and name and value):
        raise UsageError(f"--slurm {item}: expected name=value, e.g. slurm_partition=gpu")
    return name, int(value) if value.isdigit() else value


def _command(shard: str) -> list[str]:
    """Return this command for one part of its grid."""
    kept, own = [], False
    for word in sys.argv[1:]:
        if word.startswith("--"):
            own = word.partition("=")[0] in _OWN
        if not own:
            kept.append(word)
    return [sys.executable, str(Path(sys.argv[0]).resolve()), *kept, "--shard", shard]


def _submitted(executor: Any, parts: dict[str, Part]) -> dict[str, ExitCode]:
    """Run parts as one array; return their exit codes."""
    with executor.batch():
        jobs = {shard: executor.submit(part) for shard, part in parts.items()}
    _log.info("jobs %s", ", ".join(job.job_id for job in jobs.values()))
    codes = {}
    try:
        for shard, job in jobs.items():
            code = _result(job)
            if code not in (ExitCode.OK, ExitCode.SOME_FAILED, ExitCode.CONTINUE):
                raise UsageError(
                    f"part {shard} ended with exit code {code}; see {job.paths.stderr}"
                )
            codes[shard] = ExitCode(code)
    except BaseException:
        for job in jobs.values():  # what one starts one ends
            job.cancel(check=False)
        raise
    return codes


def _result(job: Any) -> int:
    from submitit.core.utils import FailedJobError, FailedSubmissionError, UncompletedJobError

    try:
        return job.result()
    except (FailedJobError, FailedSubmissionError, UncompletedJobError) as error:
        last = str(error).strip().splitlines()[-1]
        raise UsageError(f"job {job.job_id} failed: {last}; see {job.paths.stderr}") from error
