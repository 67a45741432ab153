import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from pellucid.attacks import JPEG
from pellucid.attacks.jpeg import start_in
from pellucid.errors import InputError, SpecError
from pellucid.maths.balls import fill_l1
from pellucid.maths.jpeg import decode, encode
from pellucid.metrics import CALIBRATED
from pellucid.rng import Stream

from .effects import SIZES, check_one_step, check_sizes_and_seeds, check_slope, images, linear, slope_at

X = images(2, 3, 9, 18)
ALL = torch.arange(2)


def reference(x):
    """Pad to 16x32 by repeating the border, encode, add, decode, cut off; averaged if grey. (Blocks: test of maths.)"""

    def changed(v, i):
        image = np.repeat(x[i].numpy(), 3 // len(x[i]), axis=0)
        padded = np.pad(image, ((0, 0), (3, 4), (7, 7)), mode="edge")
        c = encode(torch.from_numpy(padded)[None]) + 0.5 * torch.from_numpy(v)[None]
        out = np.clip(decode(c, 16, 32)[0].numpy()[:, 3:12, 7:25], 0, 1)
        return out if len(x[i]) == 3 else out.mean(0, keepdims=True)

    return changed


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("ball", ["linf", "l2", "l1"])
def test_one_step_as_by_hand(ball, channels):
    x, rng = X[:, :channels], Stream(5)
    attack = JPEG(ball=ball, eps={"linf": 0.5, "l2": 20, "l1": 33}[ball], steps=1)
    effect = attack.effect(x, rng)
    start = effect.start
    slope = slope_at(effect, x, start)
    check_slope(slope, start, x, reference(x), samples=25)
    if ball == "linf":
        moved = (start + 0.5 * slope.sign()).clamp(-0.5, 0.5)
    elif ball == "l2":
        moved = start + 20 * slope / slope.norm(dim=1, keepdim=True)
        moved = (moved * (20 / moved.norm(dim=1, keepdim=True)).clamp(max=1)).clamp(-2, 2)
        assert float(moved.abs().max()) == 2
    else:
        moved = torch.zeros_like(start)
        for i in range(2):
            steepest = slope[i].abs().argsort(descending=True)
            moved[i, steepest[:16]] = 2 * slope[i, steepest[:16]].sign()  # 16 of 2 and one of 1 make 33
            moved[i, steepest[16]] = slope[i, steepest[16]].sign()
    check_one_step(attack, x, rng, moved, reference(x))


def test_frank_wolfe_is_the_mean_of_its_vertices(generator):
    effect, points = JPEG(ball="l1", eps=50).effect(X, Stream()), []
    v = effect.start
    for _ in range(4):
        slope = torch.randn(v.shape, generator=generator, dtype=torch.float64)
        points.append(fill_l1(slope, 50, torch.full_like(v, 2)))
        v = effect.move(v, slope, torch.zeros(2), ALL)
    torch.testing.assert_close(v, torch.stack(points).mean(0))


def test_the_released_frank_wolfe_counts_its_bounds_from_where_it_is(generator):
    effect = JPEG(ball="l1", eps=50, form="code").effect(X, Stream())
    v = effect.start / 50
    for number in range(3):
        slope = torch.randn(v.shape, generator=generator, dtype=torch.float64)
        vertex = fill_l1(slope, 50, 2 - v * slope.sign())
        moved = effect.move(50 * v if number == 0 else v, slope, torch.zeros(2), ALL)
        v = v + (vertex - v) / (number + 1)
        torch.testing.assert_close(moved, v)


def test_the_released_code_takes_the_first_gradient_elsewhere():
    seen = []

    def watched(point, rows):
        seen.append(point.detach())
        return linear(X)(point, rows)

    attack = JPEG(ball="l2", eps=3, steps=2, form="code")
    out = attack.maximise(watched, X, rng=Stream(1))
    plain = dataclasses.replace(attack, form="paper").effect(X, Stream(1))
    start = plain.start
    torch.testing.assert_close(seen[0], plain.render(3 * start, ALL))
    first = plain.move(start, slope_at(plain, X, 3 * start), torch.zeros(2), ALL)
    torch.testing.assert_close(seen[1], plain.render(first, ALL))
    second = plain.move(first, slope_at(plain, X, first), torch.zeros(2), ALL)
    torch.testing.assert_close(out, plain.render(second, ALL))


@pytest.mark.parametrize(("ball", "eps"), [("linf", 0.25), ("l2", 8), ("l1", 256)])
def test_the_variables_stay_in_the_ball(ball, eps, generator):
    attack = JPEG(ball=ball)
    assert (attack.eps, attack.steps) == (eps, 200)
    assert attack == JPEG(ball=ball, eps=eps)
    effect = attack.effect(X, Stream(2))
    v = effect.start
    for _ in range(30):
        order = {"linf": torch.inf, "l2": 2, "l1": 1}[ball]
        assert float(torch.linalg.vector_norm(v, ord=order, dim=1).max()) <= eps + 1e-9
        assert float(v.abs().max()) <= 2
        v = effect.move(v, torch.randn(v.shape, generator=generator, dtype=torch.float64), torch.zeros(2), ALL)
    assert float(torch.linalg.vector_norm(v, ord=order, dim=1).max()) > 0.2 * eps


@pytest.mark.parametrize(("ball", "order"), [("linf", torch.inf), ("l2", 2), ("l1", 1)])
def test_starts_are_uniform_in_the_ball(ball, order):
    like = torch.zeros(4000, 6, dtype=torch.float64)
    start = start_in(ball, like, 1.5, Stream(1))
    length = torch.linalg.vector_norm(start, ord=order, dim=1)
    assert float(length.max()) <= 1.5
    shares = (length[:, None] <= 1.5 * torch.tensor([0.8, 0.9, 0.95]).double()).double().mean(0)
    torch.testing.assert_close(shares, torch.tensor([0.8, 0.9, 0.95]).double() ** 6, rtol=0, atol=0.03)
    assert float(start.mean(0).abs().max()) < 0.04


def test_at_eps_zero_grey_images_are_themselves_and_colours_are_averaged():
    model, y = torch.nn.Flatten(), torch.tensor([0, 1])
    for ball in ("linf", "l2", "l1"):
        attack = JPEG(ball=ball, eps=0, steps=2)
        torch.testing.assert_close(attack(model, X[:, :1], y), X[:, :1], rtol=0, atol=1e-6)
    x = images(2, 3, 16, 16)
    shares = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]).double()
    planes = torch.einsum("kc,nchw->nkhw", shares, x)
    chroma = functional.avg_pool2d(planes[:, 1:], 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    back = torch.linalg.inv(shares)
    expected = torch.einsum("ck,nkhw->nchw", back, torch.cat([planes[:, :1], chroma], 1)).clamp(0, 1)
    torch.testing.assert_close(JPEG(eps=0, steps=1)(model, x, y), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("ball", ["linf", "l2", "l1"])
def test_every_size_and_seed(ball):
    check_sizes_and_seeds(JPEG(ball=ball, steps=2), SIZES[:-1])


def test_without_a_random_start_it_starts_at_the_image():
    grey = X[:, :1]
    out = JPEG(random_start=False).unoptimised(grey)
    torch.testing.assert_close(out, grey, rtol=0, atol=1e-6)
    assert not torch.allclose(JPEG().unoptimised(grey), grey, atol=1e-3)


@pytest.mark.parametrize("ball", ["linf", "l2", "l1"])
def test_every_calibrated_size_can_be_attacked_at(ball):
    for attacks in CALIBRATED.values():
        assert [JPEG(ball=ball, eps=eps).eps for eps in attacks[f"jpeg_{ball}"].sizes] == [*attacks[f"jpeg_{ball}"].eps]


def test_refusals():
    with pytest.raises(InputError, match="1 or 3 channels, not 4"):
        JPEG().maximise(lambda p, rows: p.sum((1, 2, 3)), images(1, 4, 8, 8))
    with pytest.raises(SpecError, match="no step_size"):
        JPEG(ball="l1", step_size=0.1)
