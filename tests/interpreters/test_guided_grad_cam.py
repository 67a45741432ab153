"""Guided GradCAM is the product of two maps, wherever GradCAM looks."""

import pytest
import torch

from pellucid.errors import InputError, SpecError
from pellucid.interpreters import GradCAM, GuidedBackprop, GuidedGradCAM
from pellucid.interpreters.heatmap import resize
from pellucid.models import adapt

from .networks import BOTH, Plain, WithToken, Y, filled, pictures


@pytest.mark.parametrize("layer", [None, "first", "seen"])
@pytest.mark.parametrize("layout", ["channels_first", "channels_last", "tokens"])
def test_it_is_the_product(layer, layout):
    network, x = adapt(filled(Plain(layout, prefix=1 if layout == "tokens" else 0))), pictures()
    coarse = GradCAM(layer=layer)(network, x, BOTH)
    fine = GuidedBackprop()(network, x, BOTH)
    found = GuidedGradCAM(layer=layer)(network, x, BOTH)
    assert found.shape == (4, 2, 1, 16, 24)
    assert float(found.abs().max()) > 0
    for column in (0, 1):
        torch.testing.assert_close(found[:, column], fine[:, column] * resize(coarse[:, column], (16, 24))[:, None])
    torch.testing.assert_close(GuidedGradCAM(layer=layer)(network, x, Y), found[:, 0])
    assert GuidedGradCAM(layer=layer).site(network, x) == GradCAM(layer=layer).site(network, x)


def test_where_grad_cam_is_zero_so_is_it_and_otherwise_it_has_the_signs_of_guided_backpropagation():
    network, x = adapt(filled(Plain())), pictures()
    wide, fine = resize(GradCAM(layer="seen")(network, x, Y), (16, 24))[:, None], GuidedBackprop()(network, x, Y)
    found = GuidedGradCAM(layer="seen")(network, x, Y)
    assert bool((wide == 0).any())
    assert bool((wide > 0).any())
    assert torch.equal(found.sign(), fine.sign() * (wide > 0))


def test_it_refuses_what_either_method_does():
    network, x = adapt(filled(Plain())), pictures()
    with pytest.raises(InputError, match="no layer 'nowhere'"):
        GuidedGradCAM(layer="nowhere")(network, x, Y)
    with pytest.raises(InputError, match="ReLUs; none ran"):
        GuidedGradCAM()(adapt(filled(WithToken())), x, Y)
    with pytest.raises(SpecError, match="name the layer too"):
        GuidedGradCAM(layout="tokens")
