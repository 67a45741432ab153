"""TRADES against torch's own divergence, and which terms its gradient flows through."""

import pytest
import torch
from torch.nn import functional

from pellucid.attacks import PGD
from pellucid.defences import TRADES, Standard
from pellucid.defences.trades import divergence
from pellucid.errors import InputError, SpecError
from pellucid.maths import counted
from pellucid.schedule import Ramp
from pellucid.spec import from_dict

from .derivatives import weight_gradients
from .stand_ins import SHORT, Handed, N, X, Y, here, shifted, tiny

NEAR = shifted(X)


def kl(logits, other):
    ours, theirs = logits.log_softmax(1), other.log_softmax(1)
    return functional.kl_div(theirs, ours, reduction="none", log_target=True).sum(1)


def test_the_divergence_is_that_of_torch_also_of_certain_predictions(generator):
    logits, other = (9 * torch.randn(20, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    torch.testing.assert_close(divergence(logits, other), kl(logits, other))
    assert float((divergence(logits, other) - divergence(other, logits)).abs().max()) > 1
    assert divergence(torch.tensor([[0.0, -2e4]]), torch.tensor([[0.0, -3e4]])).item() == 0
    assert divergence(logits.bfloat16(), other.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("weight", [0.5, 6.0])
def test_terms_are_their_formulas(weight):
    network = tiny()
    terms = TRADES(weight=weight, attack=Handed())(network, X, Y)
    expected = {
        "cross_entropy": functional.cross_entropy(network(X), Y),
        "divergence": weight * kl(network(X), network(NEAR)).sum() / N,
    }
    assert list(terms) == list(expected)
    torch.testing.assert_close(terms, expected)


@pytest.mark.parametrize("held", ["clean", "attacked"])
def test_the_gradient_flows_through_both_predictions(held):
    network = tiny()
    clean, attacked = network(X), network(NEAR)
    found = weight_gradients(TRADES(attack=Handed())(network, X, Y)["divergence"], network)
    both = weight_gradients(kl(clean, attacked).mean(), network)
    torch.testing.assert_close(found, both)
    clean, attacked = network(X), network(NEAR)
    clean, attacked = (clean.detach(), attacked) if held == "clean" else (clean, attacked.detach())
    one = weight_gradients(kl(clean, attacked).mean(), network)
    distance = sum(float((a - b).square().sum()) for a, b in zip(found, one)) ** 0.5
    assert distance > 0.1 * sum(float(a.square().sum()) for a in found) ** 0.5


def test_without_weight_or_eps_it_is_standard_training_to_the_bit_and_no_attack_is_run():
    network, still = tiny(), Ramp(start=0.0, stop=0.3, begin=5, until=9, unit="steps")
    plain = Standard()(network, X, Y)["cross_entropy"]
    slopes, watched = weight_gradients(plain, network), Handed()
    for defence in (
        TRADES(weight=0.0, attack=watched),
        TRADES(attack=Handed(eps=0.0)),
        TRADES(attack=PGD(eps=0.3), eps=still),
    ):
        with counted() as passes:
            terms = defence(network, X, Y, here(step=5))
        assert (passes.forward, passes.backward) == (N, 0)
        assert getattr(defence.attack, "silent", True)
        assert (terms["divergence"].item(), terms["divergence"].dtype) == (0, plain.dtype)
        assert torch.equal(sum(terms.values()), plain)
        assert all(map(torch.equal, weight_gradients(sum(terms.values()), network), slopes))
    assert defence(network, X, Y, here(step=6))["divergence"].item() > 0


def test_the_attack_climbs_the_divergence_from_predictions_held_fixed():
    network, rows, values = tiny(), torch.tensor([3, 0]), []

    def probe(objective, x):
        point = NEAR[rows].requires_grad_(True)
        values.append(objective(point, rows))
        assert not any(p.requires_grad for p in network.parameters())

    TRADES(attack=Handed(probe=probe), weight=7.0)(network, X, Y)
    torch.testing.assert_close(values[0], kl(network(X[rows]), network(NEAR[rows])))


def test_at_the_image_itself_there_is_no_slope_and_a_normal_start_leaves_it():
    network, slopes = tiny(), []

    def probe(objective, x):
        for point in (x, NEAR):
            leaf = point.clone().requires_grad_(True)
            slopes.append(float(torch.autograd.grad(objective(leaf, torch.arange(N)).sum(), leaf)[0].abs().max()))

    TRADES(attack=Handed(probe=probe))(network, X, Y)
    assert slopes[0] < 1e-15 < 1e-4 < slopes[1]
    noise, climbed = (
        TRADES(attack=PGD(eps=0.1, start="normal", steps=10, step_size=step))(network, X, Y)["divergence"].item()
        for step in (0.0, 0.02)
    )
    assert 0 < noise < 1e-4 * climbed
    uniform = TRADES(attack=PGD(eps=0.1, steps=10, step_size=0.02))(network, X, Y)["divergence"].item()
    assert climbed == pytest.approx(uniform, rel=0.2)


def test_the_attack_finds_more_divergence_than_noise_and_costs_what_it_says():
    network = tiny()
    with counted() as passes:
        found = TRADES(attack=SHORT)(network, X, Y)["divergence"].item()
    assert (passes.forward, passes.backward) == (N * (1 + 1 + 3 + 1), N * 3)
    assert found > 2 * TRADES(attack=Handed(changed=lambda x: shifted(x, 0.1)))(network, X, Y)["divergence"].item()


def test_what_is_no_input_is_refused():
    with pytest.raises(InputError, match="at least one image"):
        TRADES()(tiny(), X[:0], Y[:0])
    with pytest.raises(SpecError, match="eps"):
        TRADES(attack=from_dict("deepfool", "attack"), eps=Ramp(start=0.0, stop=0.3))
