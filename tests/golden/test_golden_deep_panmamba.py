"""PanMamba against its authors' network with random weights, in float64.

The weights and what they give are not part of the repository: the tests skip where they are not
beside it.
"""

from __future__ import annotations

import pytest
import torch

from bench.fusion.deep.panmamba import PanMamba
from bench.fusion.deep.weights import load_published, read_state


@pytest.fixture(scope="module")
def reference(authors):
    return authors.reference("random/panmamba_4")


@pytest.fixture(scope="module")
def method(reference):
    built = PanMamba(4)
    built.network.double().eval()
    load_published(built, reference[0])
    return built


@torch.no_grad()
def test_every_case(authors, method, reference):
    _, cases = reference
    assert len(cases) == 2
    for case in cases:
        ms, pan, _ = authors.images(case)
        authors.check(method.network(ms, pan, None), case["output"])


def test_dead_tensors_are_those_of_the_authors(method, reference):
    path, (first, *_) = reference
    state = read_state(path)
    dead = method.published({name: state[name] for name in first["dead_tensors"]})
    assert set(dead) == {name for name in method.published(state) if ".unused." in name}
    assert sum(x.numel() for x in dead.values()) == first["dead_elements"]
