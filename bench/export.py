"""Verb: a trained denoiser as ONNX files, for a satellite or any runtime without PyTorch.

    python bench/export.py --checkpoint results/runs/checkpoints/<hash> --format onnx

``step.onnx`` is one denoising step, (x, time, pan, lms) -> raw output; ``sampler.onnx`` the whole
sampler on one window, (noise, pan, lms) -> fused, in unit scale. Each is run by onnxruntime and
compared with PyTorch before its path is printed. Needs the extra ``onnx``.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench.config import ExitCode, UsageError, run_command

if TYPE_CHECKING:
    import torch

    from bench.recipes import DiffusionRecipe, StoredNetwork


@dataclass(frozen=True)
class Flags:
    """Export a trained denoiser: one denoising step, and the whole sampler."""

    checkpoint: Path
    """Folder of a trained denoiser, or its weights.safetensors, as bench/train.py prints it."""
    format: Literal["onnx"] = "onnx"
    """Of the files."""
    what: tuple[Literal["step", "sampler"], ...] = ("step", "sampler")
    """step: one evaluation of the network; sampler: every step, from noise to image."""
    size: int | None = None
    """H = W of the window, PAN pixels; the sampler's tile, or the training patch, by default."""
    batch: int = 1
    """Windows at once."""
    steps: int | None = None
    """Steps of the sampler; as it was trained with by default."""
    fixed: bool = False
    """Export at that size alone, without trying for any size."""
    out: Path | None = None
    """Folder of the files; the checkpoint's by default."""
    json: bool = False
    """Print the result as JSON."""
    quiet: bool = False
    """No log below warnings."""


def main(flags: Flags) -> int:
    """Write the files; print what each takes and how far it is from PyTorch."""
    written = [_exported(what, flags) for what in dict.fromkeys(flags.what)]
    if not written:
        raise UsageError("--what needs a value: step or sampler")
    if flags.json:
        print(json.dumps(written, indent=1))
        return ExitCode.OK
    for one in written:
        print(one["path"])
        for name, shape in one["inputs"].items():
            print(f"  {name}: {' x '.join(map(str, shape))}")
        print(f"  sizes: {one['sizes']}")
        print(f"  largest difference from PyTorch: {one['difference']:.2g}")
    return ExitCode.OK


def _exported(what: str, flags: Flags) -> dict[str, Any]:
    import torch

    from bench.fusion.exported import DenoisingStep, WholeSampler, export_onnx, load_onnx

    stored, recipe, side = _stored(flags)
    fusion = recipe.fusion(stored.network)
    denoiser = fusion.denoiser
    module = DenoisingStep(fusion.denoiser) if what == "step" else WholeSampler(fusion)
    module.eval()
    inputs = _inputs(what, recipe, flags.batch, side)
    folder = flags.out or _folder(flags.checkpoint)
    multiple = None if flags.fixed else denoiser.size_multiple
    graph = export_onnx(module, inputs, folder / f"{what}.onnx", multiple=multiple)
    with torch.no_grad():
        expected = module(*inputs.values())
    difference = (load_onnx(graph.path)(*inputs.values()) - expected).abs().max().item()
    least = -(-denoiser.min_size // denoiser.size_multiple) * denoiser.size_multiple
    grid = f"multiples of {denoiser.size_multiple}, at least {least} pixels"
    return {
        "path": str(graph.path),
        "what": what,
        "inputs": graph.inputs,
        "sizes": grid if graph.any_size else f"{side} x {side} pixels only: {graph.why}",
        "difference": difference,
    }


def _stored(flags: Flags) -> tuple[StoredNetwork, DiffusionRecipe, int]:
    """Return the trained network, its recipe with the steps asked for, and the window's side."""
    from dataclasses import replace

    from bench.recipes import DiffusionRecipe, load_trained

    stored = load_trained(_folder(flags.checkpoint))
    recipe = stored.recipe
    if not isinstance(recipe, DiffusionRecipe):
        raise UsageError(f"{flags.checkpoint}: a deep method; expected a trained denoiser")
    config = recipe.config
    for name in ("batch", "size", "steps"):
        value = getattr(flags, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name} = {value}: expected at least 1")
    if flags.steps is not None:
        if flags.steps > config.diffusion.timesteps:
            most = config.diffusion.timesteps
            raise UsageError(f"--steps = {flags.steps}: expected at most {most}, the timesteps")
        config = replace(config, sampler=replace(config.sampler, steps=flags.steps))
        recipe = replace(recipe, config=config)
    side = flags.size or config.sampler.tile or config.patch
    recipe.check([side])
    return stored, recipe, side


def _folder(checkpoint: Path) -> Path:
    return checkpoint.parent if checkpoint.suffix == ".safetensors" else checkpoint


def _inputs(what: str, recipe: DiffusionRecipe, batch: int, side: int) -> dict[str, torch.Tensor]:
    import torch

    from bench.fusion.exported import noise_draws

    generator = torch.Generator().manual_seed(0)
    image = (batch, recipe.bands, side, side)
    lms = torch.rand(image, generator=generator)
    pan = torch.rand((batch, 1, side, side), generator=generator)
    if what == "step":
        x = torch.randn(image, generator=generator)
        return {"x": x, "time": torch.full((batch,), 0.5), "pan": pan, "lms": lms}
    draws = noise_draws(recipe.config.sampler)
    noise = torch.randn((draws, *image), generator=generator)
    return {"noise": noise, "pan": pan, "lms": lms}


if __name__ == "__main__":
    run_command(Flags, main, prog="export")
