"""How layers lie over the image, told from shapes alone."""

import pytest
import torch

from pellucid.interpreters.layout import Layout, find_layout


@pytest.mark.parametrize(
    ("shape", "size", "kind", "grid", "prefix"),
    [
        ((2, 512, 7, 7), (224, 224), "channels_first", (7, 7), 0),
        ((2, 7, 7, 768), (224, 224), "channels_last", (7, 7), 0),
        ((2, 8, 8, 8), (32, 32), "channels_first", (8, 8), 0),
        ((2, 64, 4, 6), (32, 48), "channels_first", (4, 6), 0),
        ((2, 4, 6, 64), (32, 48), "channels_last", (4, 6), 0),
        ((2, 16, 4, 3), (30, 22), "channels_first", (4, 3), 0),
        ((2, 49, 768), (224, 224), "tokens", (7, 7), 0),
        ((2, 197, 768), (224, 224), "tokens", (14, 14), 1),
        ((2, 198, 768), (224, 224), "tokens", (14, 14), 2),
        ((2, 201, 384), (224, 224), "tokens", (14, 14), 5),
        ((2, 25, 32), (32, 48), "tokens", (4, 6), 1),
    ],
)
def test_shapes_that_networks_have(shape, size, kind, grid, prefix):
    assert find_layout(shape, size) == Layout(kind, *grid, prefix)


NO_MAPS = [(2, 10), (2, 768), (2, 32, 1), (2, 768, 1), (2, 5, 7, 11), (2, 52, 768), (2, 8, 3, 56, 56)]


@pytest.mark.parametrize("shape", NO_MAPS)
def test_shapes_that_are_no_map_over_a_square_image(shape):
    assert find_layout(shape, (224, 224)) is None


def test_a_layout_that_is_given_is_the_only_one_tried():
    assert find_layout((2, 8, 8, 8), (32, 32), "channels_last") == Layout("channels_last", 8, 8)
    assert find_layout((2, 7, 7, 768), (224, 224), "tokens") is None
    assert find_layout((2, 3, 40, 5), (32, 32), "channels_first") == Layout("channels_first", 40, 5)


def test_tokens_are_read_row_by_row_behind_their_prefix():
    output = torch.arange(2 * 7 * 3).view(2, 7, 3)
    maps = Layout("tokens", 2, 3, prefix=1).as_map(output)
    assert maps.shape == (2, 3, 2, 3)
    assert torch.equal(maps[1, :, 1, 2], output[1, 6])
    assert torch.equal(maps[0, :, 0, 1], output[0, 2])
    last = torch.arange(24).view(1, 2, 3, 4)
    assert torch.equal(Layout("channels_last", 2, 3).as_map(last)[0, :, 1, 2], last[0, 1, 2])


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((0, 5, 2, 3), Layout("channels_first", 2, 3)),
        ((0, 2, 3, 5), Layout("channels_last", 2, 3)),
        ((0, 7, 5), Layout("tokens", 2, 3, 1)),
    ],
)
def test_no_images_have_no_maps(shape, layout):
    assert layout.as_map(torch.empty(shape)).shape == (0, 5, 2, 3)


def test_it_says_what_it_is():
    assert str(Layout("channels_last", 7, 14)) == "channels last, a grid of 7x14"
    assert str(Layout("tokens", 14, 14, 1)) == "tokens, 1 before a grid of 14x14"
