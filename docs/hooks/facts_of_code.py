"""What the code says of itself: commands, flags, presets, methods, networks, metrics, contracts."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from writing import fenced, plain, starred, table

from backbones.names import MissingExtraError

ROOT = Path(__file__).resolve().parents[2]


def nox_sessions() -> dict[str, tuple[str, list[str]]]:
    """Return what each session does, in a line, and the scripts that it runs."""
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    found = {}
    for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
        if not any("session" in ast.unparse(mark) for mark in function.decorator_list):
            continue
        words = [
            node.value
            for node in ast.walk(function)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        scripts = [word for word in words if re.fullmatch(r"(bench|protocols)/\w+\.py", word)]
        found[function.name] = (ast.get_docstring(function).splitlines()[0], scripts)
    return found


def sessions() -> str:
    """Every nox session with what it does and the command it runs."""
    lines = [
        (f"`nox -s {name}`", ", ".join(f"`python {one}`" for one in scripts), plain(summary))
        for name, (summary, scripts) in nox_sessions().items()
    ]
    return table(("session", "without nox", "what it does"), lines)


def command(study: str) -> str:
    """The ways to run a study: by nox, as a script, quickly, on PanCollection."""
    script = f"protocols/{study}.py"
    if not (ROOT / script).is_file():
        raise FileNotFoundError(f"fact command: no {script}")
    return fenced(
        f"nox -s {study}\n"
        f"python {script}  # the same, in your own environment\n"
        f"python {script} --preset smoke  # checks the path\n"
        f"python {script} --preset paper --device cuda \\\n"
        "    --dataset data/wv3 --sensor WV3",
        "bash",
    )


def outputs(study: str) -> str:
    """Where a study writes, and the parts of its report as its view names them."""
    from bench.records import load_views
    from bench.reporting.blocks import BLOCKS

    view = getattr(import_module(f"protocols.{study}"), "VIEW", None)
    if view is None:  # one that depends on flags: as it was for the committed rows
        view = load_views(ROOT / "results" / "published" / study)[study]
    folder = (
        f"Into `results/runs/{study}/<data set>-<preset>/`: `rows.jsonl` and `rows.csv`, "
        "`samples.csv` (value by value), `tables/` (CSV, Markdown, LaTeX), `figures/` and the page "
        "`report.html`, which shows, in this order:\n"
    )
    return "\n".join([folder, *(f"- *{name}*: {_gist(BLOCKS[name])}" for name in view.blocks)])


def _gist(function: Any) -> str:
    first = plain(inspect.getdoc(function)).split("\n\n")[0]
    return re.sub(r"^Yields? ", "", " ".join(first.split()))


def flags(target: str) -> str:
    """The flags that ``module`` (its ``Flags``) or ``module:Class`` adds, as the code has them."""
    module, _, name = target.partition(":")
    cls = getattr(import_module(module), name or "Flags")
    lines = [
        (f"`--{field.replace('_', '-')}`", f"`{_value(default)}`", doc)
        for field, default, doc in _documented(cls)
    ]
    return table(("flag", "default", "meaning"), lines)


def _documented(cls: type) -> Iterator[tuple[str, Any, str]]:
    """Yield name, default and documentation of the fields that a dataclass itself declares."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    body = tree.body[0].body
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for node, after in zip(body, [*body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or node.target.id not in fields:
            continue
        said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        field = fields[node.target.id]
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        yield field.name, default, starred(plain(after.value.value)) if said else ""


def _value(value: Any) -> str:
    """Return a setting as a command line has it."""
    match value:
        case dataclasses.MISSING:
            return "required"
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:g}"
        case tuple() | list():
            return " ".join(map(str, value)) or "none"
    return str(value)


def presets() -> str:
    """The presets side by side, and in words how each departs from the paper."""
    from bench.config import DEPARTURES, PRESETS, experiment_preset, preset_seeds

    settings: dict[str, Callable[[str, Any], object]] = {
        "optimiser steps": lambda _, one: f"{one.steps:,}",
        "scale of the network": lambda _, one: one.scale,
        "batch": lambda _, one: one.stage1.batch,
        "predicts": lambda _, one: one.diffusion.target,
        "sampler": lambda _, one: f"{one.sampler.kind.upper()}, {one.sampler.steps} steps",
        "seeds, bare": lambda preset, _: len(preset_seeds(preset, "one_stage")),
        "seeds, two stages": lambda preset, _: len(preset_seeds(preset, "two_stage")),
        "test images": lambda _, one: one.evaluation.images or "all",
    }
    ones = {preset: experiment_preset(preset) for preset in PRESETS}
    lines = [(name, *(of(*item) for item in ones.items())) for name, of in settings.items()]
    header = ("setting", *(f"`{preset}`" for preset in PRESETS))
    words = "\n".join(f"- `{preset}`: {words}." for preset, words in DEPARTURES.items())
    return f"{table(header, lines)}\n\nHow each departs from the paper, all of it:\n\n{words}"


def configuration() -> str:
    """Every field that ``--override`` takes: its value at ``laptop`` and ``paper``, its meaning."""
    from bench.config import ExperimentConfig, experiment_preset

    ours, paper = experiment_preset("laptop"), experiment_preset("paper")
    parts = [("", ExperimentConfig, ours, paper)]
    for name in ("diffusion", "adapters", "sampler", "stage1", "stage2", "evaluation"):
        mine, theirs = getattr(ours, name), getattr(paper, name)
        parts.append((f"{name}.", type(mine), mine, theirs))
    lines = [
        (f"`{prefix}{name}`", f"`{_value(getattr(mine, name))}`",
         f"`{_value(getattr(theirs, name))}`", doc)
        for prefix, cls, mine, theirs in parts
        for name, _, doc in _documented(cls)
        if doc and not dataclasses.is_dataclass(getattr(mine, name)) and name != "backbone_options"
    ]  # fmt: skip
    return table(("field", "laptop", "paper", "meaning"), lines)


def rates() -> str:
    """The learning rates that the sweep found, by scale."""
    text = (ROOT / "bench" / "config" / "tuned.toml").read_text(encoding="utf-8")
    lines = [
        (scale, f"`{name}`", f"{rate:g}")
        for scale, found in tomllib.loads(text).items()
        for name, rate in found.items()
    ]
    return table(("scale", "entrant", "peak rate"), lines, right=("peak rate",))


def budget() -> str:
    """Steps and batch of each deep method at ``laptop``, by scale."""
    text = (ROOT / "bench" / "config" / "budget.toml").read_text(encoding="utf-8")
    lines = [
        (scale, f"`{name}`", f"{bought['steps']:,}", bought["batch"])
        for scale, methods in tomllib.loads(text).items()
        for name, bought in methods.items()
    ]
    return table(("scale", "method", "steps", "batch"), lines, right=("steps", "batch"))


def methods(kind: str) -> str:
    """The fusion methods: ``classical``, which are computed, or ``trained``."""
    from bench.fusion import FUSION_METHODS

    classes = {name: FUSION_METHODS.get(name) for name in FUSION_METHODS}
    trained = {name: cls for name, cls in classes.items() if hasattr(cls, "training")}
    if kind == "classical":
        lines = [
            (f"`{name}`", cls.citation, _body(cls))
            for name, cls in classes.items()
            if name not in trained
        ]
        return table(("method", "from", "what it does"), lines)
    return "\n\n".join(
        f"### {name}\n\n{_body(cls)}\n\n"
        f"- **From**: {cls.citation}.\n"
        f"- **Assumed**: {cls.approximation or 'nothing known'}.\n"
        f"- **Its own recipe**: {cls.training.iterations:,} steps, batches of "
        f"{cls.training.batch}, peak rate {cls.training.learning_rate:g} "
        f"({cls.training.schedule}), loss {cls.training.loss.upper()}."
        for name, cls in trained.items()
    )


def _body(cls: type) -> str:
    """The paragraphs of a class's docstring before its arguments."""
    text = plain(inspect.getdoc(cls))
    return re.split(r"\n\n(?:Args|Attributes|Raises|Returns):", text)[0]


def backbones() -> str:
    """The registered backbones with their parameters at each scale, for four bands."""
    from backbones.registry import BACKBONES

    scales = ("tiny", "small", "base")
    lines = []
    for name in BACKBONES:
        try:
            cls = BACKBONES.get(name)
        except MissingExtraError as error:
            lines.append((f"`{name}`", str(error), *[None] * len(scales)))
            continue
        sizes = (_parameters(name, cls, scale) for scale in scales)
        lines.append((f"[`{name}`](#{name})", cls.family, *sizes))
    header = [f"{scale} (M)" for scale in scales]
    return table(("backbone", "family", *header), lines, right=header)


def _parameters(name: str, cls: type, scale: str) -> str | None:
    """Millions of parameters of the bare denoiser on four bands and PAN; a complex one is two."""
    import torch

    from backbones import create_backbone
    from bench.measure import count_parameters

    options = getattr(cls, "scales", {}).get(scale)
    if options is None:
        return None
    with torch.device("meta"):
        network = create_backbone(name, bands=4, cond_channels=5, **options)
    return f"{count_parameters(network) / 1e6:.3g}"


def backbone_options() -> str:
    """A section a backbone: what it is, where it comes from, its scales and options."""
    from backbones.registry import BACKBONES

    parts = []
    for name in BACKBONES:
        try:
            cls = BACKBONES.get(name)
        except MissingExtraError:
            continue
        scales = [
            f"- **{scale}**: {', '.join(f'`{k}={_value(v)}`' for k, v in options.items())}"
            for scale, options in getattr(cls, "scales", {}).items()
            if options
        ]
        lines = [
            (f"`backbone.{field}`", f"`{_value(default)}`", doc)
            for field, default, doc in _documented(cls.Config)
        ]
        said = "\n".join([f"- **From**: {cls.citation}.", *scales])
        options = table(("field", "default", "meaning"), lines)
        parts.append(f"### {name}\n\n{_body(cls)}\n\n{said}\n\n{options}")
    return "\n\n".join(parts)


def metrics(kind: str) -> str:
    """The metrics of a kind: ``reduced``, ``full`` or ``cost``."""
    from bench.records import metric_specs

    specs = {
        "reduced": metric_specs.REDUCED_RESOLUTION,
        "full": metric_specs.FULL_RESOLUTION,
        "cost": metric_specs.COST,
    }[kind]
    lines = [
        (f"`{spec.name}`", spec.label, spec.unit, spec.direction,
         None if spec.ideal is None else _value(spec.ideal).replace("inf", "∞"), spec.source)
        for spec in specs
    ]  # fmt: skip
    if kind == "cost":
        return table(
            ("key", "in tables", "unit", "better", "what"), [(*c[:4], c[5]) for c in lines]
        )
    return table(("key", "in tables", "unit", "better", "ideal", "definition"), lines)


def conventions() -> str:
    """The border conventions of the reduced-resolution metrics."""
    from bench.config.conventions import CONVENTIONS

    lines = [(f"`{c.name}`", c.cut, c.block) for c in CONVENTIONS.values()]
    return table(("convention", "border cut (pixels)", "block of Q and Q2n (pixels)"), lines)


def pancollection() -> str:
    """The published files of PanCollection that are known by name."""
    text = (ROOT / "bench" / "data" / "pancollection.toml").read_text(encoding="utf-8")
    lines = [
        (f"`{f['name']}`", f["sensor"], f["split"], f.get("images"),
         "checked" if "sha256" in f else None)
        for f in tomllib.loads(text)["files"]
    ]  # fmt: skip
    return table(("file", "sensor", "split", "images", "sha256"), lines, right=("images",))


def source(target: str) -> str:
    """The source of ``module:Class``."""
    module, _, name = target.partition(":")
    return fenced(inspect.getsource(getattr(import_module(module), name)), "python")


def docstring(module: str) -> str:
    """The docstring of a module; its terms, each with an indented text, become a list."""
    text = plain(inspect.getdoc(import_module(module))).replace("::\n", ":\n") + "\n"
    return re.sub(
        r"^(`\w+`)\n((?:    .+\n)+)",
        lambda term: f"- {term[1]}: {' '.join(term[2].split())}\n",
        text,
        flags=re.MULTILINE,
    )


def include(path: str) -> str:
    """A Markdown file of the repository without its title."""
    text = (ROOT / path).read_text(encoding="utf-8")
    return re.sub(r"\A# .*\n+", "", text)


FACTS = (
    sessions, command, outputs, flags, presets, configuration, rates, budget, methods, backbones,
    backbone_options, metrics, conventions, pancollection, source, docstring, include,
)  # fmt: skip
