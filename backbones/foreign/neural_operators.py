"""Networks of neuraloperator: FNO, TFNO and UNO.

They know no time: it is added at the input of every layer, as in the ``fno`` backbone. The spectral
convolutions are in single precision, whatever the rest is. ``low_rank`` has their pointwise
convolutions; the complex weights, factorised or not, stay as they are.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from neuralop.layers.spectral_convolution import SpectralConv
from neuralop.models import FNO, TFNO, UNO
from torch import Tensor, nn

from backbones.foreign.settings import Settings, library_arguments
from backbones.foreign.wrapping import Foreign
from backbones.layers.base import require_positive

__all__ = ["NeuralopFNO", "NeuralopFNOConfig", "NeuralopTFNO", "NeuralopTFNOConfig", "NeuralopUNO",
           "NeuralopUNOConfig"]  # fmt: skip

_RESERVED = "in_channels", "out_channels"


@dataclass(frozen=True)
class NeuralopFNOConfig:
    """Options of the ``neuralop_fno`` backbone."""

    width: int = 64
    """``hidden_channels`` (even). 64 as in the ``fno``."""

    layers: int = 8
    """``n_layers``. 8 as in the ``fno``."""

    modes: int = 12
    """m; ``n_modes`` = (2 m, 2 m - 2) keeps the modes that the ``fno`` keeps. At least 2, at most
    half the patch."""

    settings: Mapping[str, Any] = field(default_factory=Settings)
    """Further arguments of the library's class by name, over those made of the fields above. The
    positional embedding, which would tell tiles from whole images, is off unless set."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", Settings(self.settings))


class _Single:
    """Pre-hook and hook of a spectral convolution: float32 in, the type it was given out."""

    def __init__(self) -> None:
        self.given = torch.float32

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        self.given = args[0].dtype
        return (args[0].float(), *args[1:])

    def after(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return output.to(self.given)


class _Operator(Foreign):
    """What the three have in common."""

    family = "operator"

    def __init__(
        self, bands: int, cond_channels: int, config: Any, build: Callable[..., nn.Module],
        arguments: Mapping[str, Any], width: int,
    ):  # fmt: skip
        def make() -> nn.Module:
            with redirect_stdout(io.StringIO()):  # UNO prints its skips
                return build(in_channels=bands + cond_channels, out_channels=bands, **arguments)

        super().__init__(
            bands, cond_channels, config, make, _layers, last="projection.fcs.1", time_width=width
        )
        self.register_state_dict_post_hook(_drop_arguments)
        for module in self.inner.modules():
            if isinstance(module, SpectralConv):
                single = _Single()
                module.register_forward_pre_hook(single.before)
                module.register_forward_hook(single.after)

    def evaluate(self, inner: nn.Module, image: Tensor, time: Tensor) -> Tensor:
        return inner(image)


def _drop_arguments(module: nn.Module, state: dict[str, Any], prefix: str, local: Any) -> None:
    """Take the library's arguments, which our config has, from among the weights."""
    state.pop("_metadata", None)


def _layers(network: nn.Module) -> Iterator[str]:
    blocks = network.fno_blocks
    if isinstance(blocks, nn.ModuleList):
        yield from (f"fno_blocks.{i}" for i in range(len(blocks)))
    else:
        yield "fno_blocks"  # one module that is told which layer it is


class NeuralopFNO(_Operator):
    """neuraloperator's FNO as a denoiser."""

    Config = NeuralopFNOConfig
    scales: ClassVar = {
        "tiny": {"width": 8, "layers": 2, "modes": 4},
        "small": {"width": 20, "layers": 6},
        "base": {},
    }
    citation = (
        "Kossaifi et al., A Library for Learning Neural Operators, 2024 (FNO); "
        "Li et al., Fourier Neural Operator for Parametric PDEs, ICLR 2021"
    )
    build: ClassVar[type] = FNO

    def __init__(
        self, bands: int, cond_channels: int, config: NeuralopFNOConfig = NeuralopFNOConfig()
    ):
        require_positive(config, "width", "layers")
        if config.modes < 2:
            raise ValueError(f"modes must be at least 2, got {config.modes}")
        modes = config.modes
        own = {
            "n_modes": (2 * modes, 2 * modes - 2),
            "hidden_channels": config.width,
            "n_layers": config.layers,
            "positional_embedding": None,
            **self._factorised(config),
        }
        # TFNO names no arguments of its own: it is an FNO with others by default.
        arguments = library_arguments(FNO, own, config.settings, _RESERVED)
        self.min_size = max(arguments["n_modes"])
        super().__init__(bands, cond_channels, config, self.build, arguments, config.width)

    @staticmethod
    def _factorised(config: Any) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class NeuralopTFNOConfig(NeuralopFNOConfig):
    """Options of the ``neuralop_tfno`` backbone."""

    rank: float = 0.1
    """Parameters of the factorised weights over those of dense ones. The library's default."""


class NeuralopTFNO(NeuralopFNO):
    """neuraloperator's Tucker-factorised FNO as a denoiser."""

    Config = NeuralopTFNOConfig
    citation = "Kossaifi et al., Multi-Grid Tensorized Fourier Neural Operator, TMLR 2024"
    build: ClassVar[type] = TFNO

    @staticmethod
    def _factorised(config: NeuralopTFNOConfig) -> dict[str, Any]:
        return {"rank": config.rank}


@dataclass(frozen=True)
class NeuralopUNOConfig:
    """Options of the ``neuralop_uno`` backbone."""

    width: int = 32
    """``hidden_channels`` (even), and channels of the layers at full size; twice at half size."""

    modes: int = 12
    """m at full size, where ``n_modes`` = (2 m, 2 m - 2); half of it at half size. At least 4, at
    most half the patch."""

    middle: int = 1
    """Layers at half size beside the one that leads there and the one that leads back."""

    settings: Mapping[str, Any] = field(default_factory=Settings)
    """Further arguments of the library's class by name, over those made of the fields above:
    ``uno_out_channels``, ``uno_n_modes`` and ``uno_scalings`` among them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", Settings(self.settings))


class NeuralopUNO(_Operator):
    """neuraloperator's U-shaped neural operator as a denoiser."""

    Config = NeuralopUNOConfig
    scales: ClassVar = {
        "tiny": {"width": 8, "modes": 4},
        "small": {"width": 16},
        "base": {},
    }
    citation = "Rahman et al., U-NO: U-shaped Neural Operators, TMLR 2023 (neuraloperator's UNO)"

    def __init__(
        self, bands: int, cond_channels: int, config: NeuralopUNOConfig = NeuralopUNOConfig()
    ):
        require_positive(config, "width", "middle")
        if config.modes < 4:
            raise ValueError(f"modes must be at least 4, got {config.modes}")
        width, modes, middle = config.width, config.modes, config.middle
        full, half = (2 * modes, 2 * modes - 2), (modes, modes - 2)
        layers = middle + 4  # enter, down, middle, up, leave
        arguments = library_arguments(
            UNO,
            {
                "hidden_channels": width,
                "lifting_channels": 2 * width,
                "projection_channels": 2 * width,
                "n_layers": layers,
                "uno_out_channels": [width, *[2 * width] * (middle + 1), width, width],
                "uno_n_modes": [full, *[half] * (middle + 2), full],
                "uno_scalings": [[1, 1], [0.5, 0.5], *[[1, 1]] * middle, [2, 2], [1, 1]],
                "channel_mlp_skip": "linear",  # soft gating, the default, keeps the channels
                "positional_embedding": None,
            },
            config.settings,
            _RESERVED,
        )
        self.size_multiple = 2
        self.min_size = max(max(one) for one in arguments["uno_n_modes"])
        super().__init__(bands, cond_channels, config, UNO, arguments, width)
