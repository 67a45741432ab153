import itertools
import math

import pytest
import torch
from torch import nn

from pellucid.errors import InputError
from pellucid.maths.blur import gaussian_blur
from pellucid.maths.passes import counted
from pellucid.metrics import deletion, insertion


@pytest.fixture
def network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(80, 3))


@pytest.fixture
def images(generator):
    return torch.rand(4, 3, 4, 5, generator=generator), torch.tensor([0, 2, 1, 1])


def by_hand(network, x, y, maps, counts, fill, *, into, score):
    """Walk through one image after the other, one pixel after the other."""
    curves = []
    for n in range(len(x)):
        pixels = [(float(maps[n, i, j]), i, j) for i in range(maps.shape[1]) for j in range(maps.shape[2])]
        pixels.sort(key=lambda p: (-p[0], p[1], p[2]))
        curve = []
        for count in counts:
            image = (fill[n] if into else x[n]).clone()
            for _, i, j in pixels[:count]:
                image[:, i, j] = (x[n] if into else fill[n])[:, i, j]
            logits = network(image[None])[0]
            curve.append(float((logits.softmax(0) if score == "probability" else logits)[y[n]]))
        curves.append(curve)
    return torch.tensor(curves, dtype=torch.float64)


@pytest.mark.parametrize("score", ["probability", "logit"])
@pytest.mark.parametrize("into", [False, True])
def test_curves_are_those_of_a_walk_pixel_by_pixel(network, images, generator, into, score):
    x, y = images
    maps = torch.randint(0, 4, (4, 4, 5), generator=generator).float()  # ties: lowest index first
    fill = torch.rand(4, 3, 4, 5, generator=generator)
    change = insertion if into else deletion
    found = change(network, x, y, maps, pixels_per_step=3, fill=fill, score=score)
    counts = [0, 3, 6, 9, 12, 15, 18, 20]
    with torch.no_grad():
        expected = by_hand(network.eval(), x, y, maps, counts, fill, into=into, score=score)
    torch.testing.assert_close(found.curve, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.share, torch.tensor(counts).double() / 20)
    steps = itertools.pairwise(counts)
    area = sum((b - a) / 20 * (expected[:, k] + expected[:, k + 1]) / 2 for k, (a, b) in enumerate(steps))
    torch.testing.assert_close(found.area, area, rtol=0, atol=1e-6)


def test_on_a_linear_model_the_curve_is_a_sum_in_closed_form(linear, generator):
    network = linear(classes=3, pixels=12)
    x, y = torch.rand(5, 1, 3, 4, generator=generator, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    parts = network.weight.detach()[y] * x.flatten(1)  # gradient times input
    ranked = parts.sort(1, descending=True).values.cumsum(1)
    with torch.no_grad():
        clean = network(x).gather(1, y[:, None])
    bias = network.bias.detach()[y][:, None]
    maps, zero = parts.view(5, 3, 4), torch.zeros(5, 1, dtype=torch.float64)
    gone = deletion(network, x, y, maps, pixels_per_step=1, score="logit")
    torch.testing.assert_close(gone.curve, clean - torch.cat([zero, ranked], 1))
    come = insertion(network, x, y, maps, pixels_per_step=1, score="logit", fill="black")
    torch.testing.assert_close(come.curve, bias + torch.cat([zero, ranked], 1))
    for _ in range(20):  # no other order deletes more
        other = torch.rand(5, 3, 4, generator=generator)
        assert bool((gone.area <= deletion(network, x, y, other, pixels_per_step=1, score="logit").area + 1e-12).all())


def test_the_ends_are_the_image_and_the_fill(network, images):
    x, y = images
    found = deletion(network, x, y, x.mean(1), fill="mean")
    back = insertion(network, x, y, x.mean(1), fill="mean")
    mean = x.mean((2, 3), keepdim=True).expand_as(x)
    with torch.no_grad():
        clean, flat = (network.eval()(z).double().softmax(1).gather(1, y[:, None])[:, 0] for z in (x, mean))
    assert found.curve.shape == (4, 5)  # as many steps as rows
    torch.testing.assert_close(found.curve[:, [0, -1]], torch.stack([clean, flat], 1))
    torch.testing.assert_close(back.curve[:, [0, -1]], torch.stack([flat, clean], 1))


def test_what_is_inserted_is_what_the_opposite_order_leaves(network, images, generator):
    x, y = images
    maps = torch.rand(4, 4, 5, generator=generator)
    gone = deletion(network, x, y, -maps, steps=10, fill="blurred").curve
    torch.testing.assert_close(gone.flip(1), insertion(network, x, y, maps, steps=10).curve)
    blurred = gaussian_blur(x, 5.0)
    torch.testing.assert_close(gone, deletion(network, x, y, -maps, steps=10, fill=blurred).curve)


@pytest.mark.parametrize("steps", [1, 3, 7, 20])
def test_steps_are_equal_parts(network, images, steps):
    x, y = images
    share = deletion(network, x, y, x.mean(1), steps=steps).share * 20
    assert share.tolist() == [k * 20 // steps for k in range(steps + 1)]


def test_order_by_sign_and_by_magnitude(linear):
    network = linear(classes=2, pixels=4)
    x, y = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64), torch.tensor([0])
    maps = torch.tensor([[[1.0, -3.0], [2.0, 0.0]]])
    by_rank = {
        order: deletion(network, x, y, maps, pixels_per_step=1, score="logit", order=order).curve
        for order in ("signed", "magnitude")
    }
    change = network.weight.detach()[0] * 0.5
    for order, places in (("signed", [2, 0, 3, 1]), ("magnitude", [1, 2, 0, 3])):
        torch.testing.assert_close(-by_rank[order][0].diff(), change[places])
    opposed = torch.stack([2 * maps, -maps], 1)  # signed channels are added, magnitudes too
    for order in ("signed", "magnitude"):
        found = deletion(network, x, y, opposed, pixels_per_step=1, score="logit", order=order).curve
        torch.testing.assert_close(found, by_rank[order])
    cancelled = torch.stack([maps + 5 * maps.flip(2), -5 * maps.flip(2)], 1)
    found = deletion(network, x, y, cancelled, pixels_per_step=1, score="logit").curve
    torch.testing.assert_close(found, by_rank["signed"])
    found = deletion(network, x, y, cancelled, pixels_per_step=1, score="logit", order="magnitude").curve
    expected = deletion(network, x, y, cancelled.abs().sum(1), pixels_per_step=1, score="logit").curve
    torch.testing.assert_close(found, expected)
    assert float((found - by_rank["magnitude"]).abs().max()) > 1e-3


def test_values_go_one_by_one(linear, generator):
    network = linear(classes=3, pixels=12)
    x, y = torch.rand(2, 3, 2, 2, generator=generator, dtype=torch.float64), torch.tensor([2, 0])
    parts = network.weight.detach()[y] * x.flatten(1)
    found = deletion(network, x, y, parts.view_as(x), pixels_per_step=1, score="logit", unit="value")
    torch.testing.assert_close(-found.curve.diff(dim=1), parts.sort(1, descending=True).values)


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_results_do_not_depend_on_the_batch(network, images, batch_size):
    x, y = images
    found = deletion(network, x, y, x.mean(1), batch_size=batch_size)
    torch.testing.assert_close(found.curve, deletion(network, x, y, x.mean(1)).curve, rtol=0, atol=1e-6)


def test_many_images_and_steps_share_a_forward(images, linear):
    x, y = images
    sizes = []

    class Watched(nn.Module):
        def forward(self, z):
            sizes.append(len(z))
            return z.flatten(1)

    deletion(Watched(), x, y, x.mean(1), steps=5, batch_size=10)
    assert sizes == [10, 10, 4]
    network = linear(classes=3, pixels=60, dtype=torch.float32)
    with counted() as passes:
        deletion(network, x, y, x.mean(1), steps=5)
    assert (passes.forward, passes.backward) == (24, 0)


def test_the_network_is_left_as_it_was_and_runs_in_eval_mode(network, images):
    x, y = images
    network.train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    deletion(network, x, y, x.mean(1))
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert all(m.training for m in network.modules())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_small_maps_empty_batches_constants_and_nan(network, images):
    x, y = images
    assert deletion(network, x, y, torch.rand(4, 2, 2)).curve.shape == (4, 5)
    for change in (deletion, insertion):
        empty = change(network, x[:0], y[:0], x[:0, 0])
        assert empty.curve.shape == (0, 5)
        assert empty.area.shape == (0,)
    rising = torch.arange(20, 0, -1.0).view(1, 4, 5).expand(4, 4, 5)
    same = deletion(network, x, y, torch.ones(4, 4, 5)).curve
    torch.testing.assert_close(same, deletion(network, x, y, rising).curve)
    broken = torch.ones(4, 4, 5)
    broken[1, 2, 2] = math.nan
    found = deletion(network, x, y, broken)
    assert found.curve.isnan().any(1).tolist() == found.area.isnan().tolist() == [False, True, False, False]
    torch.testing.assert_close(found.curve[[0, 2, 3]], same[[0, 2, 3]])


def test_what_is_refused(network, images):
    x, y = images
    maps = x.mean(1)
    for wrong, words in (
        ({"steps": 3, "pixels_per_step": 2}, "not both"),
        ({"steps": 0}, r"1\.\.20"),
        ({"steps": 21}, r"1\.\.20"),
        ({"pixels_per_step": 0}, "at least 1"),
        ({"fill": "white"}, "fill must be"),
        ({"fill": torch.zeros(5)[:, None, None]}, "does not broadcast"),
        ({"fill": torch.full((3, 1, 1), 2.0)}, r"\[0, 1\]"),
        ({"order": "down"}, "order must be"),
        ({"score": "loss"}, "score must be"),
        ({"unit": "value"}, "images' shape"),
        ({"unit": "patch"}, "unit one of"),
        ({"batch_size": 0}, "batch_size"),
    ):
        with pytest.raises(InputError, match=words):
            deletion(network, x, y, maps, **wrong)
    for bad_x, bad_y, bad_maps, words in (
        (x * 2, y, maps, r"\[0, 1\]"),
        (x, y[:2], maps, "one number per image"),
        (x, y + 3, maps, r"0\.\.2"),
        (x, y, maps[:2], "one map per image"),
        (x, y, maps.flatten(1), r"maps must be \(N, h, w\)"),
        (x, y, torch.rand(4, 8, 8), "larger than the image"),
    ):
        with pytest.raises(InputError, match=words):
            deletion(network, bad_x, bad_y, bad_maps)
