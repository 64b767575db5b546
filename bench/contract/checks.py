"""Every check of the backbone contract (:mod:`backbones.contract`), each a function of a subject.

A check returns nothing, or raises :class:`ContractError` whose message says in words what is
missing. Those in :data:`QUICK` take a second or so together; they run before a network that is not
shipped is trained. :data:`CHECKS` is the whole suite.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import io
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from backbones.contract import AdaptableOp, GuidedBlock
from bench.adapters import AdaptedDenoiser
from bench.config import AdapterConfig, UsageError
from bench.contract.probes import BATCH, RANK, Recorder, Subject, increment, merged
from bench.measure import UnknownOperatorError, count_flops

__all__ = ["ADVICE", "CHECKS", "QUICK", "Check", "ContractError"]

Check = Callable[[Subject], None]
FAMILIES = ("operator", "unet", "conv", "transformer")
NEEDED = ("guided", "adaptable", "size_multiple", "min_size", "family", "citation", "version")


class ContractError(UsageError):
    """A network does not do what the contract asks for."""


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise ContractError(message)


def _near(a: Tensor, b: Tensor, rtol: float = 1e-4, atol: float = 1e-5) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=rtol, atol=atol)


# What it declares


def declares_a_frozen_config(subject: Subject) -> None:
    cls, config = subject.cls, getattr(subject.cls, "Config", None)
    _need(isinstance(cls, type) and issubclass(cls, nn.Module), "it is no class of torch.nn.Module")
    frozen = dataclasses.is_dataclass(config) and config.__dataclass_params__.frozen
    _need(frozen, "it has no Config: a frozen dataclass of its options, set as a class attribute")
    missing = [
        field.name
        for field in dataclasses.fields(config)
        if field.default is field.default_factory is dataclasses.MISSING
    ]
    _need(not missing, f"fields of its Config without a default: {', '.join(missing)}")
    try:
        hash(config())
    except TypeError:
        raise ContractError(
            "its Config cannot be hashed: give it tuples in place of lists"
        ) from None
    scales = getattr(cls, "scales", None) or {}
    known = {field.name for field in dataclasses.fields(config)}
    odd = {option for options in scales.values() for option in options} - known
    _need(not odd, f"its scales name options that its Config lacks: {', '.join(sorted(odd))}")


def is_built_from_bands_condition_and_config(subject: Subject) -> None:
    try:
        net = subject.untouched()
    except TypeError as error:
        raise ContractError(
            f"its constructor must take (bands, cond_channels, config): {error}"
        ) from error
    missing = [name for name in ("bands", "cond_channels", "config", *NEEDED)
               if not hasattr(net, name)]  # fmt: skip
    _need(not missing, f"it does not declare {', '.join(missing)}")
    sizes = (net.bands, net.cond_channels)
    _need(
        sizes == (subject.bands, subject.cond_channels),
        f"its bands and cond_channels are {sizes}; it was built for "
        f"{(subject.bands, subject.cond_channels)}",
    )
    _need(type(net.config) is subject.cls.Config, "its config is not the one it was built from")
    _need(net.family in FAMILIES, f"family = {net.family!r}: expected {', '.join(FAMILIES)}")
    _need(bool(net.citation), "its citation is empty")
    for name in ("version", "size_multiple", "min_size"):
        value = getattr(net, name)
        _need(isinstance(value, int) and value >= 1, f"{name} = {value!r}: expected 1 or more")
    for name, kind in (("guided", GuidedBlock), ("adaptable", AdaptableOp)):
        of = getattr(net, name)
        said = isinstance(of, tuple) and all(isinstance(one, kind) for one in of)
        _need(said, f"{name} must be a tuple of {kind.__name__}; () where it has none")
        names = [one.name for one in of]
        _need(len(set(names)) == len(names), f"{name} has a name twice")
        _need(not any("." in one for one in names), f"names in {name} must have no dot")


def forward_takes_what_the_contract_says(subject: Subject) -> None:
    names = list(inspect.signature(subject.net.forward).parameters)
    _need(
        names[:3] == ["x", "time", "cond"] and "adapt" in names,
        f"its forward takes ({', '.join(names)}); expected (x, time, cond, adapt=None)",
    )


# What it does


def output_has_the_shape_of_x(subject: Subject) -> None:
    _shape(subject, subject.net, (1, 0))


def output_has_the_shape_of_x_at_every_size_and_at_4_and_8_bands(subject: Subject) -> None:
    for bands in (4, 8):
        net = subject.build(bands=bands, cond_channels=bands + 1)
        for extra in ((0, 0), (1, 3), (2, 1)):
            _shape(subject, net, extra)


def _shape(subject: Subject, net: nn.Module, extra: tuple[int, int]) -> None:
    x, time, cond = subject.inputs(net, extra)
    with torch.no_grad():
        out = net(x, time, cond)
    given = f"x {tuple(x.shape)} {x.dtype}, cond {tuple(cond.shape)}"
    _need(isinstance(out, Tensor), f"its forward returns {type(out).__name__}; expected a tensor")
    _need(
        (out.shape, out.dtype) == (x.shape, x.dtype),
        f"it returns {tuple(out.shape)} {out.dtype} for {given}; expected the shape of x",
    )
    _need(bool(out.isfinite().all()), f"it returns numbers that are not finite for {given}")


def output_depends_on_every_input(subject: Subject) -> None:
    inputs = subject.inputs()
    with torch.no_grad():
        before = subject.net(*inputs)
        deaf = []
        for which, name in enumerate(("x", "time", "cond")):
            changed = list(inputs)
            changed[which] = inputs[which] * 0.7
            if torch.allclose(subject.net(*changed), before):
                deaf.append(name)
    _need(not deaf, f"its output does not depend on {' nor '.join(deaf)}")


def samples_of_a_batch_do_not_see_each_other(subject: Subject) -> None:
    inputs = subject.inputs()
    with torch.no_grad():
        together = subject.net(*inputs)
        alone = [subject.net(*(tensor[i : i + 1] for tensor in inputs)) for i in range(BATCH)]
    _need(
        _near(together, torch.cat(alone)),
        "images of one batch see each other: alone, one gives another output",
    )


def every_parameter_gets_a_finite_gradient(subject: Subject) -> None:
    net = subject.build().train()
    dead = tuple(getattr(net, "dead", ()))
    with torch.random.fork_rng(devices=[]):
        net(*subject.inputs()).square().mean().backward()
    unused, infinite, revived = [], [], []
    for name, parameter in net.named_parameters():
        lives = parameter.grad is not None and bool(parameter.grad.any())
        declared = any(fnmatchcase(name, pattern) for pattern in dead)
        if lives and not parameter.grad.isfinite().all():
            infinite.append(name)
        if lives and declared:
            revived.append(name)
        if not (lives or declared):
            unused.append(name)
    _need(not infinite, f"gradients that are not finite: {_few(infinite)}")
    _need(
        not unused,
        f"parameters without a gradient, so that nothing they do reaches the output: "
        f"{_few(unused)}; what is meant to be so stands in `dead`",
    )
    _need(not revived, f"declared dead, and yet they have a gradient: {_few(revived)}")


def guided_blocks_are_visited_as_declared(subject: Subject) -> None:
    net, (x, time, cond) = subject.net, subject.inputs()
    recorder = Recorder()
    with torch.no_grad():
        net(x, time, cond, adapt=recorder)
    height, width = x.shape[-2:]
    declared = [
        (b.name, (BATCH, b.channels, height // b.factor, width // b.factor)) for b in net.guided
    ]
    if recorder.guided != declared:
        visited = [name for name, _ in recorder.guided]
        never = [b.name for b in net.guided if b.name not in visited]
        _need(not never, f"it never calls adapt.guide for {_few(never)}, which `guided` declares")
        raise ContractError(
            f"it calls adapt.guide as {_few(recorder.guided)}; `guided` declares {_few(declared)}"
        )


def adaptable_operators_are_asked_for_as_declared(subject: Subject) -> None:
    recorder = Recorder()
    with torch.no_grad():
        subject.net(*subject.inputs(), adapt=recorder)
    declared = sorted(op.name for op in subject.net.adaptable)
    never = [name for name in declared if name not in recorder.adapted]
    _need(not never, f"it never calls adapt.low_rank for {_few(never)}, which `adaptable` declares")
    _need(
        sorted(recorder.adapted) == declared,
        f"it asks adapt.low_rank for {_few(sorted(recorder.adapted))}; "
        f"`adaptable` declares {_few(declared)}",
    )


def no_operator_is_unknown_to_the_flop_counter(subject: Subject) -> None:
    net = subject.build().to("meta")
    inputs = [tensor.to("meta") for tensor in subject.inputs()]
    try:
        count = count_flops(net, *inputs, backward=True)
    except UnknownOperatorError as error:
        raise ContractError(
            f"its FLOPs cannot be counted ({_line(error)}); bench.measure.register_formula"
            f" teaches the counter an operator"
        ) from error
    except Exception as error:  # a user's network may do anything
        raise ContractError(
            f"it does not run on the meta device, where FLOPs are counted: {_line(error)}"
        ) from error
    _need(count.canonical > 0, "it has no FLOPs: it does nothing that the counter knows")


# What stage II adds


def an_adapter_that_changes_nothing_equals_none(subject: Subject) -> None:
    inputs = subject.inputs()
    with torch.no_grad():
        same = torch.equal(subject.net(*inputs, adapt=Recorder()), subject.net(*inputs))
    _need(same, "with an adapter that changes nothing its output is another than without one")


def every_guided_block_reaches_the_output(subject: Subject) -> None:
    inputs, net = subject.inputs(), subject.net
    with torch.no_grad():
        plain = net(*inputs)
        for block in net.guided:
            noise = torch.randn(block.channels, 1, 1, generator=torch.Generator().manual_seed(3))
            noise = noise.to(subject.device)
            recorder = Recorder({block.name: lambda f, n=noise: f + n * f})
            moved = not torch.allclose(net(*inputs, adapt=recorder), plain)
            _need(moved, f"what adapt.guide returns for {block.name} does not reach the output")


def every_increment_reaches_the_output_and_gets_gradients(subject: Subject) -> None:
    inputs, net = subject.inputs(), subject.net
    plain = net(*inputs).detach()
    for op in net.adaptable:
        factors = increment(op, subject.device)
        factors = factors._replace(**{k: v.requires_grad_() for k, v in factors._asdict().items()})
        out = net(*inputs, adapt=Recorder(low_ranks={op.name: factors}))
        moved = not torch.allclose(out, plain)
        _need(moved, f"the increment of {op.name} does not reach the output")
        for gradient in torch.autograd.grad(out.square().mean(), factors):
            fine = bool(gradient.isfinite().all() and gradient.any())
            _need(fine, f"the increment of {op.name} gets no finite gradient")


def an_increment_equals_the_merged_weight(subject: Subject) -> None:
    """With every gate at one, an increment is what its product with itself adds to a weight."""
    net, inputs = copy.deepcopy(subject.net).double(), subject.inputs()
    inputs = tuple(tensor.double() for tensor in inputs)
    left = [parameter for parameter in net.parameters() if parameter.ndim > 1]
    with torch.no_grad():
        plain = net(*inputs)
        for op in net.adaptable:
            low_rank = increment(op, subject.device)
            low_rank = low_rank._replace(
                **{name: factor.double() for name, factor in low_rank._asdict().items()}
            )
            expected = net(*inputs, adapt=Recorder(low_ranks={op.name: low_rank}))
            moved = (expected - plain).abs().max()
            delta = merged(op, low_rank)
            fitting = [p for p in left if p.shape == delta.shape or _pointwise(p, delta)]
            for parameter in fitting:
                before = parameter.clone()
                parameter.add_(delta.view_as(parameter))
                # Parts of some networks are in single precision, whatever the rest is.
                equal = (net(*inputs) - expected).abs().max() < 1e-3 * moved
                parameter.copy_(before)
                if equal:
                    left = [other for other in left if other is not parameter]
                    break
            else:
                shape = tuple(delta.shape)
                _need(bool(fitting), f"{op.name}: no weight of the declared shape {shape}")
                raise ContractError(
                    f"{op.name}: its increment is not what adding the product of the factors to "
                    f"a weight of shape {shape} gives"
                )


def _pointwise(parameter: Tensor, delta: Tensor) -> bool:
    """Tell whether a convolution of one pixel is declared as a linear layer."""
    return delta.ndim == 2 and parameter.squeeze((*range(2, parameter.ndim),)).shape == delta.shape


def a_closed_gate_closes_one_sample_only(subject: Subject) -> None:
    net, inputs = subject.net, subject.inputs()
    if not net.adaptable:
        return
    gate = torch.tensor([[0.0], [1.0], [0.0]], device=subject.device).expand(-1, RANK)
    increments = {op.name: increment(op, subject.device)._replace(gate=gate)
                  for op in net.adaptable}  # fmt: skip
    with torch.no_grad():
        plain = net(*inputs)
        out = net(*inputs, adapt=Recorder(low_ranks=increments))
    _need(_near(out[[0, 2]], plain[[0, 2]]), "a closed gate does not close an increment")
    _need(not torch.allclose(out[1], plain[1]), "a gate of one image closes another's")


def stage_two_attaches(subject: Subject) -> None:
    """Predictor, guidance and increments around it start as it is, and all of them are trained."""
    net = subject.build(cond_channels=subject.bands).double()
    config = AdapterConfig(predictor_width=8, rank=RANK)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        adapted = AdaptedDenoiser(net, config, freeze=True).double().to(subject.device).train()
    x, time, _ = (tensor.double() for tensor in subject.inputs(net))
    lms, pan = x.sigmoid(), x[:, :1].sigmoid()
    image, detail = adapted.conditions(pan, lms)
    condition = adapted.condition(image, detail)
    with torch.no_grad():
        same = _near(adapted(x, time, condition), net(x, time, image), rtol=1e-6, atol=1e-8)
    _need(same, "stage II does not start as stage I: untrained adapters change the output")
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        for name, parameter in adapted.named_parameters():
            if not name.startswith("backbone.") and not parameter.any():
                parameter.normal_(std=0.1)
    condition = adapted.condition(*adapted.conditions(pan, lms))
    adapted(x, time, condition).square().mean().backward()
    unused = [
        name
        for name, parameter in adapted.named_parameters()
        if not name.startswith("backbone.")
        and parameter.requires_grad
        and (parameter.grad is None or not parameter.grad.any())
    ]
    _need(not unused, f"of what stage II adds, nothing reaches the output from {_few(unused)}")


# What holds of any network here


def conditional_part_computed_once_equals_the_plain_path(subject: Subject) -> None:
    net, (x, time, cond) = subject.net, subject.inputs()
    offers = inspect.signature(net.forward).parameters
    with torch.no_grad():
        plain = net(x, time, cond)
        if hasattr(net, "condition"):
            _need("cond_part" in offers, "it has condition(), and its forward takes no cond_part")
            part = net.condition(cond)
            folded = net(x, time, None, cond_part=part)
            _need(_near(folded, plain), "its condition() computed once gives another output")
            _need(net.stem(x, part).shape[0] == BATCH, "its stem() loses images of the batch")
        if "embedding" in offers:
            tabulated = net(x, None, cond, embedding=net.embed(time))
            _need(_near(tabulated, plain), "its embed() computed once gives another output")


def memory_format_does_not_matter(subject: Subject) -> None:
    x, time, cond = subject.inputs()
    nhwc = [tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, cond)]
    with torch.no_grad():
        same = _near(subject.net(nhwc[0], time, nhwc[1]), subject.net(x, time, cond))
    _need(same, "in channels_last it gives another output")


def double_precision_agrees_with_single(subject: Subject) -> None:
    inputs = subject.inputs()
    with torch.no_grad():
        single = subject.net(*inputs)
        double = copy.deepcopy(subject.net).double()(*(tensor.double() for tensor in inputs))
    _need(double.dtype == torch.float64, f"in double precision it returns {double.dtype}")
    _need(_near(single.double(), double, 1e-3, 1e-4), "double precision gives another output")


def autocast_gives_finite_output_near_single_precision(subject: Subject) -> None:
    inputs = subject.inputs()
    with torch.no_grad():
        single = subject.net(*inputs)
        with torch.autocast(subject.device.type, dtype=torch.bfloat16):
            half = subject.net(*inputs).float()
    _need(bool((half - single).norm() < 0.05 * single.norm()), "under autocast it is 5 % off")


def same_seed_same_network(subject: Subject) -> None:
    one, two = (subject.build(seed=7) for _ in range(2))
    inputs = subject.inputs()
    with torch.no_grad():
        _need(torch.equal(one(*inputs), two(*inputs)), "the same seed gives another network")


def saved_weights_and_config_rebuild_it(subject: Subject) -> None:
    net, file = subject.net, io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    again = subject.build(seed=8)
    again.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    inputs = subject.inputs()
    with torch.no_grad():
        same = torch.equal(again.to(subject.device)(*inputs), net(*inputs))
    _need(same, "its saved weights do not rebuild it: something it needs is not in state_dict()")


def deep_copy_is_independent(subject: Subject) -> None:
    inputs, net = subject.inputs(), subject.net
    with torch.no_grad():
        before = net(*inputs)
        twin = copy.deepcopy(net)
        same = torch.equal(twin(*inputs), before)
        for parameter in twin.parameters():
            parameter.add_(1.0)
        apart = torch.equal(net(*inputs), before)
    _need(same and apart, "a deep copy gives another output, or shares weights")


def training_works_after_inference_mode(subject: Subject) -> None:
    net, inputs = subject.build(), subject.inputs()
    with torch.inference_mode():
        net(*inputs)
    try:
        net(*inputs).square().mean().backward()
    except RuntimeError as error:
        raise ContractError(f"after inference mode it cannot be trained: {_line(error)}") from error


# Advice


def starts_at_zero(subject: Subject) -> None:
    with torch.no_grad():
        out = subject.untouched()(*subject.inputs())
    _need(
        not out.any(),
        "its head does not start at zero; with zeros in the last layer's weight and bias a short "
        "training ends better by several dB",
    )


def _few(items: Sequence[object]) -> str:
    shown = ", ".join(str(item) for item in items[:4])
    return f"{shown} and {len(items) - 4} more" if len(items) > 4 else shown or "nothing"


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


QUICK: tuple[Check, ...] = (
    declares_a_frozen_config,
    is_built_from_bands_condition_and_config,
    forward_takes_what_the_contract_says,
    output_has_the_shape_of_x,
    output_depends_on_every_input,
    samples_of_a_batch_do_not_see_each_other,
    guided_blocks_are_visited_as_declared,
    adaptable_operators_are_asked_for_as_declared,
    every_parameter_gets_a_finite_gradient,
    no_operator_is_unknown_to_the_flop_counter,
)
CHECKS: tuple[Check, ...] = (
    *QUICK,
    output_has_the_shape_of_x_at_every_size_and_at_4_and_8_bands,
    an_adapter_that_changes_nothing_equals_none,
    every_guided_block_reaches_the_output,
    every_increment_reaches_the_output_and_gets_gradients,
    an_increment_equals_the_merged_weight,
    a_closed_gate_closes_one_sample_only,
    stage_two_attaches,
    conditional_part_computed_once_equals_the_plain_path,
    memory_format_does_not_matter,
    double_precision_agrees_with_single,
    autocast_gives_finite_output_near_single_precision,
    same_seed_same_network,
    saved_weights_and_config_rebuild_it,
    deep_copy_is_independent,
    training_works_after_inference_mode,
)
ADVICE: tuple[Check, ...] = (starts_at_zero,)
