"""The one loop: AdamW, mixed precision, clipping, EMA, validation, exact resume.

Every step reseeds from (seed, step), as the code of EDM2 does (Karras et al. 2024), and batches are
a function of the step, so a resumed run walks the same path as one that was never stopped.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn

from bench.config import Precision, StageConfig, derive_seed, stopping
from bench.config.progress import Progress
from bench.training.batches import Batch
from bench.training.checkpoints import Checkpoint
from bench.training.files import not_finite
from bench.training.objectives import Objective
from bench.training.parallel import mean as over_ranks
from bench.training.parallel import parallel_loss, ranks, share_states

__all__ = ["DivergedError", "History", "Stepper", "learning_rate", "train"]

_LOG_EVERY = 10  # steps between looks at the loss: a look waits for the GPU
_CHECKPOINT_EVERY_S = 60.0
_VALIDATIONS = 5


class DivergedError(ArithmeticError):
    """The loss or a weight is no longer finite."""


@dataclass
class History:
    """What a training leaves behind besides weights.

    Attributes:
        loss: (steps done, mean loss since the last entry), every 10 steps and after the last.
        validation: (steps done, validation loss of the averaged weights).
        seconds: wall time of the steps, their batches included, validation and saving not; over all
            sessions, without steps that were done again.
    """

    loss: list[tuple[int, float]] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0


def learning_rate(config: StageConfig, step: int, steps: int) -> float:
    """Return the rate of a step: after a linear warm-up constant, along a cosine, or in stairs.

    The cosine falls towards 1 % of the rate, which step ``steps`` would have. Stairs are counted
    from the first step, warm-up included.

    Args:
        config: peak rate, schedule and warm-up.
        step: 0 to ``steps`` - 1.
        steps: of the whole training.
    """
    warmup = round(config.warmup * steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    if config.schedule == "cosine":
        share = (step - warmup) / max(steps - warmup, 1)
        return config.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * share)) / 2)
    if config.schedule == "step":
        return config.learning_rate * config.step_factor ** (step // config.step_every)
    return config.learning_rate


class Stepper:
    """One optimiser step: forward, backward, clipping, AdamW, EMA.

    Args:
        module: on its device; parameters with ``requires_grad`` are trained.
        objective: loss of a batch.
        config: optimisation.
        steps: of the whole training.
        seed: base seed of noise and dropout.
        precision: of the forward pass; half ones by autocast. float16, whose small gradients
            vanish, scales the loss, and leaves out a step whose gradients overflow.
        parallel: whether the processes of :func:`bench.training.parallel.group` each take a part
            of every batch.

    Attributes:
        average: a copy of ``module`` with averaged weights and the latest buffers; takes no
            gradients. At step n > 0 the decay is min(``ema_decay``, (1 + n) / (10 + n)), as
            TensorFlow's with ``num_updates``.
        optimizer: AdamW over the trained parameters.
        scaler: of the loss; without effect but for float16.
    """

    def __init__(
        self,
        module: nn.Module,
        objective: Objective,
        config: StageConfig,
        *,
        steps: int,
        seed: int,
        precision: Precision = "float32",
        parallel: bool = False,
    ):
        self.module, self.config = module, config
        self.objective = parallel_loss(module, objective) if parallel else objective
        self.steps, self.seed = steps, seed
        self.average = copy.deepcopy(module).requires_grad_(False)
        self._parameters = [p for p in module.parameters() if p.requires_grad]
        self._averages = [
            average
            for average, p in zip(self.average.parameters(), module.parameters(), strict=True)
            if p.requires_grad
        ]
        self.optimizer = torch.optim.AdamW(
            self._parameters, lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self._generator = torch.Generator()
        self._device = self._parameters[0].device.type
        self._half = None if precision == "float32" else getattr(torch, precision)
        self.scaler = torch.amp.GradScaler(self._device, enabled=precision == "float16")

    def __call__(self, step: int, batch: Batch) -> Tensor:
        """Take step number ``step``, from 0, on ``batch``, which is on the module's device.

        Returns:
            The loss before the step, a detached scalar, without waiting for the GPU.
        """
        step_seed = derive_seed(self.seed, "step", step)
        torch.manual_seed(step_seed)
        self._generator.manual_seed(step_seed)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, step, self.steps)
        with torch.autocast(self._device, self._half) if self._half else nullcontext():
            loss = self.objective(self.module, batch, self._generator)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self._parameters, self.config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._update_average(step)
        return loss.detach()

    @torch.no_grad()
    def _update_average(self, step: int) -> None:
        # Starts as a copy; the growing decay then lets a short run forget its initialisation.
        decay = min(self.config.ema_decay, (1 + step) / (10 + step)) if step else 0.0
        torch._foreach_lerp_(self._averages, self._parameters, 1 - decay)
        for average, current in zip(self.average.buffers(), self.module.buffers(), strict=True):
            average.copy_(current)


def train(
    module: nn.Module,
    objective: Objective,
    batches: Callable[[int], Batch],
    config: StageConfig,
    *,
    steps: int,
    seed: int,
    checkpoint: Checkpoint | None,
    device: torch.device,
    precision: Precision = "float32",
    validate: Callable[[nn.Module], float] | None = None,
    progress: Progress | None = None,
    report: Callable[[int, Mapping[str, float]], None] | None = None,
    name: str = "training",
) -> History:
    """Train ``module`` in place; it ends in evaluation mode with the averaged weights.

    Args:
        module: parameters with ``requires_grad`` are trained, the others stay bit-identical.
        objective: loss of a batch.
        batches: step -> batch, on any device.
        config: optimisation.
        steps: how many, those that a checkpoint has already among them.
        seed: base seed of noise and dropout.
        checkpoint: where to resume from and to save to, at the end the averaged weights; None in
            all but the first of processes that train together.
        device: where to train.
        precision: as of :class:`Stepper`.
        validate: loss of the averaged module, in evaluation mode; called after each fifth of the
            steps.
        progress: where to show it.
        report: (steps done, values by name), where losses are looked at, and after a validation.
        name: shown in the progress.

    Raises:
        DivergedError: the loss or a weight, averaged or not, became NaN or infinite.
        Stopped: it was asked to (:mod:`bench.config.stopping`); what it had reached is saved.
    """
    progress = progress or Progress(quiet=True)
    module.to(device).train()
    here = ranks()
    stepper = Stepper(
        module, objective, config, steps=steps, seed=seed, precision=precision,
        parallel=here.count > 1,
    )  # fmt: skip
    parts = module, stepper.average, stepper.optimizer
    start, state = share_states(checkpoint.load_step(*parts) if checkpoint else None, *parts)
    recent = [torch.tensor(loss, device=device) for loss in state.pop("recent", ())]
    stepper.scaler.load_state_dict(state.pop("scaler", {}) or stepper.scaler.state_dict())
    history = History(**state)
    validate_at = {round(steps * (i + 1) / _VALIDATIONS) for i in range(_VALIDATIONS)}
    saved_at = time.perf_counter()

    def save(done: int) -> None:
        # Losses that no mean has taken in yet, so that a resume means what was not interrupted.
        further = {"recent": torch.stack(recent).tolist()} if recent else {}
        if scaling := stepper.scaler.state_dict():
            further["scaler"] = scaling
        if checkpoint is not None:
            checkpoint.save_step(done, *parts, asdict(history) | further)

    with stopping.deferred() as asked_to_stop, progress.task(name, steps, start) as task:
        for step in range(start, steps):
            began = time.perf_counter()
            recent.append(stepper(step, batches(step).to(device)))
            done = step + 1
            if done % _LOG_EVERY == 0 or done == steps:
                mean = over_ranks(torch.stack(recent).mean().item(), device)
                recent.clear()
                if not math.isfinite(mean):
                    raise DivergedError(f"{name}: loss {mean} at step {done}")
                _check_weights(name, done, module, stepper.average)
                history.loss.append((done, mean))
                if report is not None:
                    rate = stepper.optimizer.param_groups[0]["lr"]
                    report(done, {"loss": mean, "learning_rate": rate})
            history.seconds += time.perf_counter() - began
            if validate is not None and done in validate_at:
                stepper.average.eval()
                history.validation.append((done, validate(stepper.average)))
                if report is not None:
                    report(done, {"validation_loss": history.validation[-1][1]})
            task.advance(f"loss {history.loss[-1][1]:.4f}" if history.loss else "")
            now = time.perf_counter()
            stop = asked_to_stop() and done < steps
            if here.count > 1:  # all of them, at the same step
                stop = not recent and done < steps and over_ranks(float(stop), device) > 0
            # Otherwise where the loss has been looked at: another look would wait for the GPU.
            if stop or (now - saved_at > _CHECKPOINT_EVERY_S and not recent):
                save(done)
                saved_at = now
            if stop:
                break
        else:
            module.load_state_dict(stepper.average.state_dict())
            module.eval()
            _check_weights(name, steps, module)
            if checkpoint is not None:
                checkpoint.finish(module, asdict(history))
    return history


def _check_weights(name: str, step: int, *modules: nn.Module) -> None:
    for module in modules:
        if bad := not_finite(module.state_dict()):
            raise DivergedError(f"{name}: {bad} is not finite at step {step}")
