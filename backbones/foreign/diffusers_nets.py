"""Networks of diffusers: UNet2DModel, and DiTTransformer2DModel with one class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from backbones.foreign.settings import Settings, library_arguments
from backbones.foreign.wrapping import Foreign
from backbones.layers.base import require_positive
from backbones.torchvision_ops import ensure_torchvision

ensure_torchvision()

from diffusers import DiTTransformer2DModel, UNet2DModel  # noqa: E402

__all__ = ["DiffusersDiT", "DiffusersDiTConfig", "DiffusersUNet", "DiffusersUNetConfig"]


@dataclass(frozen=True)
class DiffusersUNetConfig:
    """Options of the ``diffusers_unet`` backbone."""

    width: int = 128
    """Channels of the first level. 128 in DDPM's network of this class (google/ddpm-cifar10-32)."""

    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    """Channels of each level over ``width``; a level halves the size. As there."""

    blocks: int = 2
    """``layers_per_block``; the decoder has one more. As there."""

    attention: tuple[int, ...] = (2,)
    """Levels that attend, 0 = full size: 16 pixels of a 64-pixel patch. The middle always does."""

    head_channels: int = 8
    """``attention_head_dim``. The library's default."""

    groups: int = 32
    """``norm_num_groups``; divides the channels of every level. The library's default."""

    settings: Mapping[str, Any] = field(default_factory=Settings)
    """Further arguments of UNet2DModel by name, over those made of the fields above: any config of
    it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", Settings(self.settings))


class DiffusersUNet(Foreign):
    """diffusers' U-Net denoiser; guided are its levels."""

    Config = DiffusersUNetConfig
    scales: ClassVar = {
        "tiny": {
            "width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (1,), "head_channels": 4,
            "groups": 4,
        },
        "small": {"width": 16, "multipliers": (1, 2, 2, 4), "blocks": 1, "groups": 8},
        "base": {},
    }  # fmt: skip
    family = "unet"
    citation = "von Platen et al., Diffusers: State-of-the-art diffusion models, 2022 (UNet2DModel)"

    def __init__(
        self, bands: int, cond_channels: int, config: DiffusersUNetConfig = DiffusersUNetConfig()
    ):
        require_positive(config, "width", "multipliers", "blocks", "head_channels", "groups")
        levels = range(len(config.multipliers))
        for level in config.attention:
            if level not in levels:
                raise ValueError(f"attention names levels 0 to {levels[-1]}, got {level}")
        attends = ["Attn" if level in config.attention else "" for level in levels]
        arguments = library_arguments(
            UNet2DModel,
            {
                "block_out_channels": tuple(config.width * m for m in config.multipliers),
                "down_block_types": tuple(f"{kind}DownBlock2D" for kind in attends),
                "up_block_types": tuple(f"{kind}UpBlock2D" for kind in reversed(attends)),
                "layers_per_block": config.blocks,
                "attention_head_dim": config.head_channels,
                "norm_num_groups": config.groups,
            },
            config.settings,
            reserved=("in_channels", "out_channels"),
        )
        self.size_multiple = self.min_size = 2 ** (len(arguments["block_out_channels"]) - 1)
        super().__init__(
            bands,
            cond_channels,
            config,
            lambda: UNet2DModel(in_channels=bands + cond_channels, out_channels=bands, **arguments),
            _levels,
            last="conv_out",
        )

    def evaluate(self, inner: nn.Module, image: Tensor, time: Tensor) -> Tensor:
        return inner(image, 1000 * time, return_dict=False)[0]


def _levels(network: UNet2DModel) -> Iterator[str]:
    yield from (f"down_blocks.{i}" for i in range(len(network.down_blocks)))
    if network.mid_block is not None:
        yield "mid_block"
    yield from (f"up_blocks.{i}" for i in range(len(network.up_blocks)))


@dataclass(frozen=True)
class DiffusersDiTConfig:
    """Options of the ``diffusers_dit`` backbone."""

    heads: int = 6
    """``num_attention_heads``. 6 as in DiT-S."""

    head_channels: int = 64
    """``attention_head_dim``; a token has ``heads`` times as many. 64 as in DiT-S."""

    layers: int = 12
    """``num_layers``. 12 as in DiT-S."""

    patch_size: int = 4
    """Side of the patch that makes a token, pixels; 2, 4 or 8 in DiT."""

    settings: Mapping[str, Any] = field(default_factory=Settings)
    """Further arguments of DiTTransformer2DModel by name, over those made of the fields above: any
    config of it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", Settings(self.settings))


class DiffusersDiT(Foreign):
    """diffusers' diffusion transformer with one class, never dropped; guided are its blocks."""

    Config = DiffusersDiTConfig
    scales: ClassVar = {
        "tiny": {"heads": 2, "head_channels": 8, "layers": 2},
        "small": {"heads": 2, "head_channels": 40, "layers": 6},
        "base": {},
    }
    family = "transformer"
    citation = (
        "Peebles & Xie, Scalable Diffusion Models with Transformers (DiT), ICCV 2023 "
        "(diffusers' DiTTransformer2DModel)"
    )

    def __init__(
        self, bands: int, cond_channels: int, config: DiffusersDiTConfig = DiffusersDiTConfig()
    ):
        require_positive(config, "heads", "head_channels", "layers", "patch_size")
        arguments = library_arguments(
            DiTTransformer2DModel,
            {
                "num_attention_heads": config.heads,
                "attention_head_dim": config.head_channels,
                "num_layers": config.layers,
                "patch_size": config.patch_size,
                "sample_size": 64,
                "num_embeds_ada_norm": 1,
            },
            config.settings,
            reserved=("in_channels", "out_channels"),
        )
        self.size_multiple = self.min_size = arguments["patch_size"]

        def make() -> DiTTransformer2DModel:
            network = DiTTransformer2DModel(
                in_channels=bands + cond_channels, out_channels=bands, **arguments
            )
            for block in network.transformer_blocks:
                block.norm1.emb.class_embedder.dropout_prob = 0.0
            return network

        super().__init__(bands, cond_channels, config, make, _blocks, last="proj_out_2")

    def evaluate(self, inner: nn.Module, image: Tensor, time: Tensor) -> Tensor:
        """Run its parts in their order: as a whole it takes square images alone."""
        patch, (height, width) = inner.patch_size, image.shape[-2:]
        label = time.new_zeros(time.shape, dtype=int)
        tokens = inner.pos_embed(image)
        for block in inner.transformer_blocks:
            tokens = block(tokens, timestep=1000 * time, class_labels=label)
        embed = inner.transformer_blocks[0].norm1.emb
        condition = embed(1000 * time, label, hidden_dtype=tokens.dtype)
        shift, scale = inner.proj_out_1(F.silu(condition))[:, None].chunk(2, dim=-1)
        tokens = inner.proj_out_2(inner.norm_out(tokens) * (1 + scale) + shift)
        patches = tokens.view(-1, height // patch, width // patch, patch, patch, self.bands)
        return patches.permute(0, 5, 1, 3, 2, 4).reshape(-1, self.bands, height, width)


def _blocks(network: DiTTransformer2DModel) -> Iterator[str]:
    yield from (f"transformer_blocks.{i}" for i in range(len(network.transformer_blocks)))
