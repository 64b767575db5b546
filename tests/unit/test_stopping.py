"""Stopping in time: nothing begun that cannot end, nothing lost that was done."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.config import ExitCode, StageConfig, UsageError, stopping
from bench.measure import run_isolated
from bench.records import RunFolder
from bench.running import Cell
from bench.running.engine import run_cells
from bench.training import Batch, Checkpoint, train

CPU = torch.device("cpu")
STEPS = 27


@pytest.fixture(autouse=True)
def handlers(monkeypatch):
    """Signals mean again what they meant before, and nothing has been asked for."""
    monkeypatch.setattr(stopping, "_stop", stopping._Stop())
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("text", "seconds"), [("55m", 3300), ("1h30m", 5400), ("90s", 90), ("1d2h", 93600)]
)  # fmt: skip
def test_durations(text, seconds):
    assert stopping.parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "likely"), [("55", "55m"), ("0m", "55m"), ("soon", "55m"), ("-5m", "55m"), ("", "55m")]
)
def test_what_is_no_duration_is_one_line(text, likely):
    with pytest.raises(UsageError, match=f"^--time-limit {text}: .* e.g. {likely}$"):
        stopping.parse_duration(text)


def test_a_stop_waits_for_what_is_worth_keeping_and_a_second_ctrl_c_does_not():
    stopping.listen()
    kept = []
    with pytest.raises(stopping.Stopped, match="SIGTERM"), stopping.deferred() as asked:
        assert not asked()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked()
        kept.append(1)
    with pytest.raises(KeyboardInterrupt), stopping.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        kept.append(2)
    assert kept == [1]


def test_without_such_work_a_stop_is_at_once():
    stopping.listen()
    with pytest.raises(stopping.Stopped):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        pytest.fail("it went on")


def test_a_limit_rings_before_it():
    stopping.listen()
    began = time.monotonic()
    with pytest.raises(stopping.Stopped, match=stopping.TIME_LIMIT), stopping.limited(1.0):
        time.sleep(5)
    assert 0.8 < time.monotonic() - began < 5
    assert stopping.seconds_left() == math.inf


# Trainings


def training(root, batches=None, report=None):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Dropout(0.5), nn.Conv2d(3, 2, 1))
    checkpoint = Checkpoint(root, {"training": "toy"})

    def objective(network, batch, generator):
        return network(batch.gt).square().mean()

    def images(step: int) -> Batch:
        image = torch.rand(2, 2, 6, 6, generator=torch.Generator().manual_seed(step))
        return Batch(image, image, image[:, :1])

    history = train(
        module, objective, lambda step: (batches or (lambda _: None))(step) or images(step),
        StageConfig(batch=2, learning_rate=1e-2), steps=STEPS, seed=0, checkpoint=checkpoint,
        device=CPU, validate=lambda network: network[0].weight.sum().item(), report=report,
    )  # fmt: skip
    return module, history


@pytest.mark.parametrize("at", [0, 4, 10, 19, STEPS - 2])
def test_a_training_that_is_stopped_at_any_step_goes_on_as_if_it_had_not_been(at, tmp_path):
    whole, wanted = training(tmp_path / "whole")

    def stop(step: int) -> None:
        if step == at:
            os.kill(os.getpid(), signal.SIGTERM)

    stopping.listen()
    with pytest.raises(stopping.Stopped):
        training(tmp_path / "parts", stop)
    (state,) = Checkpoint(tmp_path / "parts", {"training": "toy"}).folder.glob("step-*")
    assert state.name == f"step-{at + 1}"
    stopping._stop.reason = None
    begun = []
    module, history = training(tmp_path / "parts", begun.append)
    assert begun == list(range(at + 1, STEPS))
    assert list(map(tuple, history.loss)) == wanted.loss
    assert list(map(tuple, history.validation)) == wanted.validation
    assert all(map(torch.equal, whole.parameters(), module.parameters()))
    kept = json.loads((state.parent / "history.json").read_text())
    assert kept.keys() == {"loss", "validation", "seconds"}


def test_a_training_whose_time_is_over_is_saved(tmp_path):
    with pytest.raises(stopping.Stopped, match=stopping.TIME_LIMIT), stopping.limited(1e-3):
        time.sleep(0.01)
        training(tmp_path)
    assert [p.name for p in tmp_path.glob("*/step-*")] == ["step-1"]


# Grids


def cell(name: str, seconds: float | None, calls: list, resumes: bool | None = None) -> Cell:
    def execute(context):
        calls.append(name)
        return [context.row(metric="PSNR", value=1.0)]

    return Cell(
        name, {"cell": name}, {"method": name}, execute,
        estimate=None if seconds is None else lambda: seconds,
        resumes=None if resumes is None else lambda: resumes,
    )  # fmt: skip


def run(cells, folder, limit):
    with stopping.limited(limit):
        return run_cells(cells, folder, protocol="toy", version=1, config={})


def test_no_cell_is_begun_that_is_estimated_not_to_end(tmp_path, caplog):
    calls = []
    cells = [cell("short", 10, calls), cell("long", 900, calls), cell("unknown", None, calls),
             cell("resumes", 9000, calls, True), cell("trained", 9000, calls, False)]  # fmt: skip
    with caplog.at_level(logging.INFO):
        assert run(cells, tmp_path, 600.0) == ExitCode.CONTINUE
    assert calls == ["short", "unknown", "resumes"]
    assert "long: left for want of time" in caplog.text and "the same command" in caplog.text
    assert run(cells, tmp_path, None) == ExitCode.OK
    assert calls == ["short", "unknown", "resumes", "long", "trained"]


def test_a_cell_that_no_time_of_this_length_suffices_for_is_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"long is estimated at 15 min, more than .*9 min"):
        run([cell("long", 900, [])], tmp_path, 600.0)
    assert not RunFolder(tmp_path).latest()


def test_after_the_end_nothing_is_begun(tmp_path):
    calls = []
    with stopping.limited(1e-3):
        time.sleep(0.01)
        code = run_cells([cell("resumes", 1, calls, True)], tmp_path, protocol="toy", version=1,
                         config={})  # fmt: skip
    assert code == ExitCode.CONTINUE and not calls


# Fresh processes


def dwell(place: str, ends: str) -> None:
    """What a fresh process does: say that it is there, then wait, or be killed once told to."""
    Path(place).touch()
    while not Path(ends).exists():
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGKILL)


def memory_cell(name: str, folder: Path) -> Cell:
    def execute(context):
        arguments = {"place": str(folder / name), "ends": str(folder / "ends")}
        result = run_isolated(f"{__file__}:dwell", arguments, timeout=120)
        return [context.row(metric="mem_peak_scene", status=result.status, reason=result.reason)]

    return Cell(name, {"cell": name}, {"method": name}, execute, company="threads")


def until(happened) -> None:
    end = time.monotonic() + 120
    while not happened() and time.monotonic() < end:
        time.sleep(0.02)
    assert happened()


def test_what_a_stop_ends_is_no_result_and_nothing_is_said_of_it(tmp_path, caplog):
    stopping.listen()
    places = [tmp_path / name for name in "ab"]
    before = threading.active_count()

    def stop():
        until(lambda: all(place.exists() for place in places))
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    with pytest.raises(stopping.Stopped, match="SIGTERM"):
        run([memory_cell(place.name, tmp_path) for place in places], tmp_path / "out", None)
    until(lambda: threading.active_count() <= before)
    assert not RunFolder(tmp_path / "out").latest() and "oom" not in caplog.text
    (record,) = RunFolder(tmp_path / "out").runs().values()
    assert record["status"] == "interrupted"


def test_one_that_a_stop_reached_before_us_is_no_result_either(tmp_path, monkeypatch):
    """As when all processes of a job are told to end at once."""
    (tmp_path / "ends").touch()
    arguments = {"place": str(tmp_path / "place"), "ends": str(tmp_path / "ends")}
    assert run_isolated(f"{__file__}:dwell", arguments, timeout=120).status == "oom"
    told = iter([None, "SIGTERM", "SIGTERM"])
    monkeypatch.setattr(stopping, "asked", lambda: next(told))
    with pytest.raises(stopping.Stopped, match="SIGTERM"):
        run_isolated(f"{__file__}:dwell", arguments, timeout=120)


def test_none_is_begun_once_a_stop_has_been_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(stopping._stop, "reason", "SIGTERM")
    with pytest.raises(stopping.Stopped, match="SIGTERM"):
        run_isolated(f"{__file__}:dwell", {"place": str(tmp_path / "place"), "ends": ""})
    assert not (tmp_path / "place").exists()
