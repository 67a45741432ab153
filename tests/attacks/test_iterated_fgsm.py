"""Iterated FGSM, TGSM and iterated TGSM: one sign step, repeated, with a target or without."""

import dataclasses

import pytest
import torch
from torch import nn

from pellucid.attacks import FGSM, PGD, TGSM, IteratedFGSM, IteratedTGSM
from pellucid.errors import InputError, SpecError
from pellucid.maths import counted, cross_entropy
from pellucid.metrics import predict
from pellucid.rng import Stream


@pytest.fixture
def images(generator):
    return torch.rand(12, 1, 3, 4, generator=generator, dtype=torch.float64)


@pytest.fixture
def bent(generator):
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 20), nn.Tanh(), nn.Linear(20, 4))
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * (4 / p.shape[-1] ** 0.5 if p.ndim == 2 else 1))
    return network.double()


def by_loop(network, x, y, eps, steps, radius=None, goal=None):
    """The definition, image by image."""
    out = []
    for n in range(len(x)):
        point = x[n : n + 1].clone()
        for _ in range(steps):
            point = point.detach().requires_grad_(True)
            label = y[n : n + 1] if goal is None else goal[n : n + 1]
            (slope,) = torch.autograd.grad(cross_entropy(network(point), label).sum(), point)
            point = point + (eps if goal is None else -eps) * slope.sign()
            if radius is not None:
                point = torch.minimum(torch.maximum(point, x[n : n + 1] - radius), x[n : n + 1] + radius)
            point = point.clamp(0, 1)
        out.append(point.detach())
    return torch.cat(out)


@pytest.mark.parametrize("radius", [None, 0.07])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_iterated_fgsm_is_its_definition(bent, images, steps, radius):
    y = torch.arange(12) % 4
    attack = IteratedFGSM(eps=0.03, steps=steps, radius=radius)
    torch.testing.assert_close(
        attack(bent, images, y), by_loop(bent, images, y, 0.03, steps, radius), rtol=0, atol=1e-12
    )
    goal = (y + 1) % 4
    torch.testing.assert_close(
        dataclasses.replace(attack, target="next")(bent, images, y),
        by_loop(bent, images, y, 0.03, steps, radius, goal),
        rtol=0,
        atol=1e-12,
    )


def test_tgsm_and_its_repetition_are_their_definitions(bent, images):
    y = torch.arange(12) % 4
    for goal, given in (((y + 1) % 4, None), ((y + 2) % 4, (y + 2) % 4)):
        torch.testing.assert_close(
            TGSM(eps=0.05)(bent, images, y, target=given), by_loop(bent, images, y, 0.05, 1, goal=goal)
        )
        torch.testing.assert_close(
            IteratedTGSM()(bent, images, y, target=given), by_loop(bent, images, y, 0.1, 15, goal=goal)
        )


def test_on_a_linear_network_all_steps_go_the_same_way(linear, images):
    network, y = linear(classes=2), torch.arange(12) % 2
    towards = (network.weight[1] - network.weight[0]).detach().view(1, 1, 3, 4).sign()
    away = torch.where(y == 0, 1.0, -1.0).view(-1, 1, 1, 1) * towards
    for attack, total in (
        (IteratedFGSM(eps=0.02, steps=5), 0.1),
        (IteratedFGSM(eps=0.02, steps=5, radius=0.07), 0.07),
        (TGSM(eps=0.3), 0.3),  # of two classes, the next is the other
        (IteratedTGSM(eps=0.1, steps=4), 0.4),
        (IteratedTGSM(), 1.5),
    ):
        torch.testing.assert_close(attack(network, images, y), (images + total * away).clamp(0, 1))


def test_with_a_radius_it_is_pgd_without_a_random_start(bent, images):
    y = torch.arange(12) % 4
    ours = IteratedFGSM(eps=0.03, steps=8, radius=0.1)(bent, images, y)
    assert torch.equal(ours, PGD(eps=0.1, step_size=0.03, steps=8, random_start=False)(bent, images, y))
    assert float((ours - images).abs().max()) == pytest.approx(0.1)
    free = IteratedFGSM(eps=0.03, steps=8)(bent, images, y)
    assert float((free - images).abs().max()) > 0.15


def test_one_step_is_fgsm(bent, images):
    y = torch.arange(12) % 4
    for labels in ("true", "predicted"):
        one = IteratedFGSM(eps=0.1, steps=1, labels=labels)(bent, images, y)
        assert torch.equal(one, FGSM(eps=0.1, labels=labels)(bent, images, y))
    for rule in ("next", "random", "runner_up", "least_likely"):
        ours, theirs = TGSM(eps=0.1, target=rule), FGSM(eps=0.1, target=rule)
        assert torch.equal(ours(bent, images, y, rng=Stream(3)), theirs(bent, images, y, rng=Stream(3)))
        assert torch.equal(
            torch.stack(list(ours.grid(bent, images, y, [0.1, 0.2], rng=Stream(3)))),
            torch.stack(list(theirs.grid(bent, images, y, [0.1, 0.2], rng=Stream(3)))),
        )


def test_predicted_labels_are_read_anew_at_every_step(bent, images):
    y = torch.zeros(12, dtype=torch.long)
    attack = IteratedFGSM(eps=0.05, steps=4, labels="predicted")
    point = images
    for _ in range(4):
        point = FGSM(eps=0.05)(bent, point, predict(bent, point))
    torch.testing.assert_close(attack(bent, images, y), point)
    assert not torch.equal(attack(bent, images, y), IteratedFGSM(eps=0.05, steps=4)(bent, images, y))


def test_fooled_images_leave_with_the_iterate_that_fooled(bent, images):
    y, steps = predict(bent, images), 6
    attack = IteratedFGSM(eps=0.02, steps=steps)
    by_steps = [images, *(dataclasses.replace(attack, steps=k)(bent, images, y) for k in range(1, steps + 1))]
    fooled = torch.stack([predict(bent, x) != y for x in by_steps])
    first = [int(column.nonzero()[0]) if column.any() else steps for column in fooled.T]
    assert len(set(first)) > 2
    with counted() as passes:
        out = attack(bent, images, y, stop_when_fooled=True)
    assert passes.backward == sum(min(k + 1, steps) for k in first)
    for n in range(12):
        torch.testing.assert_close(out[n], by_steps[first[n]][n], rtol=0, atol=1e-12)


def test_refusals(linear, images):
    with pytest.raises(SpecError, match="not both"):
        IteratedFGSM(eps=0.1, labels="predicted", target="next")
    with pytest.raises(InputError, match="two classes"):
        TGSM(eps=0.1)(linear(classes=1), images, torch.zeros(12, dtype=torch.long))
    assert not hasattr(IteratedFGSM(eps=0.1), "norm")  # eps is that of a step: it promises no ball
