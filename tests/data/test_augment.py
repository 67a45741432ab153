import pytest
import torch

from pellucid.data import CropAndFlip, RandomCrop
from pellucid.errors import InputError
from pellucid.rng import Stream, permutation
from pellucid.spec import brief, digest, from_dict

PADDING, HEIGHT, WIDTH = 2, 6, 5


def images(n: int) -> torch.Tensor:
    """n images (n, 3, 6, 5) of whose pixels no two are alike, none black."""
    count = n * 3 * HEIGHT * WIDTH
    return (1 + permutation(count, 0).to(torch.float32)).div(count + 1).view(n, 3, HEIGHT, WIDTH)


def places(x: torch.Tensor, out: torch.Tensor, padding: int = PADDING) -> list[tuple[int, int, bool]]:
    """Every (row, column, mirrored) at which `out` (C, H, W) is found in the padded `x`, by trying all."""
    c, h, w = x.shape
    frame = torch.zeros(c, h + 2 * padding, w + 2 * padding, dtype=x.dtype)
    frame[:, padding : padding + h, padding : padding + w] = x
    found = []
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            crop = frame[:, top : top + h, left : left + w]
            found += [(top, left, False)] if torch.equal(out, crop) else []
            found += [(top, left, True)] if torch.equal(out, crop.flip(-1)) else []
    return found


@pytest.mark.parametrize("flip", [False, True])
def test_every_output_is_a_crop_and_all_are_equally_likely(flip):
    n = 1500
    x = images(1).expand(n, -1, -1, -1)
    out = CropAndFlip(padding=PADDING, flip=flip)(x, rng=Stream(3))
    found = [places(x[0], one) for one in out]
    assert all(len(where) == 1 for where in found)
    kinds = torch.tensor([top * 10 + left * 2 + mirrored for ((top, left, mirrored),) in found])
    counts = kinds.unique(return_counts=True)[1]
    assert len(counts) == 25 * (1 + flip)
    expected = n / len(counts)
    assert float(((counts - expected) ** 2 / expected).sum()) < 2 * len(counts)  # chi-square: its mean is len - 1


def test_each_image_is_cropped_from_itself():
    x = images(40)
    for one, out in zip(x, CropAndFlip(padding=PADDING)(x, rng=Stream(1))):
        assert places(one, out)


def test_the_same_stream_gives_the_same_crops_alone_and_in_a_batch():
    x, positions = images(8), torch.tensor([5, 900, 3, 17, 2, 40, 41, 7])
    augment, rng = CropAndFlip(), Stream(2, positions)
    together = augment(x, rng=rng)
    alone = [augment(x[i : i + 1], rng=Stream(2, positions[i : i + 1])) for i in range(8)]
    assert torch.equal(torch.cat(alone), together)
    assert torch.equal(augment(x.flip(0), rng=Stream(2, positions.flip(0))), together.flip(0))
    assert not torch.equal(augment(x, rng=rng.child("next")), together)


def test_without_padding_and_flip_it_is_the_identity():
    x = images(4)
    assert torch.equal(CropAndFlip(padding=0, flip=False)(x, rng=Stream(1)), x)


def test_flip_is_a_name_of_its_own():
    augment = from_dict("flip", "augmentation")
    assert digest(augment) == digest(CropAndFlip(padding=0))
    x = images(64)
    out = augment(x, rng=Stream(4))
    mirrored = (out != x).flatten(1).any(1)
    assert 16 < int(mirrored.sum()) < 48
    assert torch.equal(out, torch.where(mirrored[:, None, None, None], x.flip(-1), x))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64, torch.bfloat16])
def test_pixels_keep_their_type_and_their_source_is_left_alone(dtype):
    x = (255 * images(4)).to(dtype)
    before = x.clone()
    out = CropAndFlip(padding=1)(x, rng=Stream(1))
    assert out.dtype == dtype
    assert torch.equal(x, before)
    assert torch.equal(out.double(), CropAndFlip(padding=1)(x.double(), rng=Stream(1)))


def test_a_padding_wider_than_the_image_may_leave_it_black():
    out = CropAndFlip(padding=20)(images(64), rng=Stream(1))
    assert bool((out.flatten(1) == 0).all(1).any())


def test_it_is_named_in_a_line():
    assert brief(CropAndFlip(padding=2)) == "crop_and_flip padding=2"


@pytest.mark.parametrize("flip", [False, True])
def test_every_random_crop_lies_inside_and_all_are_equally_likely(flip):
    n, size = 1200, 4
    x = images(1).expand(n, -1, -1, -1)
    out = RandomCrop(size=size, flip=flip)(x, rng=Stream(3))
    assert out.shape == (n, 3, size, size)
    windows = {
        (top, left, mirrored): x[0, :, top : top + size, left : left + size].flip(-1 if mirrored else ())
        for top in range(HEIGHT - size + 1)
        for left in range(WIDTH - size + 1)
        for mirrored in ((False, True) if flip else (False,))
    }
    counts = [sum(torch.equal(one, window) for one in out) for window in windows.values()]
    assert sum(counts) == n
    expected = n / len(counts)
    assert sum((count - expected) ** 2 / expected for count in counts) < 2 * len(counts) + 4


def test_a_random_crop_is_its_images_own():
    x, positions = images(8), torch.tensor([5, 900, 3, 17, 2, 40, 41, 7])
    together = RandomCrop(size=3)(x, rng=Stream(2, positions))
    alone = [RandomCrop(size=3)(x[i : i + 1], rng=Stream(2, positions[i : i + 1])) for i in range(8)]
    assert torch.equal(torch.cat(alone), together)
    whole = RandomCrop(size=WIDTH, flip=False)(x[..., :WIDTH, :], rng=Stream(2))
    assert torch.equal(whole, x[..., :WIDTH, :])


def test_a_random_crop_of_too_small_an_image_is_refused():
    with pytest.raises(InputError, match="images 6x5 are smaller than size=6"):
        RandomCrop(size=6)(images(2))
