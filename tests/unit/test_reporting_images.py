"""Fused images and error maps: what is drawn is what the arrays say."""

import numpy as np
import pytest

from bench.config import UsageError
from bench.reporting.figures import fused_images


def _picture(offset):
    reference = np.linspace(0.1, 0.4, 4 * 16 * 16).reshape(4, 16, 16)
    return {
        "fused": reference + offset,
        "reference": reference,
        "lms": reference,
        "pan": reference[:1],
        "rgb": np.array([2, 1, 0]),
    }


def test_error_maps_share_one_scale_and_hold_the_mean_absolute_error():
    figure = fused_images({"exp": _picture(-0.02), "modes = 12": _picture(0.005)})
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title(loc="left") for axes in panels[:3]] == ["reference", "exp", "modes = 12"]
    exp, ours = panels[4].images[0], panels[5].images[0]
    assert np.allclose(exp.get_array(), 0.02) and np.allclose(ours.get_array(), 0.005)
    assert exp.get_clim() == ours.get_clim()
    assert exp.get_clim() == pytest.approx((0, 0.02))


def test_natural_colours_take_the_named_bands():
    picture = _picture(0.0)
    picture["reference"] = picture["reference"].copy()
    picture["reference"][2, 0, 0] = 9.0  # brightest possible red
    figure = fused_images({"exp": picture})
    shown = figure.axes[0].images[0].get_array()
    assert shown[0, 0, 0] == 1.0 and shown[0, 0, 2] == 0.0


def test_nothing_to_draw_is_said():
    with pytest.raises(UsageError, match="no fused images"):
        fused_images({})
