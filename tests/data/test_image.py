"""Decoding single images."""

import io

import numpy as np
import pytest
from PIL import Image

from pellucid.data.image import Form, decode, fitted
from pellucid.errors import DataError

from .writing import picture, pixels_of


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_pixels_are_kept(mode):
    data = picture(3, mode)
    form = Form(1 if mode == "L" else 3, (6, 5))
    assert np.array_equal(decode(data, form, "it"), pixels_of(data, mode))


def test_grey_becomes_colour_and_colour_grey():
    grey = decode(picture(3, "L"), Form(3, (6, 5)), "it")
    assert grey.shape == (3, 6, 5)
    assert (grey == grey[0]).all()
    assert decode(picture(3), Form(1, (6, 5)), "it").shape == (1, 6, 5)


def test_another_size_is_refused_or_resized():
    data = picture(3, size=(6, 5))
    with pytest.raises(DataError, match=r"it is 6x5, others are 4x5: .*size=HEIGHT,WIDTH"):
        decode(data, Form(3, (4, 5)), "it")
    assert decode(data, Form(3, (4, 7), resize=True), "it").shape == (3, 4, 7)


def test_cropping_keeps_proportions_and_takes_the_centre():
    wide = Image.fromarray(np.repeat(np.arange(0, 240, 4, dtype=np.uint8)[None], 20, axis=0))
    centre = np.asarray(fitted(wide, 20, 20, "crop"))
    assert np.array_equal(centre, np.asarray(wide)[:, 20:40])
    stretched = np.asarray(fitted(wide, 20, 20, "stretch"))
    assert stretched[0, 0] < 10
    assert stretched[0, -1] > 225


def test_cropping_never_falls_short_by_rounding():
    for height, width in [(333, 500), (257, 256), (999, 31)]:
        assert fitted(Image.new("RGB", (width, height)), 256, 255, "crop").size == (255, 256)


@pytest.mark.parametrize("data", [b"", b"no image", None])
def test_what_is_no_image_is_named(data):
    with pytest.raises(DataError, match="image 3 of x is not a readable image"):
        decode(data, Form(3, (6, 5)), "image 3 of x")


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_truncated_image_is_named(form):
    data = picture(3, size=(64, 64), form=form)
    with pytest.raises(DataError, match="image 3 of x is truncated or corrupt"):
        decode(data[: len(data) // 2], Form(3, (64, 64)), "image 3 of x")


def test_sixteen_bits_are_refused_rather_than_clipped():
    buffer = io.BytesIO()
    Image.fromarray(np.full((6, 5), 40_000, dtype=np.uint16)).save(buffer, "PNG")
    with pytest.raises(DataError, match="more than 8 bits"):
        decode(buffer.getvalue(), Form(1, (6, 5)), "it")


def test_palettes_and_transparency_become_rgb():
    buffer = io.BytesIO()
    Image.new("RGBA", (5, 6), (10, 20, 30, 128)).save(buffer, "PNG")
    assert decode(buffer.getvalue(), Form(3, (6, 5)), "it")[:, 0, 0].tolist() == [10, 20, 30]
