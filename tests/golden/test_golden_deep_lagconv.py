"""FusionNet, LAGConv and ADWM with published or random weights against their authors' networks.

The weights and what they give are not part of the repository: the tests skip where they are not
beside it.
"""

from __future__ import annotations

import pytest
import torch

from bench.config.errors import UsageError
from bench.fusion.deep.adwm import ADWM, ADWMConfig, ADWMFusionNet
from bench.fusion.deep.fusionnet import FusionNet
from bench.fusion.deep.lagconv import LAGConv
from bench.fusion.deep.weights import load_published, read_state

METHODS = {
    "fusionnet_qb": lambda: FusionNet(4),
    "fusionnet_wv2": lambda: FusionNet(8),
    "adwm_fusionnet_wv3": lambda: ADWMFusionNet(8),
    "adwm_lagconv_wv3": lambda: ADWM(8, ADWMConfig(covariance_norm=False)),
    "random/lagconv_8": lambda: LAGConv(8),
}


@torch.no_grad()
@pytest.mark.parametrize("name", METHODS)
def test_outputs(authors, name):
    path, cases = authors.reference(name)
    method = METHODS[name]()
    method.network.double().eval()
    load_published(method, path)
    for case in cases:
        authors.check(method.network(*authors.images(case)), case["output"])


def test_lagconv_was_compared_on_an_odd_size_too(authors):
    _, cases = authors.reference("random/lagconv_8")
    assert [case["output"]["shape"] for case in cases] == [[8, 128, 128], [8, 37, 50]]


def test_every_published_tensor_is_named(authors):
    """The released weights of ADWM lack the layer normalisations of its code: the line says so."""
    with pytest.raises(
        UsageError, match=r"does not fit adwm: 14 tensors are missing .*\.norm\."
    ) as e:
        load_published(ADWM(8), authors.weights / "adwm_lagconv_wv3.pth")
    assert "not known" not in str(e.value)


def test_blocks_that_stand_twice_in_the_file_must_be_the_same(authors):
    state = read_state(authors.weights / "fusionnet_qb.pth")
    assert len(state) == 36 and len(FusionNet(4).published(state)) == 20
    state["backbone.2.conv21.bias"] = state["backbone.2.conv21.bias"] + 1
    with pytest.raises(UsageError, match=r"backbone\.2\.conv21\.bias differs from res3\.conv21"):
        FusionNet(4).published(state)
