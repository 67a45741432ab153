import pytest
import torch

from pellucid.errors import InputError
from pellucid.interpreters.heatmap import overlay, reduce_channels, resize, scale


def test_channels_are_reduced_as_asked():
    maps = torch.tensor([[[[1.0, -2.0]], [[-3.0, -1.0]]]])  # (1, 2, 1, 2)
    assert reduce_channels(maps).tolist() == [[[-2.0, -3.0]]]
    assert reduce_channels(maps, "abs_sum").tolist() == [[[4.0, 3.0]]]
    assert reduce_channels(maps, "abs_max").tolist() == [[[3.0, 2.0]]]
    flat = torch.zeros(2, 3, 3)
    assert reduce_channels(flat) is flat


def test_maps_are_resized():
    maps = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
    near = resize(maps, (4, 4), "nearest")
    assert near[0, 0].tolist() == [0, 0, 1, 1]
    assert near[0, 3].tolist() == [2, 2, 3, 3]
    smooth = resize(maps, (4, 4))
    assert smooth.shape == (1, 4, 4)
    assert smooth[0, 0].tolist() == pytest.approx([0.0, 0.25, 0.75, 1.0])
    assert float(smooth.mean()) == pytest.approx(1.5)
    assert torch.equal(resize(maps, (2, 2)), maps)


def test_signed_maps_are_divided_by_a_percentile_of_their_size_and_clipped():
    values = torch.linspace(-1, 1, 201, dtype=torch.float64).view(1, 3, 67)
    scaled = scale(values, percentile=50)
    span = values.abs().flatten().quantile(0.5)
    torch.testing.assert_close(scaled.maps, (values / span).clamp(-1, 1))
    assert float(scaled.maps.min()) == -1
    assert not scaled.degenerate.any()
    whole = scale(values, percentile=100)
    torch.testing.assert_close(whole.maps, values)


def test_unsigned_maps_start_at_their_smallest_value():
    maps = torch.tensor([[[3.0, 4.0], [5.0, 7.0]]])
    assert scale(maps, percentile=100, signed=False).maps.tolist() == [[[0.0, 0.25], [0.5, 1.0]]]


@pytest.mark.parametrize("signed", [True, False])
def test_each_map_is_scaled_by_itself(signed, generator):
    maps = torch.randn(4, 5, 6, generator=generator)
    together = scale(maps, signed=signed).maps
    torch.testing.assert_close(
        together, scale(maps * torch.tensor([1, 1e3, 1e-6, 1e-30]).view(4, 1, 1), signed=signed).maps
    )
    for n in range(4):
        torch.testing.assert_close(scale(maps[n : n + 1], signed=signed).maps, together[n : n + 1])


def test_a_single_bright_pixel_survives_its_percentile():
    maps = torch.zeros(1, 20, 20)
    maps[0, 3, 4] = 1e-12
    scaled = scale(maps)
    assert not scaled.degenerate.any()
    assert scaled.maps[0, 3, 4] == 1
    assert float(scaled.maps.sum()) == 1


@pytest.mark.parametrize("signed", [True, False])
def test_maps_that_say_nothing_become_zeros_and_are_marked(signed):
    maps = torch.stack(
        [
            torch.zeros(3, 3),
            torch.full((3, 3), float("nan")),
            torch.arange(9.0).view(3, 3),
            torch.full((3, 3), float("inf")),
        ]
    )
    scaled = scale(maps, signed=signed)
    assert scaled.degenerate.tolist() == [True, True, False, True]
    assert (scaled.maps[[0, 1, 3]] == 0).all()
    assert float(scaled.maps[2].max()) == 1


def test_a_constant_map_is_degenerate_without_sign_only():
    maps = torch.full((1, 2, 2), -0.3)
    assert scale(maps, signed=False).degenerate.tolist() == [True]
    signed = scale(maps)
    assert signed.degenerate.tolist() == [False]
    assert (signed.maps == -1).all()


def test_no_map():
    assert scale(torch.zeros(0, 3, 3)).maps.shape == (0, 3, 3)


def test_maps_of_large_images_are_scaled_too():
    maps = torch.linspace(-1, 1, 2**24 + 8).view(2, 2, -1)  # torch.quantile takes 2^24 numbers at most
    scaled = scale(maps)
    assert not scaled.degenerate.any()
    assert float(scaled.maps.abs().max()) == 1


def test_half_precision_maps():
    maps = torch.arange(9.0).view(1, 3, 3).half()
    assert float(scale(maps).maps.max()) == 1


def test_an_overlay_is_half_image_and_half_colour():
    import matplotlib

    images = torch.tensor([[[[0.0, 1.0]]]], dtype=torch.float64)
    shown = overlay(images, torch.tensor([[[1.0, -1.0]]]), colours="coolwarm")
    low, high = (torch.tensor(matplotlib.colormaps["coolwarm"](end)[:3], dtype=torch.float64) for end in (0, 255))
    torch.testing.assert_close(shown[0, :, 0, 0], 0.5 * high)
    torch.testing.assert_close(shown[0, :, 0, 1], 0.5 + 0.5 * low)
    assert torch.equal(overlay(images, torch.ones(1, 2, 1, 2), strength=0.0), images.expand(1, 3, 1, 2))
    assert overlay(images.expand(1, 3, 1, 2), torch.zeros(1, 1, 1)).isfinite().all(), "a constant map is one colour"
    with pytest.raises(InputError, match="as many maps"):
        overlay(images, torch.zeros(2, 1, 1))
