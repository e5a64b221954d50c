"""What the cost model says of published curves, from what their sources state."""

from __future__ import annotations

import pytest

from scripts.published_scaling import CURVES, VGG_16, Curve, resnet

MISSED = {"Goyal et al. (2017)", "Das et al. (2016)", "CosmoFlow"}


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.source)
def test_published_curves_are_predicted_and_those_that_are_not_are_named(curve: Curve) -> None:
    is_hit = abs(curve.predict() - curve.published) <= curve.within
    assert is_hit == (curve.source not in MISSED)
    assert bool(curve.reason) == (not is_hit)


def test_networks_have_as_many_parameters_as_in_their_papers() -> None:
    assert round(sum(layer.params for layer in resnet([3, 4, 6, 3])) / 1e6, 1) == 25.6
    assert round(sum(layer.params for layer in VGG_16) / 1e6, 1) == 138.4
