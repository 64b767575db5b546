"""A backbone of one's own: the template, what the contract's checks see, files and packages."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from backbones import load_backbone_module, register_backbone
from backbones.contract import AdaptableOp, GuidedBlock
from backbones.layers.adaptation import NO_ADAPT, adapted_conv2d
from backbones.new import main, write_template
from backbones.registry import BACKBONES, is_shipped, module_of
from bench.cells.experiments import check_contract
from bench.config import UsageError, experiment_preset
from bench.contract import checks
from bench.contract.checks import ContractError
from bench.contract.own import check_own
from bench.contract.probes import Subject
from bench.recipes import DiffusionRecipe


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    monkeypatch.setattr(BACKBONES, "_targets", dict(BACKBONES._targets))


@dataclass(frozen=True)
class Config:
    """What is wrong with the network."""

    flaw: str = ""
    guided: bool = True
    adaptable: bool = True


class Plain(nn.Module):
    """A whole backbone in a few lines, with a flaw on demand."""

    Config = Config
    size_multiple = min_size = version = 1
    family, citation = "conv", "made up"

    def __init__(self, bands, cond_channels, config):
        super().__init__()
        self.bands, self.cond_channels, self.config = bands, cond_channels, config
        self.stem = nn.Conv2d(bands + cond_channels, 8, 3, padding=1)
        self.time = nn.Linear(1, 8)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.spare = nn.Linear(2, 2) if config.flaw == "spare" else None
        self.head = nn.Conv2d(8, bands + (config.flaw == "channels"), 3, padding=1)
        if config.flaw != "head":
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)
        self.guided = (GuidedBlock("block", 8),) if config.guided else ()
        operator = AdaptableOp("block_conv", "conv", 8, 8, kernel_size=3)
        self.adaptable = (operator,) if config.adaptable else ()

    def forward(self, x, time, cond, adapt=None):
        flaw, adapt = self.config.flaw, adapt or NO_ADAPT
        cond = torch.zeros_like(cond) if flaw == "cond" else cond
        time = torch.ones_like(time) if flaw == "time" else time
        h = self.stem(torch.cat([x, cond], 1)) + self.time(time[:, None])[:, :, None, None]
        if self.config.guided and flaw != "guide":
            h = adapt.guide("block", h)
        low_rank = adapt.low_rank("block_conv") if self.config.adaptable else None
        if flaw == "twice" and low_rank is not None:
            low_rank = low_rank._replace(up=2 * low_rank.up)
        h = torch.tanh(adapted_conv2d(self.conv, h, low_rank))
        if flaw == "leak":
            h = h - h.mean(0, keepdim=True)
        if flaw == "nan":
            h = h / 0
        if flaw == "operator":
            h = torch.linalg.qr(h)[0]
        return self.head(h)


def plain(flaw="", **options):
    register_backbone("plain")(Plain)
    return Subject("plain", {"flaw": flaw, **options})


QUICK_FLAWS = {
    "channels": r"returns \(3, 5, .* expected the shape of x",
    "time": "output does not depend on time",
    "cond": "output does not depend on cond",
    "leak": "images of one batch see each other",
    "guide": "never calls adapt.guide for block",
    "spare": r"without a gradient.*spare.weight, spare.bias",
    "operator": "FLOPs cannot be counted .*linalg_qr",
    "nan": "not finite",
}


@pytest.mark.parametrize("flaw", QUICK_FLAWS)
def test_what_is_missing_is_said_in_words_before_training(flaw):
    subject = plain(flaw)
    with pytest.raises(ContractError, match=f"backbone 'plain': .*{QUICK_FLAWS[flaw]}") as info:
        check_own("plain", lambda: subject.options, 4, 5)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test_a_sound_network_passes_every_check(check):
    check(plain())


def test_an_increment_applied_twice_is_not_the_merged_weight():
    with pytest.raises(ContractError, match="block_conv: its increment is not what adding"):
        checks.an_increment_equals_the_merged_weight(plain("twice"))


def test_a_dead_parameter_may_be_declared(monkeypatch):
    monkeypatch.setattr(Plain, "dead", ("spare.*",), raising=False)
    checks.every_parameter_gets_a_finite_gradient(plain("spare"))
    monkeypatch.setattr(Plain, "dead", ("conv.*",), raising=False)
    with pytest.raises(ContractError, match=r"declared dead.*conv\.weight, conv\.bias"):
        checks.every_parameter_gets_a_finite_gradient(plain())


def test_a_head_that_does_not_start_at_zero_is_advice(caplog):
    subject = plain("head")
    with caplog.at_level(logging.WARNING):
        check_own("plain", lambda: subject.options, 4, 5)
    assert "advice on backbone 'plain': its head does not start at zero" in caplog.text


def test_declarations_that_lack(monkeypatch):
    register_backbone("bare")(type("Bare", (nn.Module,), {}))
    with pytest.raises(ContractError, match="backbone 'bare': it has no Config"):
        check_own("bare", dict, 4, 5)
    options = plain().options
    monkeypatch.delattr(Plain, "family")
    with pytest.raises(ContractError, match="does not declare family"):
        check_own("plain", lambda: options, 4, 5)
    register_backbone("fewer")(type("Fewer", (Plain,), {"__init__": lambda self, bands: None}))
    with pytest.raises(ContractError, match=r"must take \(bands, cond_channels, config\)"):
        check_own("fewer", dict, 4, 5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"guided": False}, "with guided=() stage II adds the predictor's image U as its condition,"
         " low-rank increments of its operators"),
        ({"adaptable": False}, "with adaptable=() stage II adds the predictor's image U as its"
         " condition, guidance of its blocks by V"),
        ({"guided": False, "adaptable": False}, "with guided=() and adaptable=() stage II adds the"
         " predictor's image U as its condition"),
    ],
)  # fmt: skip
def test_stage_two_says_what_it_adds_where_a_network_has_less(options, words, caplog):
    plain()
    config = replace(experiment_preset("smoke", "plain"), backbone_options=options)
    recipe = DiffusionRecipe(config, 4)
    with caplog.at_level(logging.WARNING):
        check_contract(recipe)
    assert caplog.messages[-1] == f"backbone 'plain': {words}"
    network = recipe.network()
    names = {name.split(".")[0] for name, _ in network.named_parameters()}
    expected = {"guidance"} if options.get("guided", True) else set()
    expected |= {"low_rank"} if options.get("adaptable", True) else set()
    assert names == {"backbone", "predictor", *expected}
    checks.stage_two_attaches(Subject("plain", options))


def test_the_template_keeps_the_contract_under_any_name(tmp_path, capsys):
    assert main(["our_own", "--folder", str(tmp_path)]) == 0
    assert capsys.readouterr().out.split() == [
        str(tmp_path / "our_own.py"), str(tmp_path / "test_our_own.py"),
    ]  # fmt: skip
    assert load_backbone_module(tmp_path / "our_own.py") == ["our_own"]
    assert load_backbone_module(tmp_path / "our_own.py") == ["our_own"]
    assert not is_shipped("our_own") and is_shipped("fno")
    subject = Subject.smallest("our_own")
    assert type(subject.net).__name__ == "OurOwn"
    for check in (*checks.CHECKS, *checks.ADVICE):
        check(subject)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("My Net", "'My Net': expected lower case.*e.g. my_net"),
        ("3d", "'3d': .*e.g. net_3d"),
        ("fno", "'fno' is a registered backbone"),
    ],
)
def test_names_that_cannot_be(name, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_template(name, tmp_path)
    assert main([name, "--folder", str(tmp_path)]) == 2
    assert not list(tmp_path.iterdir())


def test_a_template_overwrites_nothing(tmp_path):
    (tmp_path / "test_mine.py").write_text("mine")
    with pytest.raises(FileExistsError, match=r"test_mine\.py is there already"):
        write_template("mine", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["test_mine.py"]


NET = """
from backbones import register_backbone
from backbones.fno import FNO
{}
@register_backbone("{}")
class Net(FNO):
    pass
"""


def test_folders_and_packages_register_backbones_too(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    for package in ("in_a_folder", "installed_like"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(NET.format("from . import part", package))
        (tmp_path / package / "part.py").write_text("")
    assert load_backbone_module(tmp_path / "in_a_folder") == ["in_a_folder"]
    assert load_backbone_module("installed_like") == ["installed_like"]
    digests = {name: module_of(name)["digest"] for name in ("in_a_folder", "installed_like")}
    assert module_of("installed_like")["path"] == "installed_like"
    # What it imports of its folder is part of what it is.
    BACKBONES._targets.pop("in_a_folder")
    (tmp_path / "in_a_folder" / "part.py").write_text("edited = True")
    monkeypatch.delitem(__import__("sys").modules, "backbone_module_in_a_folder.part")
    load_backbone_module(tmp_path / "in_a_folder")
    assert module_of("in_a_folder")["digest"] != digests["in_a_folder"]
    with pytest.raises(FileNotFoundError, match="neither file, folder nor package"):
        load_backbone_module("no_such_package.at_all")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no __init__\.py"):
        load_backbone_module(tmp_path / "empty")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"notes\.txt is no Python file"):
        load_backbone_module(tmp_path / "notes.txt")


def test_a_file_that_cannot_be_imported_is_one_line(tmp_path):
    from bench.running import load_backbone_modules

    (tmp_path / "broken.py").write_text("import nothing_of_that_name")
    with pytest.raises(UsageError, match=r"broken\.py: ModuleNotFoundError: No module named"):
        load_backbone_modules([tmp_path / "broken.py"])


def test_the_wrapped_network_of_the_guide_keeps_the_contract(tmp_path):
    guide = (Path(__file__).parents[2] / "docs" / "own_backbone.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(\"\"\"lib_net.*?)```", guide, flags=re.S)
    (tmp_path / "lib_net.py").write_text(code)
    assert load_backbone_module(tmp_path / "lib_net.py") == ["lib_net"]
    for check in (*checks.CHECKS, *checks.ADVICE):
        check(Subject.smallest("lib_net"))
