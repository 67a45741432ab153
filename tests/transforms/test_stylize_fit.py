"""What a stylizer is fitted by, against closed forms."""

import pytest
import torch

from pellucid.transforms.adain import moments
from pellucid.transforms.style_fit import Pupil, blank, pieces, recoloured, restore, saved, style_losses


def pictures(n, height=16, width=16, seed=0):
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(seed))


class Pixels:
    """A network whose only map is the image, and whose decoder adds a number."""

    def __init__(self, added=0.0):
        self.added = added

    def all_features(self, images):
        return [images]

    features = all_features

    def decode(self, maps):
        return maps[-1] + self.added


def test_losses_by_hand():
    content, style = 0.3 + pictures(3) / 8, 0.5 + pictures(3, 12, 20, seed=1) / 8
    exact = style_losses(Pixels(), content, style)
    assert exact.content == 0
    assert exact.style < 1e-4  # but for the 1e-5 in the variances
    assert exact.gram < 1e-3
    assert exact.outside == 0
    off = style_losses(Pixels(0.1), content, style)
    scale = float(moments(style)[1].square().mean())
    assert float(off.content) == pytest.approx(0.01 / scale, rel=1e-4)
    assert float(off.style) == pytest.approx(0.01 / scale, rel=1e-3)  # means are off by 0.1, deviations are right
    out = style_losses(Pixels(3.0), content, style)
    made = Pixels(3.0).decode([content])  # its mean is about 3.5: everything is outside
    assert float(out.outside) == pytest.approx(float((style.mean() + 3 - 1) ** 2), rel=0.1)
    assert made.min() > 1
    torch.testing.assert_close(out.total(2.0, 3.0), out.content + 2 * out.style + 3 * out.gram + 10 * out.outside)


def test_batch_norm_becomes_part_of_the_convolutions():
    pupil = blank(3, 2, 5, seed=0)
    generator = torch.Generator().manual_seed(1)
    for norm in pupil.norms:
        for value in (norm.weight, norm.running_var, norm.bias, norm.running_mean):
            value.data = 0.5 + torch.rand(value.shape, generator=generator)
    x = pictures(2)
    pupil.eval()
    with torch.no_grad():
        wanted = pupil.stylizer.all_features(x, pupil.norms)
        found = pupil.finished().all_features(x)
    assert (wanted[-1] - blank(3, 2, 5, seed=0).stylizer.all_features(x)[-1]).abs().max() > 0.01
    for maps, level in zip(found, wanted):
        torch.testing.assert_close(maps, level, rtol=1e-4, atol=1e-5)


def test_the_encoder_learns_classes_only_where_there_are_some():
    pupil, x, y = blank(3, 2, 4, seed=0), pictures(4), torch.arange(4)
    pupil.loss(x, None).backward()
    assert pupil.head.weight.grad is None
    pupil.loss(x, y).backward()
    assert pupil.head.weight.grad.abs().max() > 0


def test_the_encoder_rebuilds_from_the_deepest_map():
    pupil, x = blank(3, 3, 1, seed=0), pictures(2)
    pupil.loss(x, None).backward()
    assert all(layer.weight.grad.abs().max() > 0 for layer in pupil.stylizer.encoder)
    assert all(p.grad is None for p in pupil.stylizer.decoder.parameters())


def test_gram_matrices_see_what_moments_do_not():
    one = pictures(2, 64, 64)
    same = 0.5 + (one - one.mean((2, 3), keepdim=True))[:, [0, 0, 0]]  # the same moments, colours that go together
    other = 0.5 + (one - one.mean((2, 3), keepdim=True))
    same, other = (0.5 + 0.1 * (x - 0.5) / x.std((2, 3), keepdim=True) for x in (same, other))
    found = style_losses(Pixels(), same, other)
    assert found.style < 1e-3
    assert found.gram > 10 * found.style
    assert style_losses(Pixels(), other, other).gram < 1e-6


def test_recoloured_images_keep_their_means_and_their_contours():
    x = 0.35 + 0.3 * pictures(40)
    found = recoloured(x, torch.Generator().manual_seed(0))
    factors, permuted = [], 0
    for image, made in zip(x, found):
        order = [int((image.mean((1, 2)) - mean).abs().argmin()) for mean in made.mean((1, 2))]
        assert sorted(order) == [0, 1, 2]
        centred = image[order] - image[order].mean((1, 2), keepdim=True)
        factor = (made - made.mean((1, 2), keepdim=True)).norm() / centred.norm()
        torch.testing.assert_close(
            made, factor * centred + image[order].mean((1, 2), keepdim=True), rtol=1e-3, atol=1e-4
        )
        factors.append(float(factor))
        permuted += order != [0, 1, 2]
    assert min(factors) >= 0.499
    assert 0.5 < max(factors) - min(factors) <= 1
    assert 8 < permuted < 28


def test_weights_depend_on_the_seed_alone():
    state = torch.random.get_rng_state()
    one, same, other = (blank(3, 2, 4, seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(value, same[key]) for key, value in one.items())
    assert not torch.equal(one["head.weight"], other["head.weight"])


def test_pieces_are_squares_of_the_image_mirrored_or_not():
    image = torch.arange(3 * 20 * 30, dtype=torch.float32).view(1, 3, 20, 30)
    draw = torch.Generator().manual_seed(0)
    found = pieces(image.expand(40, -1, -1, -1), 20, 1.0, draw)  # the whole shorter side: only where it lies is drawn
    places, mirrored = set(), 0
    for piece in found:
        flipped = bool(piece[0, 0, 0] > piece[0, 0, -1])
        upright = piece.flip(2) if flipped else piece
        left = int(upright[0, 0, 0])
        assert torch.equal(upright, image[0, :, :, left : left + 20])
        places.add(left)
        mirrored += flipped
    assert len(places) > 5
    assert 10 < mirrored < 30
    smaller = pieces(pictures(5, 40, 40), 16, 0.5, torch.Generator().manual_seed(1))
    assert smaller.shape == (5, 3, 16, 16)
    assert torch.equal(smaller, pieces(pictures(5, 40, 40), 16, 0.5, torch.Generator().manual_seed(1)))


def test_training_goes_on_from_what_was_saved():
    def steps(pupil, optimiser, numbers):
        for number in numbers:
            optimiser.zero_grad()
            pupil.loss(pictures(2, seed=number), torch.tensor([0, 1])).backward()
            optimiser.step()

    straight = blank(3, 2, 2, seed=0)
    steps(straight, torch.optim.Adam(straight.parameters(), lr=1e-2), range(6))
    first = blank(3, 2, 2, seed=0)
    optimiser = torch.optim.Adam(first.parameters(), lr=1e-2)
    steps(first, optimiser, range(3))
    second = Pupil(3, 2, 2)
    other = torch.optim.Adam(second.parameters(), lr=1e-2)
    restore(second, other, {key: value.clone() for key, value in saved(first, optimiser).items()})
    steps(second, other, range(3, 6))
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in straight.state_dict().items())
