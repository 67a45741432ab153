"""Fast adversarial training: one step, a quarter longer than the ball is wide, from a random point."""

import pytest
import torch
from torch.nn import functional

from pellucid.attacks import PGD
from pellucid.defences import AdversarialTraining, FastAdversarialTraining, Standard
from pellucid.maths import counted
from pellucid.schedule import Ramp

from .derivatives import forgetful, labels, pictures, tied
from .stand_ins import N, X, Y, here, seen, tiny


def total(terms):
    return sum(terms.values())


@pytest.mark.parametrize("network", [tiny, tied, forgetful])
@pytest.mark.parametrize("options", [{}, {"step": 0.5}, {"mode": "eval"}])
def test_it_is_adversarial_training_with_one_step_of_pgd_to_the_bit(network, options):
    x, y = (X, Y) if network is tiny else (pictures(), labels())
    step, mode = options.get("step", 1.25), options.get("mode", "train")
    attack = PGD(eps=0.2, steps=1, step_size=step * 0.2, mode=mode)
    found, expected = (
        (torch.manual_seed(0), defence(network(), x, y, here(n=len(x))))[1]  # dropout of the update is torch's
        for defence in (FastAdversarialTraining(eps=0.2, **options), AdversarialTraining(attack=attack, share=1.0))
    )
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_the_step_is_that_of_algorithm_3():
    network = tiny()
    images = seen(network)
    terms = FastAdversarialTraining(eps=0.1)(network, X, Y, here())
    start, near = images
    assert 0.08 < float((start - X).abs().max()) <= 0.1 + 1e-12
    assert abs(float((start - X).mean())) < 0.02
    leaf = start.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(functional.cross_entropy(network(leaf), Y), leaf)
    moved = (start - X + 1.25 * 0.1 * slope.sign()).clamp(-0.1, 0.1)
    torch.testing.assert_close(near, (X + moved).clamp(0, 1))
    assert 0.3 < float(((near - X).abs() > 0.1 - 1e-9).double().mean()) < 1  # mostly corners, not only
    torch.testing.assert_close(total(terms), functional.cross_entropy(network(near), Y))
    assert terms["cross_entropy"].item() == 0


def test_images_stay_in_the_ball_and_in_the_range():
    network, edges = tiny(), X.round()
    images = seen(network)
    FastAdversarialTraining(eps=0.3, step=4.0)(network, edges, Y)
    for x in images:
        assert float((x - edges).abs().max()) <= 0.3 + 1e-12
        assert float(x.min()) == 0
        assert float(x.max()) == 1


def test_the_ramp_moves_ball_and_step_and_at_0_there_is_no_attack():
    ramp = Ramp(start=0.0, stop=0.4, begin=0.2, until=0.8)
    defence = FastAdversarialTraining(eps=9.0, ramp=ramp)
    half = FastAdversarialTraining(eps=0.2)(tiny(), X, Y, here(progress=0.5))
    torch.testing.assert_close(defence(tiny(), X, Y, here(progress=0.5)), half)
    with counted() as passes:
        terms = defence(tiny(), X, Y, here(progress=0.2))
    assert (passes.forward, passes.backward) == (N, 0)
    assert torch.equal(total(terms), Standard()(tiny(), X, Y)["cross_entropy"])
    with counted() as passes:
        defence(tiny(), X, Y, here(progress=0.9))
    assert (passes.forward, passes.backward) == (2 * N, N)
