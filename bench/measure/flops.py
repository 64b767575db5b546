"""A FLOP counter that knows Fourier transforms, complex arithmetic and fused attention.

Convention (``CONVENTION``, written into every row): 2 per real multiply-add, 8 per complex one,
6 per complex product; a real transform of n points 2.5 n log2 n, a complex one 5 n log2 n (the
usual radix-2 operation count, also for lengths that are no power of two); attention is its
matrix products: two forward, four backward, whether or not a fused kernel runs them and whatever
it recomputes. Free by the written list :data:`FREE`: views, copies, elementwise functions, norms,
activations, reductions, pooling, interpolation, optimiser arithmetic. An operator that is neither
known nor free stops the count with its name.

Counting happens at the dispatcher, below autograd, on the meta device: no arithmetic, no memory,
the same answer on every machine.
"""

from __future__ import annotations

import functools
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.measure.traces import copied, reachable, source, uncompiled, untouched

if TYPE_CHECKING:
    from backbones.layers.spectral import SpectralConv2d

__all__ = [
    "CONVENTION",
    "FORMULAS",
    "FREE",
    "FlopCounter",
    "FlopReport",
    "Flops",
    "UnknownOperatorError",
    "count_flops",
    "image_flops",
    "register_formula",
]

CONVENTION = "2 per real MAC, 8 per complex MAC, rfft 2.5 n log2 n, fft 5 n log2 n, elementwise 0"

Formula = Callable[..., float]
FORMULAS: dict[str, Formula] = {}
"""Operator name (``aten`` names bare, others as ``namespace::name``) -> formula."""


class UnknownOperatorError(ValueError):
    """An operator that has no formula and is not on the list of free ones, or cannot be run.

    Args:
        name: of the operator.
        reason: what else is wrong with it.
    """

    def __init__(self, name: str, reason: str = ""):
        self.operator = name
        super().__init__(
            f"operator {name!r} {reason}"
            if reason
            else f"no FLOP formula for operator {name!r} and it is not on the list of free "
            f"operators; give it one with bench.measure.register_formula({name!r})"
        )


def register_formula(*names: str) -> Callable[[Formula], Formula]:
    """Decorator that gives operators a formula ``formula(out, *args, **kwargs) -> FLOPs``.

    Args:
        *names: ``aten`` operators without namespace or overload, e.g. ``"bmm"``; operators of
            another library as ``"library::name"``. The in-place twin is covered.
    """

    def add(formula: Formula) -> Formula:
        FORMULAS.update(dict.fromkeys(names, formula))
        return formula

    return add


# --- formulas -------------------------------------------------------------------------------


def _macs(count: int, out: Tensor) -> int:
    return count * (8 if out.is_complex() else 2)


@register_formula("mm", "_int_mm", "_scaled_mm")
def _mm(out: Tensor, a: Tensor, b: Tensor, *_: Any, **__: Any) -> int:
    return _macs(a.shape[0] * a.shape[1] * b.shape[1], out)


@register_formula("addmm", "_addmm_activation")
def _addmm(out: Tensor, _bias: Tensor, a: Tensor, b: Tensor, *_: Any, **__: Any) -> int:
    return _mm(out, a, b)


@register_formula("bmm")
def _bmm(out: Tensor, a: Tensor, b: Tensor, *_: Any, **__: Any) -> int:
    return _macs(a.numel() * b.shape[2], out)


@register_formula("baddbmm", "addbmm")
def _baddbmm(out: Tensor, _bias: Tensor, a: Tensor, b: Tensor, *_: Any, **__: Any) -> int:
    return _bmm(out, a, b)


@register_formula("mv")
def _mv(out: Tensor, a: Tensor, *_: Any, **__: Any) -> int:
    return _macs(a.numel(), out)


@register_formula("addmv")
def _addmv(out: Tensor, _bias: Tensor, a: Tensor, *_: Any, **__: Any) -> int:
    return _macs(a.numel(), out)


@register_formula("dot", "vdot")
def _dot(out: Tensor, a: Tensor, *_: Any, **__: Any) -> int:
    return _macs(a.numel(), out)


@register_formula("addr")
def _addr(out: Tensor, *_: Any, **__: Any) -> int:
    return _macs(out.numel(), out)


@register_formula("convolution", "_convolution", "convolution_overrideable")
def _convolution(
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    _bias: Tensor | None,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    *_: Any,
    **__: Any,
) -> int:
    # Every weight is used once per position: of the output, or of a transposed one's input.
    positions = (x if transposed else out).shape[2:].numel()
    return _macs(x.shape[0] * positions * weight.numel(), out)


@register_formula("convolution_backward", "convolution_backward_overrideable")
def _convolution_backward(
    out: tuple[Tensor | None, ...],
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    *args: Any,
    **kwargs: Any,
) -> int:
    transposed = args[4] if len(args) > 6 else args[3]
    mask = kwargs.get("output_mask", args[-1] if args else None)
    positions = (x if transposed else grad).shape[2:].numel()
    return sum(mask[:2]) * _macs(x.shape[0] * positions * weight.numel(), grad)


def _transform(constant: float, real: Tensor, dims: list[int]) -> float:
    points = math.prod(real.shape[d] for d in dims)
    return constant * real.numel() * math.log2(points) if points else 0.0


@register_formula("_fft_r2c")
def _fft_r2c(out: Tensor, x: Tensor, dim: list[int], *_: Any, **__: Any) -> float:
    return _transform(2.5, x, dim)


@register_formula("_fft_c2r")
def _fft_c2r(out: Tensor, x: Tensor, dim: list[int], *_: Any, **__: Any) -> float:
    return _transform(2.5, out, dim)


@register_formula("_fft_c2c")
def _fft_c2c(out: Tensor, x: Tensor, dim: list[int], *_: Any, **__: Any) -> float:
    return _transform(5.0, x, dim)


@register_formula("mul", "div")
def _complex_product(out: Tensor, a: Any, b: Any, *_: Any, **__: Any) -> int:
    return 6 * out.numel() if _both_complex(a, b) else 0


@register_formula("addcmul", "addcdiv")
def _complex_product_sum(out: Tensor, _x: Tensor, a: Any, b: Any, *_: Any, **__: Any) -> int:
    return 8 * out.numel() if _both_complex(a, b) else 0


def _both_complex(a: Any, b: Any) -> bool:
    return all(isinstance(x, Tensor) and x.is_complex() and x.dim() for x in (a, b))


_FUSED_ATTENTION = (
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
)


@register_formula(*_FUSED_ATTENTION)
def _attention(out: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    scores = query.shape[:-1].numel() * key.shape[-2]
    return 2 * scores * (query.shape[-1] + value.shape[-1])


@register_formula(*(f"{name}_backward" for name in _FUSED_ATTENTION))
def _attention_backward(
    out: Any, grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> int:
    # dV, dP, dQ, dK. Recomputing the scores is the kernel's way to save memory, not the
    # algorithm: counting it would make one network cost more on a GPU than on a CPU.
    return 2 * _attention(None, query, key, value)


@register_formula("nodiff::selective_scan")
def _selective_scan(out: Any, x: Tensor, _dt: Tensor, decay: Tensor, *_: Any) -> int:
    # Per position, channel and state: decay of the state, its input, its part of the output.
    # dt A and its exponential are elementwise.
    return 2 * 3 * x.numel() * decay.shape[1]


@register_formula("nodiff::selective_scan_backward")
def _selective_scan_backward(
    out: Any, _grad: Tensor, x: Tensor, _dt: Tensor, decay: Tensor, *_: Any
) -> int:
    # The recurrence of the state's gradient (2), gradients of B, C and dt x, of dt and A. States
    # computed again are the operator's way to save memory, not the algorithm.
    return 2 * 7 * x.numel() * decay.shape[1]


# --- free operators -------------------------------------------------------------------------

_FREE_BY_KIND = {
    "metadata": """
        _has_same_storage_numel _local_scalar_dense _assert_async _assert_scalar
        _functional_assert_async allclose equal is_same_size is_nonzero device layout stride
        is_pinned _fused_sdp_choice record_stream
        profiler::_record_function_enter profiler::_record_function_enter_new
        profiler::_record_function_exit""",
    "views": """
        _conj _neg_view _reshape_alias _unsafe_view alias as_strided chunk detach diagonal expand
        imag lift_fresh narrow permute real reshape select slice split split_with_sizes squeeze t
        transpose unbind unfold unsafe_chunk unsafe_split unsafe_split_with_sizes unsqueeze view
        view_as_complex view_as_real resolve_conj resolve_neg""",
    "copies and indexing": """
        _chunk_cat _copy_from _embedding_bag _fw_primal _index_put_impl _pin_memory _reshape_copy
        _stack _to_copy _unsafe_index _unsafe_index_put _unsafe_masked_index
        _unsafe_masked_index_put_accumulate as_strided_copy as_strided_scatter cat channel_shuffle
        clone col2im complex constant_pad_nd contiguous copy diag_embed diagonal_scatter embedding
        embedding_dense expand_copy flip gather im2col index index_add index_copy index_fill
        index_put index_reduce index_select masked_fill masked_scatter masked_select
        permute_copy pixel_shuffle pixel_unshuffle put reflection_pad1d reflection_pad2d
        reflection_pad3d repeat repeat_interleave replication_pad1d replication_pad2d
        replication_pad3d resize resize_as roll rot90 scatter scatter_add scatter_reduce
        select_scatter set slice_copy slice_scatter split_copy split_with_sizes_copy stack
        take to tril triu where""",
    "creation and random numbers": """
        _efficientzerotensor arange bartlett_window bernoulli blackman_window cauchy empty
        empty_like empty_permuted empty_strided exponential eye fft_fftfreq fft_rfftfreq fill full
        full_like geometric hamming_window hann_window kaiser_window linspace log_normal logspace
        multinomial native_dropout new_empty new_empty_strided new_full new_ones new_zeros normal
        normal_functional ones ones_like poisson rand rand_like randint randint_like randn
        randn_like random randperm scalar_tensor tril_indices triu_indices uniform zero zeros
        zeros_like""",
    "elementwise": """
        abs acos acosh add addcdiv addcmul angle asin asinh atan atan2 atanh bitwise_and
        bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor ceil clamp
        clamp_max clamp_min conj_physical copysign cos cosh deg2rad digamma div eq erf erfc erfinv
        exp exp2 expm1 floor floor_divide fmax fmin fmod frac frexp ge gt heaviside hypot i0 isinf
        isnan isfinite isneginf isposinf ldexp le lerp lgamma log log10 log1p log2 logaddexp
        logaddexp2 logical_and logical_not logical_or logical_xor logit lt maximum minimum mul
        nan_to_num ne neg nextafter polar polygamma pow rad2deg reciprocal remainder round rsqrt
        rsub sgn sigmoid sign signbit sin sinc sinh special_entr special_erfcx special_i0e
        special_i1 special_i1e special_ndtri sqrt square sub tan tanh trunc xlogy""",
    "activations": """
        _log_softmax _masked_softmax _prelu_kernel _safe_softmax _softmax celu elu gelu glu
        hardshrink hardsigmoid hardswish hardtanh leaky_relu log_sigmoid log_sigmoid_forward
        log_softmax mish relu rrelu_with_noise silu softmax softplus softshrink threshold""",
    "norms": """
        _batch_norm_no_update _batch_norm_with_update _batch_norm_with_update_functional
        _fused_rms_norm _native_batch_norm_legit _native_batch_norm_legit_functional
        _native_batch_norm_legit_no_training batch_norm_elemt batch_norm_gather_stats_with_counts
        _weight_norm_interface batch_norm_stats cudnn_batch_norm native_batch_norm
        native_group_norm native_layer_norm renorm""",
    "reductions, scans and order": """
        _aminmax _cummax_helper _cummin_helper _is_all_true _is_any_true _logcumsumexp _unique
        _unique2 all amax amin aminmax any argmax argmin bincount bucketize count_nonzero cummax
        cummin cumprod cumsum histc kthvalue linalg_vector_norm logcumsumexp logsumexp max mean
        median min mode nanmedian nansum nonzero norm prod searchsorted sort std std_mean sum topk
        trace unique_consecutive unique_dim var var_mean""",
    "losses": """
        binary_cross_entropy binary_cross_entropy_with_logits dist huber_loss mse_loss nll_loss
        nll_loss2d nll_loss2d_forward nll_loss_forward smooth_l1_loss soft_margin_loss""",
    "pooling and interpolation": """
        _adaptive_avg_pool2d _adaptive_avg_pool3d _upsample_bicubic2d_aa _upsample_bilinear2d_aa
        _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
        adaptive_avg_pool1d adaptive_max_pool2d adaptive_max_pool3d affine_grid_generator
        avg_pool1d avg_pool2d avg_pool3d fractional_max_pool2d grid_sampler_2d grid_sampler_3d
        max_pool2d_with_indices max_pool3d_with_indices max_unpool2d upsample_bicubic2d
        upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d
        upsample_nearest3d upsample_trilinear3d""",
    "optimiser arithmetic": """
        _amp_foreach_non_finite_check_and_unscale _amp_update_scale _fused_adagrad _fused_adam
        _fused_adamw _fused_sgd""",
}
FREE = frozenset(name for names in _FREE_BY_KIND.values() for name in names.split())
"""Free operators, ``aten`` ones bare; so are their in-place, ``_foreach_`` and backward twins."""


def _operator_name(func: Any) -> str:
    namespace, _, name = func.name().rpartition("::")  # a higher-order one has no namespace
    name = name.split(".")[0]
    if name.endswith("_") and not name.startswith("__"):
        name = name.removesuffix("_")
    return name if namespace in ("aten", "prim", "") else f"{namespace}::{name}"


def _is_free(name: str) -> bool:
    if name in FREE:
        return True
    base = name.removeprefix("_foreach_").removesuffix("_data").removesuffix("_backward")
    return base in FREE


def _without_out(func: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Drop what a formula is handed as ``out`` already, whatever the schema calls it."""
    schema = getattr(func, "_schema", None)
    outs = {argument.name for argument in schema.arguments if argument.is_out} if schema else ()
    return {name: value for name, value in kwargs.items() if name not in outs}


# --- the counter ----------------------------------------------------------------------------

# What torch before 2.9 says of a higher-order operator, and of one that looks at the device.
_REFUSED = re.compile(r"no rule registered for \w+ (\w+)|FlexAttention is only supported on")
_CONVOLUTIONS = frozenset(
    getattr(torch, f"conv{kind}{rank}d") for kind in ("", "_transpose") for rank in (1, 2, 3)
)


class _ComplexConvolutions(TorchFunctionMode):
    """Make a complex convolution of four real ones.

    Torch makes it of three and some sums (Gauss), above the dispatcher, where none of it tells
    any more that it was complex; four are the 8 FLOPs of a complex multiply-add, backward too.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _CONVOLUTIONS:
            return func(*args, **kwargs)
        names = ("input", "weight", "bias")
        given = dict(zip(names, args, strict=False))
        options = {name: value for name, value in kwargs.items() if name not in names}
        given |= {name: kwargs[name] for name in names if name in kwargs}
        x, weight, bias = (given.get(name) for name in names)
        if not (x.is_complex() and weight.is_complex()):
            return func(*args, **kwargs)

        def real(x: Tensor, weight: Tensor) -> Tensor:
            return func(x, weight, None, *args[3:], **options)

        out = torch.complex(
            real(x.real, weight.real) - real(x.imag, weight.imag),
            real(x.real, weight.imag) + real(x.imag, weight.real),
        )
        return out if bias is None else out + bias.view(-1, *[1] * (weight.dim() - 2))


def _refuse_complex(module: torch.jit.ScriptModule) -> None:
    """Refuse a scripted module that may hold a complex convolution: no mode sees it whole."""
    if any(x.is_complex() for x in (*module.parameters(), *module.buffers())):
        raise UnknownOperatorError("complex arithmetic", "inside a scripted module is not counted")


def _named_modules(root: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Qualified names and modules, as if nothing were compiled."""
    for name, module in root.named_modules(prefix=type(source(root)).__name__):
        yield name.replace("._orig_mod", ""), module


class FlopCounter(TorchDispatchMode):
    """Count what runs inside a ``with`` block, uncompiled, on whatever device it runs.

    Args:
        *modules: modules to break the count down by. Without any, :attr:`by_module` stays empty.

    Attributes:
        by_operator: FLOPs by operator name.
        by_module: FLOPs by qualified module name, starting with the class name of the root; a
            module's number includes its children. Backward operators belong to the module whose
            forward made them.
        total: all FLOPs so far.
        backward: the part of ``total`` that autograd ran (recomputed checkpoints included).

    Raises:
        UnknownOperatorError: from inside the block, at the first operator that is neither known
            nor free.
    """

    supports_higher_order_operators = True

    def __init__(self, *modules: nn.Module):
        super().__init__()
        self.by_operator: dict[str, int] = defaultdict(int)
        self.by_module: dict[str, int] = defaultdict(int)
        self.total = 0
        self.backward = 0
        self.device: torch.device | None = None  # every counted operand must live there
        self._modules = modules
        self._stack: list[tuple[str, int]] = []
        self._makers: dict[int, tuple[str, ...]] = {}  # autograd sequence number -> module path
        self._undo = ExitStack()

    def __enter__(self) -> FlopCounter:
        for root in self._modules:
            for name, module in _named_modules(root):
                if isinstance(module, torch.jit.ScriptModule):  # takes no hooks
                    _refuse_complex(module)
                    continue
                enter = functools.partial(self._push, name)
                # Recomputing a checkpoint may stop in the middle of a module, by an exception.
                self._undo.callback(module.register_forward_pre_hook(enter).remove)
                leave = module.register_forward_hook(self._pop, always_call=True)
                self._undo.callback(leave.remove)
        self._undo.enter_context(uncompiled())
        self._undo.enter_context(_ComplexConvolutions())
        super().__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, traceback: Any) -> None:
        super().__exit__(kind, error, traceback)
        self._undo.close()
        if kind in (NotImplementedError, ValueError) and (match := _REFUSED.search(str(error))):
            raise UnknownOperatorError(match[1] or "flex_attention") from error

    def _push(self, name: str, *_: Any) -> None:
        self._stack.append((name, torch.autograd._get_sequence_nr()))

    def _pop(self, *_: Any) -> None:
        path = tuple(name for name, _ in self._stack)
        _, start = self._stack.pop()
        for number in range(start, torch.autograd._get_sequence_nr()):
            self._makers.setdefault(number, path)  # children return first and keep theirs

    def _path(self, node: Any) -> tuple[str, ...]:
        if self._stack or node is None:
            return tuple(name for name, _ in self._stack)
        return self._makers.get(node._sequence_nr(), ())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = _operator_name(func)
        formula = FORMULAS.get(name)
        if formula is None and not _is_free(name):
            # Composite operators arrive whole in inference mode; look at what they are made of.
            if isinstance(func, torch._ops.OpOverload):
                super().__enter__()
                try:
                    out = func.decompose(*args, **kwargs)
                finally:
                    super().__exit__(None, None, None)
                if out is not NotImplemented:
                    return out
            raise UnknownOperatorError(name)
        try:
            out = func(*args, **kwargs)
        except RuntimeError as error:
            if not isinstance(error, NotImplementedError) and "meta tensors" not in str(error):
                raise
            reason = "does not run on this device; count on another, such as device='cpu'"
            raise UnknownOperatorError(name, reason) from error
        if formula is not None:
            self._check_device(name, args)
            self._add(name, self._apply(formula, name, out, args, _without_out(func, kwargs)))
        return out

    def _apply(
        self, formula: Formula, name: str, out: Any, args: tuple, kwargs: dict[str, Any]
    ) -> int:
        try:
            return round(formula(out, *args, **kwargs))
        except Exception as error:  # a formula meets an overload that it was not written for
            reason = f"was called in a way that its FLOP formula does not know ({error})"
            raise UnknownOperatorError(name, reason) from error

    def _check_device(self, name: str, args: tuple) -> None:
        if self.device is None:
            return
        for arg in args:
            if isinstance(arg, Tensor) and arg.dim() and arg.device.type != self.device.type:
                raise ValueError(
                    f"operator {name!r} met a tensor on {arg.device} while counting on "
                    f"{self.device}; hand the modules and tensors a function uses over as its "
                    "arguments instead of closing over them"
                )

    def _add(self, name: str, flops: int) -> None:
        if not flops:
            return
        node = torch._C._current_autograd_node()
        self.total += flops
        self.by_operator[name] += flops
        if node is not None:
            self.backward += flops
        for module in set(self._path(node)):
            self.by_module[module] += flops


# --- counting a module ----------------------------------------------------------------------


class Flops(NamedTuple):
    """One count in both readings.

    Attributes:
        canonical: the algorithm: spectral layers as unpruned rfft2, complex product, irfft2.
        executed: this implementation, as configured.
    """

    canonical: int
    executed: int


@dataclass(frozen=True)
class FlopReport:
    """FLOPs of one call (and of its backward pass, if asked for).

    Attributes:
        canonical: FLOPs of the algorithm, comparable between implementations.
        executed: FLOPs of the operators that run; use it for achieved FLOP/s.
        backward: the part of both that the backward pass takes; 0 when not asked for.
        by_operator: by operator name, largest first.
        by_module: by qualified module name in calling order, children included in parents.
    """

    canonical: int
    executed: int
    backward: Flops
    by_operator: dict[str, Flops]
    by_module: dict[str, Flops]

    @property
    def forward(self) -> Flops:
        """The forward pass alone."""
        return Flops(
            self.canonical - self.backward.canonical, self.executed - self.backward.executed
        )

    def table(self, depth: int = 2) -> list[dict[str, Any]]:
        """Rows of the per-module table: module, canonical, executed, share of canonical.

        Args:
            depth: levels below the root to show.
        """
        return [
            {
                "module": name,
                "canonical": flops.canonical,
                "executed": flops.executed,
                "share": flops.canonical / self.canonical if self.canonical else 0.0,
            }
            for name, flops in self.by_module.items()
            if name.count(".") <= depth
        ]


def count_flops(
    target: Callable[..., Any],
    *inputs: Any,
    backward: bool = False,
    device: str | torch.device = "meta",
    **kwargs: Any,
) -> FlopReport:
    """Count the FLOPs of ``target(*inputs, **kwargs)``.

    A copy is counted; the module and tensors handed in are not touched. Any torch module will do,
    as will a function, a bound method or a ``functools.partial``, as long as the modules and
    tensors it uses are among its arguments and not in its closure.

    Args:
        target: what to call.
        *inputs: its arguments: tensors on any device, modules, or objects that hold them.
        backward: count the backward pass from all differentiable outputs too. Parameters that do
            not require a gradient are taken as frozen, inputs likewise.
        device: where the copy runs. ``meta`` does no arithmetic; name a real device for code whose
            control flow reads tensor values.
        **kwargs: keyword arguments of ``target``.

    Returns:
        The report. ``canonical`` equals ``executed`` where no spectral layer is involved.

    Raises:
        UnknownOperatorError: an operator that is neither known nor free.
        ValueError: tensors closed over.
    """
    call = (target, inputs, kwargs)
    executed = _count(call, torch.device(device), backward, canonical=False)
    if any(layer.form != "textbook" for layer in _spectral_layers(call)):
        canonical = _count(call, torch.device(device), backward, canonical=True)
    else:
        canonical = executed

    def pair(name: str, group: str) -> Flops:
        return Flops(getattr(canonical, group).get(name, 0), getattr(executed, group).get(name, 0))

    operators = {name: pair(name, "by_operator") for name in canonical.by_operator}
    operators |= {name: pair(name, "by_operator") for name in executed.by_operator}
    modules = [
        name
        for root in _roots(call)
        for name, _ in _named_modules(root)
        if name in canonical.by_module or name in executed.by_module
    ]
    return FlopReport(
        canonical=canonical.total,
        executed=executed.total,
        backward=Flops(canonical.backward, executed.backward),
        by_operator=dict(sorted(operators.items(), key=lambda item: -max(item[1]))),
        by_module={name: pair(name, "by_module") for name in modules},
    )


def image_flops(step: int, steps: int, once: int = 0, tiles: int = 1) -> int:
    """FLOPs of one fused image.

    Args:
        step: FLOPs of one denoising step on one tile.
        steps: network evaluations per tile.
        once: FLOPs done once per image whatever the tiling (auxiliary predictor, folded terms).
        tiles: tiles per image, overlap counted.
    """
    return once + tiles * steps * step


def _count(
    call: tuple[Any, ...], device: torch.device, backward: bool, *, canonical: bool
) -> FlopCounter:
    target, inputs, kwargs = copied(device, call)
    if canonical:
        for layer in _spectral_layers((target, inputs, kwargs)):
            layer.form = "textbook"
    counter = FlopCounter(*_roots((target, inputs, kwargs)))
    counter.device = device
    # A copy runs, but what it closes over is not one.
    closed_over = getattr(source(call[0]), "__closure__", None)
    with untouched(closed_over), torch.set_grad_enabled(backward):
        torch.backends.mha.set_fastpath_enabled(False)  # one opaque operator for its products
        with counter:
            out = target(*inputs, **kwargs)
            if backward:
                leaves = [y for y in tree_leaves(out) if isinstance(y, Tensor) and y.requires_grad]
                torch.autograd.backward(leaves, [torch.ones_like(y) for y in leaves])
    return counter


def _modules(call: tuple[Any, ...]) -> list[nn.Module]:
    return list(reachable(call, nn.Module))


def _spectral_layers(call: tuple[Any, ...]) -> list[SpectralConv2d]:
    # Here and not above: this import loads torch's compiler, and a fresh process for a memory
    # measurement that needs no spectral layer should not.
    from backbones.layers.spectral import SpectralConv2d

    return [module for module in _modules(call) if isinstance(module, SpectralConv2d)]


def _roots(call: tuple[Any, ...]) -> list[nn.Module]:
    """Modules that are not part of another one among the arguments."""
    modules = _modules(call)
    inner = {id(child) for module in modules for child in module.modules() if child is not module}
    return [module for module in modules if id(module) not in inner]
