"""Distances of texture, contours and matched colours, against closed forms."""

import pytest
import torch
from torch import nn

from pellucid.errors import InputError
from pellucid.metrics import NamedLayers, RandomTextures, colour_matched, edge_correlation, gram, gram_distance


def pictures(n, height=20, width=16, seed=0):
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_gram_matrices_by_hand():
    maps = torch.tensor([[[[1.0, 2.0]], [[3.0, 5.0]]]])
    assert torch.equal(gram(maps), torch.tensor([[[2.5, 6.5], [6.5, 17.0]]]))
    assert torch.equal(gram(maps.repeat(1, 1, 3, 2)), gram(maps))  # not of the size
    with pytest.raises(InputError, match="feature maps"):
        gram(maps[0])


def test_gram_distance_by_hand():
    images, style = torch.zeros(2, 1, 2, 2), torch.full((1, 1, 2, 2), 0.5)
    images[1] = 0.25
    found = gram_distance(lambda x: {"pixels": x}, images, style)
    torch.testing.assert_close(found["pixels"], torch.tensor([1.0, 0.75]))  # G = x^2
    assert gram_distance(lambda x: {"pixels": x}, style, style)["pixels"].item() == 0
    with pytest.raises(InputError, match="excites nothing"):
        gram_distance(lambda x: {"pixels": x}, style, images[:1])
    with pytest.raises(InputError, match="one style"):
        gram_distance(lambda x: {"pixels": x}, pictures(3), pictures(2))


def test_texture_statistics_do_not_depend_on_where_the_texture_lies():
    tile = pictures(1, 16, 16)
    whole = tile.repeat(1, 1, 4, 4)
    moved = whole.roll((5, 3), (2, 3))
    network = RandomTextures()
    apart = gram_distance(network, moved, whole)
    other = gram_distance(network, (pictures(1, 64, 64, seed=3) > 0.5).double(), whole)
    assert list(apart) == list(network.layers) == ["random3", "random5", "random7", "random11", "random15"]
    for name in network.layers:
        assert apart[name] < 0.1 * other[name]


def test_random_filters_of_mean_zero_see_no_even_surfaces_and_the_same_for_everybody():
    even = pictures(4, 1, 1).expand(-1, -1, 20, 20)
    assert all(maps.abs().max() < 1e-5 for maps in RandomTextures()(even).values())
    assert all(maps.abs().max() > 1e-3 for maps in RandomTextures(zero_mean=False)(even).values())
    state = torch.random.get_rng_state()
    again = RandomTextures()
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(again.random7, RandomTextures().random7)
    assert not torch.equal(again.random7, RandomTextures(seed=1).random7)
    assert float(again.random3[0, 0, 0, 0]) == pytest.approx(-0.1411656, abs=1e-6)
    with pytest.raises(InputError, match="larger images"):
        again(pictures(1, 7, 30))


def test_random_filters_are_the_convolution_they_say():
    x, network = pictures(1, 9, 9), RandomTextures()
    weights = network.random3.double()
    by_hand = (weights * x[:, :, 3:6, 4:7]).sum((1, 2, 3)).relu()
    torch.testing.assert_close(network(x)["random3"][0, :, 4, 5], by_hand)


def test_named_layers_are_read_in_eval_mode_and_leave_the_network_alone():
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Dropout(0.5), nn.Conv2d(2, 4, 1)).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    read = NamedLayers(network, ("1", "3"))
    x = pictures(2).float()
    found = read(x)
    assert list(found) == ["1", "3"]
    torch.testing.assert_close(found["3"], network.eval()(x))
    network.train()
    assert torch.equal(read(x)["3"], found["3"])
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())
    with pytest.raises(InputError, match="no layer '4'; it has 0, 1, 2, 3"):
        NamedLayers(network, ("4",))


def test_edge_correlation():
    x = pictures(3)
    torch.testing.assert_close(edge_correlation(x, x), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(edge_correlation(x, 0.2 + x / 3), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(edge_correlation(x, 1 - x), torch.ones(3, dtype=torch.float64))
    assert edge_correlation(x, pictures(3, seed=1)).abs().max() < 0.4
    assert edge_correlation(x, x * 0 + 0.5).isnan().all()
    step = torch.zeros(2, 1, 6, 6)
    step[0, :, :, 3:] = 1
    step[1, :, 3:] = 1
    assert edge_correlation(step[:1], step[1:]).item() == pytest.approx(0, abs=1e-6)  # 12 and 12 of 36, 4 in both
    with pytest.raises(InputError, match="one size"):
        edge_correlation(x, pictures(3, 8, 8))


@pytest.mark.parametrize("form", ["moments", "covariance"])
def test_matched_colours_have_the_styles_statistics_and_the_images_texture(form):
    mixed = torch.tensor([[1.0, 0.3, 0.1], [0.0, 1.0, 0.4], [0.2, 0.0, 1.0]], dtype=torch.float64) / 8
    x = 0.4 + torch.einsum("dc,nchw->ndhw", mixed, pictures(2))
    style = 0.5 + torch.einsum("dc,nchw->ndhw", mixed.flip(0), pictures(2, 9, 11, seed=1)) / 2
    found = colour_matched(x, style, form)
    torch.testing.assert_close(found.mean((2, 3)), style.mean((2, 3)))
    covariance, wanted = (torch.stack([torch.cov(i.flatten(1), correction=0) for i in y]) for y in (found, style))
    if form == "covariance":
        torch.testing.assert_close(covariance, wanted, rtol=0.02, atol=1e-5)
    else:
        torch.testing.assert_close(
            covariance.diagonal(dim1=1, dim2=2), wanted.diagonal(dim1=1, dim2=2), rtol=0.05, atol=0
        )
        assert edge_correlation(found, x).min() > 0.8
    torch.testing.assert_close(colour_matched(x, x, form), x)
    torch.testing.assert_close(colour_matched(x, style[:1], form)[0], found[0])
    with pytest.raises(InputError, match="one style"):
        colour_matched(x, style[:, :1], form)
