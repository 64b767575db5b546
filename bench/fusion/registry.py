"""Fusion methods by name; a method's module is imported when the method is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from backbones.names import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from bench.imaging import Sensor

__all__ = ["FUSION_METHODS", "FusionMethod", "create_method", "list_methods"]


class FusionMethod(Protocol):
    """Anything that fuses: classical, deep and diffusion methods look the same from outside."""

    name: str

    def fuse(self, ms: Tensor, pan: Tensor, sensor: Sensor, lms: Tensor | None = None) -> Tensor:
        """Fuse images; every tensor in counts divided by the sensor's peak.

        Args:
            ms: (B, C, h, w).
            pan: (B, 1, r h, r w).
            sensor: sensor of C bands.
            lms: (B, C, r h, r w), MS interpolated to the PAN grid; None interpolates ``ms``.

        Returns:
            (B, C, r h, r w), dtype and device of ``ms``.
        """
        ...


FUSION_METHODS = Registry("fusion method", entry_point_group="nodiff_bench.fusion_methods")
for _name, _target in {
    "exp": "bench.fusion.classical.exp:EXP",
    "bt_h": "bench.fusion.classical.bt_h:BTH",
    "bdsd_pc": "bench.fusion.classical.bdsd_pc:BDSDPC",
    "gsa": "bench.fusion.classical.gsa:GSA",
    "mtf_glp": "bench.fusion.classical.mtf_glp:MTFGLP",
    "mtf_glp_fs": "bench.fusion.classical.mtf_glp:MTFGLPFS",
    "mtf_glp_hpm": "bench.fusion.classical.mtf_glp:MTFGLPHPM",
    "mtf_glp_hpm_r": "bench.fusion.classical.mtf_glp:MTFGLPHPMR",
    "lrtcfpan": "bench.fusion.classical.lrtcfpan:LRTCFPan",
    "fusionnet": "bench.fusion.deep.fusionnet:FusionNet",
    "lagconv": "bench.fusion.deep.lagconv:LAGConv",
    "fourmer": "bench.fusion.deep.fourmer:Fourmer",
    "hfin": "bench.fusion.deep.hfin:HFIN",
    "hoif": "bench.fusion.deep.hoif:HOIF",
    "panmamba": "bench.fusion.deep.panmamba:PanMamba",
    "adwm": "bench.fusion.deep.adwm:ADWM",
    "adwm_fusionnet": "bench.fusion.deep.adwm:ADWMFusionNet",
    "pandiff": "bench.fusion.pandiff:PanDiff",
    "difpan": "bench.fusion.difpan:DifPAN",
}.items():
    FUSION_METHODS.register(_name, _target)


def list_methods(pattern: str = "*") -> list[str]:
    """Names of registered methods that match a glob."""
    return FUSION_METHODS.list(pattern)


def create_method(name: str, *, bands: int, **config: Any) -> FusionMethod:
    """Build a fusion method.

    Args:
        name: a registered name.
        bands: C, spectral bands of the images it will fuse.
        **config: fields of the method's frozen config dataclass (``Class.Config``).

    Raises:
        UnknownNameError: unknown ``name`` or config field.
        UsageError: a config value out of its range.
    """
    return FUSION_METHODS.create(name, config, bands=bands)
