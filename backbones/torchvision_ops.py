"""Make ``import timm`` work beside a torchvision whose compiled operators cannot load.

timm imports torchvision for two small classes. The torchvision wheel on the package registry is
built for CUDA; next to a CPU-only torch its library of compiled operators does not load, and
torchvision then fails at import because it describes operators nobody has declared: ``operator
torchvision::nms does not exist``. Declaring their schemas is all it needs. They still have no
kernel: calling one says so.

Call :func:`ensure_torchvision` before importing timm. Where torchvision imports by itself, as in a
matching install, that is all that happens.
"""

from __future__ import annotations

import sys

from torch import library

__all__ = ["ensure_torchvision"]

#: Operators torchvision describes at import whether or not its library has loaded.
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[library.Library] = []  # a schema lives as long as its library object


def ensure_torchvision() -> None:
    """Import torchvision, declaring its operators' schemas if, and only if, they are missing.

    Raises:
        ImportError: torchvision is not installed.
        RuntimeError: torchvision fails at import for another reason.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "operator torchvision::" not in str(error) or _declared:
            raise
        fragment = library.Library("torchvision", "FRAGMENT")
        for schema in _SCHEMAS:
            fragment.define(schema)
        _declared.append(fragment)
        # Python drops the package that failed, yet keeps the submodules imported on the way.
        for name in [name for name in sys.modules if name.startswith("torchvision.")]:
            del sys.modules[name]
        import torchvision  # noqa: F401
