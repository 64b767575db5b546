"""A library's network behind the call contract, by hooks on its modules.

Which inputs and operators there are is found out on the meta device, where the network runs once
for nothing: a guided block is one whose input is a feature of the image - (B, C, h, w), (B, h, w,
C) or tokens (B, h w, C) -, an adaptable operator a convolution or linear layer inside such a block
that is called once and sees such a feature. Layers that see the time alone, (B, C), are neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import isqrt
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from backbones.contract import Adapt, AdaptableOp, GuidedBlock
from backbones.layers.adaptation import NO_ADAPT, conv2d_increment, linear_increment
from backbones.layers.embedding import TimeEmbedding

__all__ = ["Foreign"]

_BATCH = 5  # of the run on the meta device: told apart from everything else a first axis may be
_OPERATORS = nn.Conv1d, nn.Conv2d, nn.Linear


class _Layout(NamedTuple):
    """How a feature of an image of (height, width) is stored."""

    kind: Literal["planes", "pixels", "tokens"]
    channels: int
    factor: int

    def to_planes(self, feature: Tensor, size: tuple[int, int]) -> Tensor:
        """Return it as (B, C, h, w)."""
        if self.kind == "tokens":
            grid = size[0] // self.factor, size[1] // self.factor
            return feature.transpose(1, 2).unflatten(2, grid)
        return feature.permute(0, 3, 1, 2) if self.kind == "pixels" else feature

    def from_planes(self, planes: Tensor) -> Tensor:
        """Return (B, C, h, w) as it is stored."""
        if self.kind == "tokens":
            return planes.flatten(2).transpose(1, 2)
        return planes.permute(0, 2, 3, 1) if self.kind == "pixels" else planes


def _layout(shape: tuple[int, ...], size: tuple[int, int]) -> _Layout | None:
    """Tell how a feature of a non-square image is stored; None where it is no such feature."""
    height, width = size
    if len(shape) == 4 and shape[0] == _BATCH:
        for kind, (rows, columns), channels in (
            ("planes", shape[2:], shape[1]),
            ("pixels", shape[1:3], shape[3]),
        ):
            factor = height // rows if rows and height % rows == 0 else 0
            if factor and columns * factor == width:
                return _Layout(kind, channels, factor)
    if len(shape) == 3 and shape[0] == _BATCH and shape[1] and height * width % shape[1] == 0:
        factor = isqrt(height * width // shape[1])
        fits = height % factor == 0 and width % factor == 0
        if fits and (height // factor) * (width // factor) == shape[1]:
            return _Layout("tokens", shape[2], factor)
    return None


@dataclass
class _Now:
    """What the hooks of one network look at while it runs; deep copies have one of their own."""

    adapt: Adapt = NO_ADAPT
    size: tuple[int, int] = (0, 0)
    shifts: dict[str, Tensor] = field(default_factory=dict)


def _input(args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return args[0] if args else next(iter(options.values()), None)


def _called(name: str, args: tuple[Any, ...]) -> str:
    """Name a call: a module that holds several layers is told which (neuraloperator's blocks)."""
    name = name.replace(".", "_")
    return f"{name}_{args[1]}" if len(args) > 1 and type(args[1]) is int else name


@dataclass
class _Guide:
    """Forward pre-hook of a block: the time, where the library has no way for it, and guidance."""

    name: str
    layouts: dict[str, _Layout]
    now: _Now

    def __call__(self, module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        name = _called(self.name, args)
        layout = self.layouts.get(name)
        shift = self.now.shifts.get(name)
        if layout is None or (self.now.adapt is NO_ADAPT and shift is None):
            return None
        planes = layout.to_planes(_input(args, options), self.now.size)
        if shift is not None:
            planes = planes + shift[:, :, None, None]
        feature = layout.from_planes(self.now.adapt.guide(name, planes))
        if args:
            return (feature, *args[1:]), options
        first = next(iter(options))
        return args, {**options, first: feature}


@dataclass
class _Increment:
    """Forward hook of an operator: its low-rank increment."""

    name: str
    now: _Now

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        low_rank = self.now.adapt.low_rank(self.name)
        if low_rank is None:
            return None
        if isinstance(module, nn.Conv2d):
            return output + conv2d_increment(module, args[0], low_rank)
        if isinstance(module, nn.Linear):
            return output + linear_increment(args[0], low_rank)
        return output + linear_increment(args[0].transpose(1, 2), low_rank).transpose(1, 2)


def _pointwise(module: nn.Module) -> bool:
    return module.kernel_size == (1,) and module.stride == (1,) and module.groups == 1


def _operator(name: str, module: nn.Module) -> AdaptableOp | None:
    """Describe an operator that takes an increment; None for what takes none."""
    if isinstance(module, nn.Linear):
        return AdaptableOp(name, "linear", module.in_features, module.out_features)
    if isinstance(module, nn.Conv1d) and _pointwise(module):
        return AdaptableOp(name, "linear", module.in_channels, module.out_channels)
    square = isinstance(module, nn.Conv2d) and module.kernel_size[0] == module.kernel_size[1]
    if square and module.groups == 1:
        return AdaptableOp(
            name,
            "conv",
            module.in_channels,
            module.out_channels,
            kernel_size=module.kernel_size[0],
        )
    return None


class Foreign(nn.Module):
    """A library's network as a denoiser.

    A subclass says how it is built and run; :meth:`evaluate` takes the concatenation [x, cond].

    Args:
        bands: C.
        cond_channels: K.
        config: the frozen dataclass that it is built from.
        make: builds the library's network; called a second time for the meta device.
        blocks: its modules whose inputs are guided, by dotted name; what is no feature of the
            image is left out.
        last: the module whose output is the network's, by dotted name; it starts at zero.
        time_width: channels of a time embedding of ours, added at the input of every guided
            block; None: the library's network takes the time itself.
    """

    guided: tuple[GuidedBlock, ...]
    adaptable: tuple[AdaptableOp, ...]
    size_multiple = 1
    min_size = 1
    family: str
    citation: str
    version = 1

    def __init__(
        self,
        bands: int,
        cond_channels: int,
        config: object,
        make: Callable[[], nn.Module],
        blocks: Callable[[nn.Module], Iterable[str]],
        last: str,
        time_width: int | None = None,
    ):
        super().__init__()
        self.bands, self.cond_channels, self.config = bands, cond_channels, config
        self.inner = make()
        head = self.inner.get_submodule(last)
        nn.init.zeros_(head.weight)
        if head.bias is not None:
            nn.init.zeros_(head.bias)
        layouts, operators = self._survey(make, tuple(blocks(self.inner)))
        self.guided = tuple(GuidedBlock(n, one.channels, one.factor) for n, one in layouts.items())
        self.adaptable = tuple(operators.values())
        self.embedding = self.shifts = None
        if time_width is not None:
            self.embedding = nn.Sequential(
                TimeEmbedding(time_width, 4 * time_width, time_width), nn.SiLU()
            )
            self.shifts = nn.ModuleDict(
                {b.name: nn.Linear(time_width, b.channels) for b in self.guided}
            )
        self._now = _Now()
        for name in blocks(self.inner):
            block = self.inner.get_submodule(name)
            block.register_forward_pre_hook(_Guide(name, layouts, self._now), with_kwargs=True)
        for name, op in operators.items():
            self.inner.get_submodule(name).register_forward_hook(_Increment(op.name, self._now))

    def evaluate(self, inner: nn.Module, image: Tensor, time: Tensor) -> Tensor:
        """Run the library's network: [x, cond] (B, C + K, H, W), time (B,) -> (B, C, H, W)."""
        raise NotImplementedError

    def _survey(
        self, make: Callable[[], nn.Module], blocks: tuple[str, ...]
    ) -> tuple[dict[str, _Layout], dict[str, AdaptableOp]]:
        """Return the layout of every guided input, and the operators, in the order of calls."""
        layouts: dict[str, _Layout] = {}
        calls: dict[str, list[Any]] = {}
        multiple = self.size_multiple
        side = -(-max(self.min_size, 2) // multiple) * multiple
        size = side, side + multiple

        def see_block(name: str) -> Callable[..., None]:
            def see(_: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
                feature = _input(args, options)
                layout = _layout(tuple(feature.shape), size) if torch.is_tensor(feature) else None
                if layout is not None:
                    layouts[_called(name, args)] = layout

            return see

        def see_operator(name: str) -> Callable[..., None]:
            def see(_: nn.Module, args: tuple[Any, ...]) -> None:
                calls.setdefault(name, []).append(args[0].shape if args else ())

            return see

        with torch.device("meta"):
            sketch = make().eval()
        for name in blocks:
            hook = see_block(name)
            sketch.get_submodule(name).register_forward_pre_hook(hook, with_kwargs=True)
        for name, module in sketch.named_modules():
            if isinstance(module, _OPERATORS) and name.startswith(tuple(f"{b}." for b in blocks)):
                module.register_forward_pre_hook(see_operator(name))
        with torch.no_grad():
            image = torch.empty(_BATCH, self.bands + self.cond_channels, *size, device="meta")
            self.evaluate(sketch, image, torch.empty(_BATCH, device="meta"))
        operators = {}
        for name, shapes in calls.items():
            op = _operator(name.replace(".", "_"), sketch.get_submodule(name))
            if op and len(shapes) == 1 and len(shapes[0]) > 2 and shapes[0][0] == _BATCH:
                operators[name] = op
        return layouts, operators

    def forward(self, x: Tensor, time: Tensor, cond: Tensor, adapt: Adapt | None = None) -> Tensor:
        """Denoise; see :mod:`backbones.contract` for shapes and ranges."""
        now = self._now
        now.adapt, now.size = NO_ADAPT if adapt is None else adapt, tuple(x.shape[-2:])
        if self.shifts is not None:
            embedding = self.embedding(time)
            now.shifts = {name: shift(embedding) for name, shift in self.shifts.items()}
        try:
            return self.evaluate(self.inner, torch.cat([x, cond], dim=1), time).contiguous()
        finally:
            now.adapt, now.shifts = NO_ADAPT, {}
