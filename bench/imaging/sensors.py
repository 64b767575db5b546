"""Sensors: band order, modulation transfer function at Nyquist, peak value.

Gains: DLPan-Toolbox ``Tools/genMTF.m`` and ``Tools/MTF_PAN.m`` (commit a34f884). The toolbox has
no entry for GF-2; the field evaluates it with the generic gains 0.3 (MS) and 0.15 (PAN).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from backbones.names import nearest
from bench.config.errors import UsageError

__all__ = ["SENSOR_NAMES", "Sensor", "get_sensor"]

_BGRN = ("blue", "green", "red", "nir")
_WORLDVIEW = ("coastal", "blue", "green", "yellow", "red", "red_edge", "nir1", "nir2")


@dataclass(frozen=True)
class Sensor:
    """What a sensor's images mean: counts, bands, blur.

    Attributes:
        name: canonical name, one of :data:`SENSOR_NAMES`.
        peak: largest count, the divisor between counts and unit scale.
        ms_gains: MTF at the MS Nyquist frequency, one per band, in (0, 1).
        pan_gain: MTF of the panchromatic band at the MS Nyquist frequency, in (0, 1).
        band_names: one name per band, in the order of the data.
    """

    name: str
    peak: float
    ms_gains: tuple[float, ...]
    pan_gain: float
    band_names: tuple[str, ...]

    @property
    def bands(self) -> int:
        return len(self.ms_gains)


_SENSORS = {
    sensor.name: sensor
    for sensor in (
        Sensor(
            "WV3", 2047, (0.325, 0.355, 0.360, 0.350, 0.365, 0.360, 0.335, 0.315), 0.14, _WORLDVIEW
        ),
        Sensor("WV2", 2047, (0.35,) * 7 + (0.27,), 0.11, _WORLDVIEW),
        Sensor("QB", 2047, (0.34, 0.32, 0.30, 0.22), 0.15, _BGRN),
        Sensor("GF2", 1023, (0.3,) * 4, 0.15, _BGRN),
        Sensor("IKONOS", 2047, (0.26, 0.28, 0.29, 0.28), 0.17, _BGRN),
        Sensor("GeoEye1", 2047, (0.23,) * 4, 0.16, _BGRN),
    )
}
_GENERIC = "none"
_ALIASES = {"WV4": "GeoEye1"}

SENSOR_NAMES: tuple[str, ...] = (*_SENSORS, _GENERIC)
"""Names :func:`get_sensor` knows, besides the alias WV4 (= GeoEye1)."""


def get_sensor(
    name: str, bands: int, *, bits: int | None = None, peak: float | None = None
) -> Sensor:
    """Look a sensor up by name; upper and lower case do not matter.

    Args:
        name: one of :data:`SENSOR_NAMES`, or WV4. ``none`` is a generic sensor of any number of
            bands: gain 0.3 for each, 0.15 for PAN, peak 2047.
        bands: spectral bands of the data.
        bits: radiometric resolution, where it differs from the sensor's; peak = 2^bits - 1.
        peak: the peak itself, where it is not 2^bits - 1 (Sentinel-2 reflectances: 10000).

    Raises:
        UsageError: unknown name, wrong number of bands, bits or peak out of range.
    """
    known = {key.lower(): key for key in (*SENSOR_NAMES, *_ALIASES)}
    key = known.get(str(name).lower())
    if key is None:
        raise UsageError(
            f"unknown sensor {name!r}{nearest(str(name), known.values())} "
            f"(known: {', '.join(known.values())})"
        )
    key = _ALIASES.get(key, key)
    if bands < 1:
        raise UsageError(f"a sensor needs at least one band, not {bands}")
    if bits is not None and peak is not None:
        raise UsageError(f"bits={bits} and peak={peak} say the same thing twice: give one of them")
    if bits is not None and not 1 <= bits <= 16:
        raise UsageError(f"bits={bits} is not a radiometric resolution; expected 1 to 16")
    if peak is not None and not (math.isfinite(peak) and peak > 0):
        raise UsageError(f"peak={peak} is not a largest count; expected a positive number")
    if key == _GENERIC:
        names = tuple(f"band{index + 1}" for index in range(bands))
        sensor = Sensor(_GENERIC, 2047, (0.3,) * bands, 0.15, names)
    else:
        sensor = _SENSORS[key]
    if sensor.bands != bands:
        fits = [s.name for s in _SENSORS.values() if s.bands == bands]
        raise UsageError(
            f"sensor {name} has {sensor.bands} bands but the data has {bands}; "
            f"sensors with {bands} bands: {', '.join([*fits, _GENERIC])}"
        )
    new_peak = 2**bits - 1 if bits is not None else peak
    if new_peak is None:
        return sensor
    return Sensor(sensor.name, new_peak, sensor.ms_gains, sensor.pan_gain, sensor.band_names)
