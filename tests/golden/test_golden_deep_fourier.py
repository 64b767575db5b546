"""Fourmer, HFIN and SHIP against their authors' networks with random weights, in float64.

The weights and what they give are not part of the repository: the tests skip where they are not
beside it.
"""

from __future__ import annotations

from fnmatch import fnmatch

import pytest
import torch

from bench.fusion.deep.fourmer import Fourmer, FourmerConfig
from bench.fusion.deep.hfin import HFIN, HFINConfig
from bench.fusion.deep.hoif import HOIF, SHIP, HOIFConfig
from bench.fusion.deep.weights import load_published, read_state


def methods(name):
    return {
        "fourmer_8_nc16": lambda: Fourmer(8, FourmerConfig(width=16)),
        "hfin_4": lambda: HFIN(4),
        "hfin_8_c8": lambda: HFIN(8, HFINConfig(width=8)),
        "ship_8_n8": lambda: HOIF(8, HOIFConfig(width=8)),
    }[name]()


@pytest.mark.parametrize("name", ["fourmer_8_nc16", "hfin_4", "hfin_8_c8", "ship_8_n8"])
@torch.no_grad()
def test_method_with_the_authors_weights(authors, name):
    method = methods(name)
    path, cases = authors.reference(f"random/{name}")
    load_published(method, path)
    method.network.double().eval()
    for case in cases:
        ms, pan, lms = authors.images(case)
        fused = method.network(ms, pan, lms)
        # Only HOIF adds lms to the authors' network, which is not one for pansharpening.
        authors.check(fused - lms if name == "ship_8_n8" else fused, case["output"])


@torch.no_grad()
def test_ship_as_published(authors):
    network = SHIP(1, 1, width=16)
    path, cases = authors.reference("random/ship_1_n16")
    network.load_state_dict(SHIP.published(read_state(path)))
    network.double().eval()
    for case in cases:
        _, pan, lms = authors.images(case)
        authors.check(network(lms[:, 2:3], pan), case["output"])


@pytest.mark.parametrize("name", ["fourmer_8_nc16", "hfin_4", "hfin_8_c8", "ship_8_n8"])
def test_what_is_declared_dead_is_what_the_authors_hold_idle(authors, name):
    method = methods(name)
    _, (reference, *_) = authors.reference(f"random/{name}")
    idle = method.published(dict.fromkeys(reference["dead_tensors"], torch.empty(0)))
    parameters = dict(method.network.named_parameters())
    dead = {key for key in parameters if any(fnmatch(key, glob) for glob in method.dead)}
    assert set(idle) == dead
    assert sum(parameters[key].numel() for key in dead) == reference["dead_elements"]


@pytest.mark.parametrize("name", ["fourmer_8_nc16", "ship_8_n8"])
@torch.no_grad()
def test_float32_is_as_close_as_the_authors(authors, name):
    """Of the same order, that is; HFIN's phases jump at their cut, there no bound holds."""
    method = methods(name)
    path, (*_, case) = authors.reference(f"random/{name}")
    load_published(method, path)
    given = authors.images(case)
    method.network.eval()
    single = method.network(*(image.float() for image in given)).double()
    double = method.network.double()(*given)
    assert 0 < (single - double).abs().max() < 4 * case["float32_max_abs_diff"]
