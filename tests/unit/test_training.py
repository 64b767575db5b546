"""The training loop: batches, losses, averaging, checkpoints, and resume to the last bit."""

from __future__ import annotations

import copy
import itertools
import json
import logging
import math
import pickle
import shutil
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from backbones import create_backbone
from bench.adapters import AdaptedDenoiser
from bench.adapters.wavelets import ddif_condition
from bench.config import AdapterConfig, DiffusionConfig, StageConfig, UsageError
from bench.config.progress import Progress
from bench.diffusion import Diffusion
from bench.records import LostLeaseError
from bench.training import (
    AdaptedObjective,
    Batch,
    Checkpoint,
    CheckpointError,
    DivergedError,
    PatchBatches,
    PlainObjective,
    Stepper,
    checkpoints,
    loop,
    train,
)
from bench.training.files import not_finite
from bench.training.loop import learning_rate

CPU = torch.device("cpu")
BANDS, SIDE, COUNT = 2, 16, 12
DIFFUSION = Diffusion(DiffusionConfig(target="x0", residual_scale=10.0))


def toy_patches():
    """Smooth references, their blurred copies, and a band sum for PAN."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(COUNT, BANDS, 6, 6, generator=generator)
    gt = nn.functional.interpolate(coarse, SIDE, mode="bicubic").clamp(0, 1)
    lms = nn.functional.avg_pool2d(gt, 5, stride=1, padding=2, count_include_pad=False)
    return gt, lms, gt.mean(dim=1, keepdim=True)


def toy_batches(batch: int = 4, seed: int = 0) -> PatchBatches:
    return PatchBatches(*toy_patches(), patch=SIDE, batch=batch, seed=seed)


def network() -> nn.Module:
    torch.manual_seed(0)
    module = create_backbone("fno", BANDS, BANDS, width=8, layers=2, modes=4)
    nn.init.normal_(module.head.weight, std=0.1)  # a fresh head of zeros stops all gradients
    return module


class Noisy(nn.Module):
    """A network whose training consumes the global random state, and which has a buffer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(2 * BANDS, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.last = nn.Conv2d(8, BANDS, 1)

    def forward(self, x, time, cond):
        feature = self.norm(self.first(torch.cat([x, cond], dim=1)))
        return self.last(nn.functional.dropout(feature.relu(), 0.3, self.training))


def run(
    module, root, steps=20, seed=0, objective=None, batches=None, name="x", precision="float32",
    **options,
):  # fmt: skip
    config = StageConfig(batch=4, **{"learning_rate": 5e-3, **options})
    checkpoint = Checkpoint(root, {"name": name})
    history = train(
        module,
        objective or PlainObjective(DIFFUSION, "reference"),
        batches or toy_batches(),
        config,
        steps=steps,
        seed=seed,
        checkpoint=checkpoint,
        device=CPU,
        precision=precision,
    )
    return checkpoint, history


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


# Batches


def numbered(count: int, side: int, channels: int = 1) -> torch.Tensor:
    """Every pixel tells its patch, row and column."""
    index = torch.arange(count * side * side).view(count, 1, side, side)
    return index.expand(-1, channels, -1, -1).double()


def test_an_epoch_shows_every_patch_once():
    images = numbered(12, 1)
    batches = PatchBatches(images, images, images, patch=1, batch=4, seed=0)
    epochs = [
        torch.cat([batches(step).gt.flatten() for step in range(3 * e, 3 * e + 3)])
        for e in range(3)
    ]
    assert all(sorted(epoch.tolist()) == list(range(12)) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1]) and not torch.equal(epochs[1], epochs[2])


def test_the_last_short_batch_is_dropped_but_not_always_the_same_patches():
    images = numbered(10, 1)
    batches = PatchBatches(images, images, images, patch=1, batch=4, seed=0)
    epochs = [
        {int(x) for step in (2 * e, 2 * e + 1) for x in batches(step).gt.flatten()}
        for e in range(6)
    ]
    assert all(len(epoch) == 8 for epoch in epochs)
    assert set.union(*epochs) == set(range(10))


def test_a_batch_is_a_function_of_seed_and_step():
    one, two, other = toy_batches(), toy_batches(), toy_batches(seed=1)
    for step in (7, 0, 100, 7):
        assert torch.equal(one(step).lms, two(step).lms)
    assert not torch.equal(one(0).gt, other(0).gt)
    assert not torch.equal(one(0).gt, one(3).gt)


def test_larger_patches_are_cropped_alike_in_every_image():
    gt, pan = numbered(6, 9, channels=3), numbered(6, 9)
    batches = PatchBatches(gt, gt + 0.5, pan, patch=4, batch=2, seed=0)
    corners = set()
    for step in range(60):
        batch = batches(step)
        assert batch.gt.shape == (2, 3, 4, 4) and batch.pan.shape == (2, 1, 4, 4)
        assert torch.equal(batch.lms, batch.gt + 0.5)
        assert torch.equal(batch.gt[:, :1], batch.pan)
        first = batch.pan[:, :, :1, :1]
        window = torch.arange(4)[:, None] * 9 + torch.arange(4)
        assert torch.equal(batch.pan - first, window.expand(2, 1, 4, 4).double())
        corners.add(int(first[0]) % 81)
    tops, lefts = {corner // 9 for corner in corners}, {corner % 9 for corner in corners}
    assert tops == lefts == set(range(6))


@pytest.mark.parametrize(
    ("patch", "batch", "message"),
    [(17, 4, "patch = 17: .*16 pixels"), (16, 13, "batch = 13: .*only 12 patches")],
)
def test_what_the_training_set_cannot_give_is_refused(patch, batch, message):
    with pytest.raises(UsageError, match=message):
        PatchBatches(*toy_patches(), patch=patch, batch=batch, seed=0)


# Losses


class Silent(nn.Module):
    """Answers nothing, and remembers what it was asked."""

    def forward(self, x, time, cond):
        self.seen = (x, time, cond)
        return torch.zeros_like(x)


@pytest.mark.parametrize("condition", ["reference", "images", "wavelets"])
def test_the_loss_of_an_answer_of_zero_is_the_targets_l1_norm(condition):
    batch, module = toy_batches(batch=12)(0), Silent()
    generator = torch.Generator().manual_seed(3)
    loss = PlainObjective(DIFFUSION, condition)(module, batch, generator)
    residual = 10 * (batch.gt - batch.lms)
    assert loss.item() == pytest.approx(residual.abs().mean().item(), rel=1e-6)
    x, time, cond = module.seen
    expected = {
        "reference": batch.gt,
        "images": torch.cat([batch.lms, batch.pan], dim=1),
        "wavelets": ddif_condition(batch.lms, batch.pan),
    }[condition]
    assert torch.equal(cond, expected)
    # What is left of x_t after a x0 is b eps, for the timestep the network is told.
    timestep = (time * 500).round().long() - 1
    assert torch.allclose((timestep + 1) / 500, time)
    bar = DIFFUSION.alphas_cumprod[timestep].view(-1, 1, 1, 1)
    eps = (x - bar.sqrt() * residual) / (1 - bar).sqrt()
    assert eps.mean().item() == pytest.approx(0, abs=0.05)
    assert eps.std().item() == pytest.approx(1, abs=0.05)


def test_noise_and_timesteps_depend_on_the_generator_alone():
    batch, one, two = toy_batches()(0), Silent(), Silent()
    objective = PlainObjective(DIFFUSION, "reference")
    for module, global_seed in ((one, 0), (two, 1)):
        torch.manual_seed(global_seed)
        objective(module, batch, torch.Generator().manual_seed(5))
    assert all(torch.equal(a, b) for a, b in zip(one.seen, two.seen, strict=True))


def test_the_predictors_own_loss_is_on_the_residuals_scale():
    batch = toy_batches()(0)
    adapters = AdapterConfig(predictor_width=4, predictor_blocks=1, rank=2)
    module = AdaptedDenoiser(network(), adapters)  # fresh: U is L
    losses = [
        AdaptedObjective(DIFFUSION, weight)(module, batch, torch.Generator().manual_seed(0)).item()
        for weight in (0.0, 2.0)
    ]
    expected = 2 * 10 * (batch.gt - batch.lms).abs().mean().item()
    assert losses[1] - losses[0] == pytest.approx(expected, rel=1e-5)


# Learning rate and averaging


def rates(steps, **options) -> list[float]:
    config = StageConfig(learning_rate=1.0, **options)
    return [learning_rate(config, step, steps) for step in range(steps)]


def test_rates():
    assert rates(steps=3) == [1.0, 1.0, 1.0]
    assert rates(steps=10, warmup=0.4)[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert rates(steps=7, schedule="step", step_every=3, step_factor=0.1) == pytest.approx(
        [1, 1, 1, 0.1, 0.1, 0.1, 0.01]
    )
    cosine = rates(steps=1000, schedule="cosine", warmup=0.1)
    assert max(cosine) == cosine[100] == 1.0
    assert cosine[100 + 450] == pytest.approx((1 + 0.01) / 2)  # halfway between its two ends
    assert cosine[-1] == pytest.approx(0.01, abs=1e-4)
    assert all(a > b for a, b in itertools.pairwise(cosine[100:]))


def test_the_average_is_the_recursion_by_hand():
    module = Noisy()
    config = StageConfig(batch=4, learning_rate=0.02, ema_decay=0.6)
    stepper = Stepper(module, PlainObjective(DIFFUSION, "reference"), config, steps=40, seed=0)
    expected = None
    for step in range(20):
        stepper(step, toy_batches()(step))
        current = {name: p.detach().double() for name, p in module.named_parameters()}
        # The initialisation never counts.
        decay = 0.0 if expected is None else min(0.6, (1 + step) / (10 + step))
        expected = {
            name: decay * (expected or current)[name] + (1 - decay) * value
            for name, value in current.items()
        }
        for name, value in stepper.average.named_parameters():
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
            assert torch.equal(value.double(), current[name]) is (step == 0), name
    assert torch.equal(stepper.average.norm.running_mean, module.norm.running_mean)
    assert not any(p.requires_grad for p in stepper.average.parameters())


def test_gradients_are_clipped_to_the_norm():
    norms = []

    def huge(module, batch, generator):
        return 1e6 * sum(p.square().sum() for p in module.parameters())

    module = Noisy()
    stepper = Stepper(module, huge, StageConfig(clip_norm=0.5), steps=1, seed=0)
    stepper.optimizer.register_step_pre_hook(
        lambda *_: norms.append(
            math.sqrt(sum(p.grad.square().sum().item() for p in module.parameters()))
        )
    )
    stepper(0, Batch(*toy_patches()))
    assert norms == pytest.approx([0.5], rel=1e-4)


# The loop


def test_training_lowers_the_loss_and_leaves_averaged_weights(tmp_path):
    module, batches = network(), toy_batches(batch=12)
    validation = []

    def validate(averaged):
        assert not averaged.training
        objective = PlainObjective(DIFFUSION, "reference")
        with torch.no_grad():
            validation.append(objective(averaged, batches(0), torch.Generator().manual_seed(0)))
        return validation[-1].item()

    checkpoint = Checkpoint(tmp_path, {})
    config = StageConfig(learning_rate=1e-2, ema_decay=0.9)
    objective = PlainObjective(DIFFUSION, "reference")
    history = train(
        module, objective, batches, config, steps=120, seed=0, checkpoint=checkpoint, device=CPU,
        validate=validate,
    )  # fmt: skip
    assert [step for step, _ in history.loss] == list(range(10, 121, 10))
    assert [step for step, _ in history.validation] == [24, 48, 72, 96, 120]
    assert history.loss[-1][1] < 0.5 * history.loss[0][1]
    assert history.validation[-1][1] < 0.6 * history.validation[0][1]
    assert not module.training and history.seconds > 0
    again = network()
    checkpoint.load_into(again)
    assert equal(weights(again), weights(module))
    with torch.no_grad():
        final = objective(module, batches(0), torch.Generator().manual_seed(0))
    assert final.item() == pytest.approx(history.validation[-1][1])
    assert checkpoint.history()["loss"] == [list(entry) for entry in history.loss]


def test_bfloat16_walks_beside_float32_and_not_on_it(tmp_path):
    losses, ends = {}, {}
    for precision in ("float32", "bfloat16"):
        module = network()
        _, history = run(module, tmp_path, steps=60, name=precision, precision=precision)
        losses[precision] = [loss for _, loss in history.loss]
        ends[precision] = weights(module)
        assert all(value.dtype == torch.float32 for value in ends[precision].values()
                   if value.is_floating_point())  # fmt: skip
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)
    assert losses["bfloat16"] != losses["float32"]
    assert losses["float32"][-1] < 0.8 * losses["float32"][0]  # so 2 % tells something
    assert not equal(ends["bfloat16"], ends["float32"])


def test_float16_leaves_out_steps_whose_gradients_overflow_and_halves_the_scale():
    module = Noisy()
    config = StageConfig(batch=4, learning_rate=1e-2, weight_decay=0.0)
    objective = PlainObjective(DIFFUSION, "reference")
    stepper = Stepper(module, objective, config, steps=100, seed=0, precision="float16")
    stepper.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before, batches = [p.clone() for p in module.parameters()], toy_batches()
    stepper(0, batches(0))
    assert stepper.scaler.get_scale() == 2.0**39
    assert all(map(torch.equal, before, module.parameters()))
    for step in range(1, 40):
        stepper(step, batches(step))
    assert stepper.scaler.get_scale() < 2.0**39
    assert not any(map(torch.equal, before, module.parameters()))
    assert all(parameter.isfinite().all() for parameter in module.parameters())


def test_same_seed_same_weights(tmp_path):
    results = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        module = Noisy()
        torch.manual_seed(len(results))  # the state a program happens to be in
        run(module, tmp_path, seed=seed, name=name)
        results.append(weights(module))
    assert equal(results[0], results[1])
    assert not equal(results[0], results[2])


class Killed(BaseException):
    """Ends the process, as far as the loop can tell."""


def killed_at(step: int, batches=None):
    batches = batches or toy_batches()

    def give(asked: int):
        if asked == step:
            raise Killed
        return batches(asked)

    return give


@pytest.mark.parametrize(
    ("kills", "precision"),
    [((13,), "float32"), ((11, 25, 26), "float32"), ((5,), "float32"),
     ((11, 25), "bfloat16"), ((11, 25), "float16")],
)  # fmt: skip
def test_a_resumed_run_ends_with_the_same_bits(kills, precision, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_CHECKPOINT_EVERY_S", 0.0)
    # So large a scale overflows for some steps, and a resume has to know what it has become.
    scaler = partial(torch.amp.GradScaler, init_scale=2.0**40)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    options = {"steps": 35, "schedule": "cosine", "warmup": 0.1, "precision": precision}
    straight = Noisy()
    _, expected = run(straight, tmp_path, name="straight", **options)
    for kill in kills:
        with pytest.raises(Killed):
            run(Noisy(), tmp_path, batches=killed_at(kill), **options)
        assert not Checkpoint(tmp_path, {"name": "x"}).done
    resumed, steps_seen = Noisy(), []
    batches = toy_batches()
    checkpoint, history = run(
        resumed, tmp_path, batches=lambda s: steps_seen.append(s) or batches(s), **options
    )
    assert steps_seen == list(range(kills[-1] // 10 * 10, 35))
    assert equal(weights(resumed), weights(straight))
    assert [tuple(entry) for entry in history.loss] == expected.loss
    assert {p.name for p in checkpoint.folder.iterdir()} == {
        "identity.json", "history.json", "weights.safetensors", "digest.json",
    }  # fmt: skip


def test_frozen_weights_stay_to_the_bit_and_joint_ones_move(tmp_path):
    adapters = AdapterConfig(predictor_width=4, predictor_blocks=1, rank=2)
    objective = AdaptedObjective(DIFFUSION, 1.0)
    base = weights(network())
    for freeze in (True, False):
        module = AdaptedDenoiser(network(), adapters, freeze=freeze)
        before = weights(module)
        config = StageConfig(learning_rate=1e-2, weight_decay=0.1, ema_decay=0.7)
        stepper = Stepper(module.train(), objective, config, steps=8, seed=0)
        for step in range(8):
            stepper(step, toy_batches()(step))
        for stage in (module, stepper.average):
            assert equal(weights(stage.backbone), base) is freeze
        moved = {name for name, p in module.named_parameters() if not torch.equal(p, before[name])}
        frozen = {f"backbone.{name}" for name in base} if freeze else set()
        assert moved == before.keys() - frozen
        checkpoint, _ = run(
            module, tmp_path, objective=objective, name=str(freeze), weight_decay=0.1
        )
        assert equal(weights(module.backbone), base) is freeze
        stored = AdaptedDenoiser(network(), adapters, freeze=freeze)
        checkpoint.load_into(stored)
        assert equal(weights(stored), weights(module))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_training(bad, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_CHECKPOINT_EVERY_S", 0.0)
    healthy = PlainObjective(DIFFUSION, "reference")
    calls = []

    def objective(module, batch, generator):
        calls.append(1)
        return healthy(module, batch, generator) * (bad if len(calls) == 14 else 1.0)

    with pytest.raises(DivergedError, match="at step 20"):
        run(Noisy(), tmp_path, objective=objective)
    checkpoint = Checkpoint(tmp_path, {"name": "x"})
    assert not checkpoint.done
    assert [p.name for p in checkpoint.folder.iterdir()] == ["step-10"]


@pytest.mark.parametrize("broken_at", [1, 9, 15, 20])
@pytest.mark.parametrize("where", ["weight", "buffer"])
def test_weights_that_are_not_finite_are_never_finished(where, broken_at, tmp_path, monkeypatch):
    """Broken after the step's loss, which stays finite; in the last step nobody sees the next."""
    monkeypatch.setattr(loop, "_CHECKPOINT_EVERY_S", 0.0)
    calls = []

    def objective(module, batch, generator):
        calls.append(1)
        tensor = module.last.bias if where == "weight" else module.norm.running_var
        if len(calls) == broken_at:
            tensor.data[0] = math.inf
        return module.first.weight.square().sum()  # does not look at either

    with pytest.raises(DivergedError, match="not finite at step"):
        run(Noisy(), tmp_path, objective=objective)
    checkpoint = Checkpoint(tmp_path, {"name": "x"})
    assert not checkpoint.done
    states = [p.name for p in checkpoint.folder.glob("*")]
    assert states == (["step-10"] if broken_at > 10 else [])


def test_weights_that_start_as_none_are_not_finished_by_no_steps(tmp_path):
    module = Noisy()
    module.first.bias.data[1] = math.nan
    with pytest.raises(DivergedError, match=r"first\.bias"):
        run(module, tmp_path, steps=0)
    assert not Checkpoint(tmp_path, {"name": "x"}).done


def test_finite_means_every_number_of_every_kind():
    good = {
        "large": torch.full((3,), 3e38), "complex": torch.full((2,), 1 + 2j), "none": torch.ones(0),
        "count": torch.tensor(2**62), "flag": torch.tensor([True]), "half": torch.ones(2).half(),
    }  # fmt: skip
    assert not_finite(good) is None and not_finite({}) is None
    for name, bad in (("large", math.inf), ("complex", complex(0, math.nan)), ("half", -math.inf)):
        broken = {key: value.clone() for key, value in good.items()}
        broken[name][-1] = bad
        assert not_finite(broken) == name


def test_no_steps_leave_the_initial_weights(tmp_path):
    module = Noisy()
    before = weights(module)
    checkpoint, history = run(module, tmp_path, steps=0)
    assert equal(weights(module), before) and history.loss == [] and checkpoint.done


# Checkpoints


def saved(root, step=10, scale=1.0) -> Checkpoint:
    module = Noisy()
    with torch.no_grad():
        module.last.bias.fill_(scale)
    checkpoint = Checkpoint(root, {"a": 1})
    optimizer = torch.optim.AdamW(module.parameters())
    checkpoint.save_step(step, module, copy.deepcopy(module), optimizer, {"loss": [[step, 0.5]]})
    return checkpoint


def load(checkpoint: Checkpoint):
    module = Noisy()
    optimizer = torch.optim.AdamW(module.parameters())
    state = checkpoint.load_step(module, Noisy(), optimizer)
    return state, module.last.bias[0].item()


def test_the_newest_complete_state_counts(tmp_path):
    checkpoint = saved(tmp_path, 90, scale=2.0)
    saved(tmp_path, 100, scale=3.0)
    assert [p.name for p in checkpoint.folder.iterdir()] == ["step-100"]
    # A kill while writing leaves a folder under its working name, with some of its files.
    torn = checkpoint.folder / "step-110.tmp"
    torn.mkdir()
    (torn / "module.safetensors").write_bytes(b"half")
    assert load(checkpoint) == ((100, {"loss": [[100, 0.5]]}), 3.0)
    saved(tmp_path, 110, scale=4.0)
    assert load(checkpoint)[1] == 4.0


def test_a_kill_between_two_states_leaves_the_newer(tmp_path):
    older = saved(tmp_path / "older", 90, scale=2.0)
    checkpoint = saved(tmp_path, 100, scale=3.0)
    (older.folder / "step-90").rename(checkpoint.folder / "step-90")
    assert load(checkpoint) == ((100, {"loss": [[100, 0.5]]}), 3.0)


def test_nothing_saved_starts_at_zero(tmp_path):
    assert load(Checkpoint(tmp_path, {"a": 1}))[0] == (0, {})


@pytest.mark.parametrize("digest", [True, False])
def test_optimiser_state_cannot_run_code(digest, tmp_path, capfd):
    checkpoint = saved(tmp_path)

    class Trap:
        def __reduce__(self):
            return (print, ("trapped",))

    state = checkpoint.folder / "step-10"
    (state / "optimizer.pt").write_bytes(pickle.dumps(Trap(), protocol=2))
    if not digest:
        (state / "digest.json").unlink()
    assert load(checkpoint)[0] == (0, {})
    torch.save({"state": {0: Trap()}, "param_groups": []}, state / "optimizer.pt")
    assert load(checkpoint)[0] == (0, {})
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    "broken", ["module.safetensors", "average.safetensors", "optimizer.pt", "history.json"]
)
def test_a_torn_state_gives_way_to_the_one_before(broken, tmp_path, caplog):
    older = saved(tmp_path / "older", 90, scale=2.0)
    checkpoint = saved(tmp_path, 100, scale=3.0)
    (older.folder / "step-90").rename(checkpoint.folder / "step-90")
    path = checkpoint.folder / "step-100" / broken
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)
    assert load(checkpoint) == ((90, {"loss": [[90, 0.5]]}), 2.0)
    assert "step-100" in caplog.text
    shutil.rmtree(checkpoint.folder / "step-90")
    fresh = Noisy().last.bias[0].item()
    assert load(checkpoint) == ((0, {}), fresh)  # and nothing of the torn one was loaded
    saved(tmp_path, 10, scale=5.0)
    assert [p.name for p in checkpoint.folder.iterdir()] == ["step-10"]


def test_a_state_of_a_version_without_digests_is_taken_if_it_fits(tmp_path):
    checkpoint = saved(tmp_path, 10, scale=2.0)
    (checkpoint.folder / "step-10" / "digest.json").unlink()
    assert load(checkpoint) == ((10, {"loss": [[10, 0.5]]}), 2.0)
    other = nn.Linear(2, 2)
    save_file(other.state_dict(), checkpoint.folder / "step-10" / "average.safetensors")
    assert load(checkpoint)[0] == (0, {})


def finished(root) -> Checkpoint:
    checkpoint = Checkpoint(root, {"a": 1})
    checkpoint.finish(Noisy(), {"loss": [[10, 0.5]], "validation": [], "seconds": 1.0})
    return checkpoint


def change(checkpoint: Checkpoint, how: str) -> None:
    path = checkpoint.folder / "weights.safetensors"
    state = load_file(path)
    if how == "a bit":
        content = bytearray(path.read_bytes())
        content[-1] ^= 64
        path.write_bytes(content)
    elif how == "zeros":
        save_file({name: torch.zeros_like(value) for name, value in state.items()}, path)
    elif how == "another network":
        save_file(nn.Linear(3, 3).state_dict(), path)
    elif how == "not finite":
        state["last.bias"][0] = math.nan
        save_file(state, path)
    elif how == "another type":
        save_file({name: value.double() for name, value in state.items()}, path)
    else:
        other = Checkpoint(checkpoint.folder.parent, {"a": 2})
        other.finish(Noisy(), {})
        for file in other.folder.iterdir():
            file.replace(checkpoint.folder / file.name)


@pytest.mark.parametrize(
    ("how", "needs_digest"),
    [
        ("a bit", True), ("zeros", True), ("another network", False), ("not finite", False),
        ("another type", False), ("another training", False),
    ],
)  # fmt: skip
def test_weights_that_are_not_what_was_saved_are_refused_by_name(how, needs_digest, tmp_path):
    for digest in (True,) if needs_digest else (True, False):
        checkpoint = finished(tmp_path / str(digest))
        change(checkpoint, how)
        if not digest:
            (checkpoint.folder / "digest.json").unlink()
        module = Noisy()
        before = weights(module)
        with pytest.raises(CheckpointError, match=r"weights\.safetensors") as caught:
            checkpoint.load_into(module)
        assert len(str(caught.value).splitlines()) == 1
        assert equal(weights(module), before)


@pytest.mark.parametrize("size", [0, 5, 8, 100, -1])
def test_torn_weights_are_trained_again(size, tmp_path, caplog):
    checkpoint, _ = run(Noisy(), tmp_path)
    path = checkpoint.folder / "weights.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:size])
    assert not checkpoint.done and str(path) in caplog.text
    run(Noisy(), tmp_path)
    assert checkpoint.done and path.read_bytes() == whole


def test_weights_of_a_version_without_digests_get_one(tmp_path):
    checkpoint = finished(tmp_path)
    digest = checkpoint.folder / "digest.json"
    kept = digest.read_text()
    digest.unlink()
    checkpoint.load_into(Noisy())
    assert digest.read_text() == kept
    (checkpoint.folder / "identity.json").unlink()  # the digest says as much
    checkpoint.load_into(Noisy())


@pytest.mark.parametrize("content", [None, b"", b"[", b"[1]", b'{"loss": [[1]]}', b"[" * 99999])
def test_a_broken_history_does_not_lose_the_weights(content, tmp_path, caplog):
    checkpoint = finished(tmp_path)
    path = checkpoint.folder / "history.json"
    path.unlink() if content is None else path.write_bytes(content)
    assert checkpoint.done
    checkpoint.load_into(Noisy())
    history = checkpoint.history()
    assert history["loss"] == history["validation"] == [] and math.isnan(history["seconds"])
    assert str(path) in caplog.text


@pytest.mark.parametrize("removed", [False, True])
def test_who_lost_a_training_while_saving_leaves_nothing_behind(removed, tmp_path, monkeypatch):
    class Lost:
        asked = 0

        def check(self):
            self.asked += 1
            if self.asked > 1:
                raise LostLeaseError("another process has taken over")

    def gone(path, content):
        raise FileNotFoundError(path)  # whoever took over has finished, and tidied up

    checkpoint, module = Checkpoint(tmp_path, {"name": "x"}), Noisy()
    checkpoint._lease = Lost()
    if removed:
        monkeypatch.setattr(checkpoints, "write", gone)
    optimizer = torch.optim.AdamW(module.parameters())
    with pytest.raises(LostLeaseError):
        checkpoint.save_step(20, module, module, optimizer, {"loss": [], "validation": []})
    assert list(checkpoint.folder.iterdir()) == []


def test_left_overs_of_a_dead_process_are_in_nobodys_way(tmp_path):
    checkpoint = Checkpoint(tmp_path, {"name": "x"})
    checkpoint.folder.mkdir(parents=True)
    for name in ("step-x", "step-10.tmp", "weights.safetensors.tmp", "digest.json"):
        (checkpoint.folder / name).mkdir()
    (checkpoint.folder / "step-20.tmp").write_text("a file")
    run(Noisy(), tmp_path)
    checkpoint.load_into(Noisy())
    left = {p.name for p in checkpoint.folder.iterdir()}
    assert left == {"weights.safetensors", "digest.json", "identity.json", "history.json", "step-x"}


def test_discarding_starts_anew_unless_somebody_trains(tmp_path):
    checkpoint = finished(tmp_path)
    other = Checkpoint(tmp_path, checkpoint.identity)
    with other.held():
        with pytest.raises(CheckpointError, match="another process"):
            checkpoint.discard()
        assert checkpoint.done
        other.discard()
    assert not checkpoint.done and load(checkpoint)[0] == (0, {})
    saved(tmp_path)
    checkpoint.discard()
    assert load(checkpoint)[0] == (0, {})
    checkpoint.discard()  # nothing there


def test_equal_identities_share_a_folder(tmp_path):
    one, two = Checkpoint(tmp_path, {"a": 1, "b": 2.0}), Checkpoint(tmp_path, {"b": 2, "a": 1.0})
    assert one.folder == two.folder != Checkpoint(tmp_path, {"a": 2, "b": 2}).folder
    module = Noisy()
    one.finish(module, {"loss": [], "seconds": 1.0})
    assert two.done and two.history()["seconds"] == 1.0
    assert json.loads((two.folder / "identity.json").read_text()) == {"a": 1, "b": 2}


# Progress


@pytest.mark.parametrize(("quiet", "lines"), [(True, 0), (False, 3)])
def test_progress_off_a_terminal_is_a_log_line_now_and_then(quiet, lines, caplog):
    caplog.set_level(logging.INFO)
    with Progress(quiet=quiet, log_every_s=0.0).task("toy", total=5, done=2) as task:
        for _ in range(3):
            task.advance("loss 0.1")
    assert len(caplog.records) == lines
    if lines:
        assert caplog.messages[-1].startswith("toy 5/5 loss 0.1")
        assert caplog.messages[-1].endswith("0 s left")
