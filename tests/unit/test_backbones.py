"""The registry, the shipped networks' particulars, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from backbones import UnknownNameError, create_backbone, list_backbones, load_backbone_module
from backbones.layers.spectral import spectral_form
from backbones.names import Registry
from backbones.registry import BACKBONES


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_listing_backbones_imports_no_torch():
    code = "import sys, backbones; backbones.list_backbones(); print('torch' in sys.modules)"
    assert run_python(code) == "False"


def test_fno_and_unets_need_no_timm():
    code = "import sys, backbones.fno, backbones.attention_unet; print('timm' in sys.modules)"
    assert run_python(code) == "False"


def test_timm_imports_whatever_torchvision_is_installed():
    code = (
        "from backbones.torchvision_ops import ensure_torchvision as e; e(); e();"
        "import torchvision, timm.layers; print(timm.layers.DropPath(0.1).drop_prob)"
    )
    assert run_python(code) == "0.1"


def test_unknown_backbone_names_the_nearest_and_the_valid():
    with pytest.raises(UnknownNameError, match=r"'fnoo' - did you mean 'fno'.*attention_unet"):
        create_backbone("fnoo", 4, 4)


def test_globs_select_backbones():
    assert set(list_backbones("*unet")) >= {"attention_unet", "conv_unet"}
    with pytest.raises(UnknownNameError, match="'x\\*'"):
        BACKBONES.match(["x*"])


def test_a_clash_of_names_is_an_error():
    registry = Registry("thing")
    registry.register("a", "json:loads")
    registry.register("a", "json:loads")
    with pytest.raises(ValueError, match="thing 'a' is already registered"):
        registry.register("a", "json:dumps")


def test_a_users_file_registers_its_backbone(tmp_path, monkeypatch):
    monkeypatch.setattr(BACKBONES, "_targets", dict(BACKBONES._targets))
    path = tmp_path / "mine.py"
    path.write_text(
        "from backbones import register_backbone\n"
        "from backbones.fno import FNO\n"
        "@register_backbone('mine')\n"
        "class Mine(FNO):\n"
        "    pass\n"
    )
    assert load_backbone_module(path) == ["mine"]
    net = create_backbone("mine", 4, 4, width=4, layers=1, modes=2)
    assert type(net).__name__ == "Mine"
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(ValueError, match="registers no backbone"):
        load_backbone_module(tmp_path / "empty.py")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fno", {"layers": 0}, "layers must be at least 1, got 0"),
        ("fno", {"modes": 0}, "modes must be at least 1, got 0"),
        ("fno", {"width": 7}, "even, got 7"),
        ("fno", {"form": "fast"}, "unknown form.*'fast'.*known: auto, dft, fft, textbook"),
        ("attention_unet", {"attention_levels": 5}, "attention_levels must be 1 to 4.*got 5"),
        ("attention_unet", {"width": 6, "multipliers": (1,), "attention_levels": 1}, "heads"),
        ("conv_unet", {"multipliers": ()}, "need a level"),
        ("convnext", {"kernel_size": 4}, "odd, got 4"),
    ],
)
def test_bad_options_are_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        create_backbone(name, 4, 4, **options)


@pytest.mark.parametrize(("width", "reals"), [(32, 4_718_592), (64, 18_874_368)])
def test_spectral_weights_are_counted_as_reals(width, reals):
    """8 layers of 288 complex C x C matrices: twice what ``numel`` says of complex weights."""
    with torch.device("meta"):
        net = create_backbone("fno", 8, 8, width=width)
    assert sum(layer.spectral.weight.numel() for layer in net.layers) == reals


def test_every_form_gives_the_same_fno():
    torch.manual_seed(0)
    net = create_backbone("fno", 4, 5, width=8, layers=3, modes=6).double()
    for layer in net.layers:
        torch.nn.init.normal_(layer.spectral.weight, std=0.2)
    x, cond, time = torch.randn(2, 4, 16, 14), torch.rand(2, 5, 16, 14), torch.tensor([0.1, 1.0])
    x, cond, time = x.double(), cond.double(), time.double()
    with torch.no_grad():
        with spectral_form(net, "textbook"):
            expected = net(x, time, cond)
        for form in ("auto", "fft", "dft"):
            with spectral_form(net, form):
                torch.testing.assert_close(net(x, time, cond), expected, rtol=1e-12, atol=1e-12)


def test_one_mode_more_than_half_the_patch_is_refused():
    net = create_backbone("fno", 4, 4, width=4, layers=1, modes=9)
    assert net.min_size == 18
    x = torch.zeros(1, 4, 16, 16)
    with pytest.raises(ValueError, match="9 modes do not fit 16x16 pixels: at most 8"):
        net(x, torch.ones(1), x)


def test_attention_sits_at_the_coarsest_levels_only():
    net = create_backbone("attention_unet", 4, 4, width=8, blocks=1)
    attending = {name for name, block in net.blocks.items() if block.attention is not None}
    assert attending == {"down2_0", "down3_0", "middle0", "up3_0", "up2_0"}
    plain = create_backbone("conv_unet", 4, 4, width=8, blocks=1)
    assert not any(block.attention for block in plain.blocks.values())


def test_convnext_is_made_of_timms_blocks():
    net = create_backbone("convnext", 4, 4, width=8, layers=3, drop_path=0.2)
    from timm.layers import DropPath
    from timm.models.convnext import ConvNeXtBlock

    assert all(isinstance(block, ConvNeXtBlock) for block in net.blocks)
    rates = [b.drop_path.drop_prob for b in net.blocks if isinstance(b.drop_path, DropPath)]
    assert rates == pytest.approx([0.1, 0.2])
