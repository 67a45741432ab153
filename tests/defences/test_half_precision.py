"""Defences under autocast, as training with precision=bfloat16 calls them: losses in float32, gradients everywhere."""

import pytest
import torch

from pellucid.attacks import PGD
from pellucid.defences import (
    TRADES,
    AdversarialTraining,
    Distillation,
    FastAdversarialTraining,
    IGNorm,
    IGSumNorm,
    InterpretabilityAware,
    SemiSupervised,
    Standard,
    Sum,
)
from pellucid.interpreters import Gradient

from .stand_ins import Handed, X, Y, here, tiny

STILL = Handed(eps=0.0)
DEFENCES = [
    Standard(),
    Standard(temperature=5.0),
    Distillation(temperature=2.0),
    AdversarialTraining(attack=Handed()),
    AdversarialTraining(attack=Handed(), batches="mixed"),
    FastAdversarialTraining(eps=0.0),
    TRADES(weight=30.0, attack=Handed()),
    TRADES(attack=STILL),
    IGNorm(points=3, attack=Handed()),
    IGNorm(attack=STILL),
    IGSumNorm(points=3, attack=Handed()),
    IGSumNorm(attack=STILL),
    InterpretabilityAware(attack=Handed()),
    InterpretabilityAware(attack=Handed(), interpreter=Gradient()),
    InterpretabilityAware(attack=STILL),
    SemiSupervised(inner=InterpretabilityAware(attack=Handed()), labelled=0.5),
    Sum(defences=(AdversarialTraining(attack=Handed()), TRADES(attack=Handed()))),
]


@pytest.mark.parametrize("defence", DEFENCES, ids=lambda d: type(d).__name__)
def test_terms_are_single_precision_and_near_those_of_it(defence):
    ctx, grads, found = here(network=lambda task: tiny("relu").float()), [], []
    for enabled in (True, False):
        network = tiny().float()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            assert network(X.float()).dtype == (torch.bfloat16 if enabled else torch.float32)
            terms = defence(network, X.float(), Y, ctx)
        assert {value.dtype for value in terms.values()} == {torch.float32}
        sum(terms.values()).backward()
        grads.append([p.grad for p in network.parameters()])
        found.append({name: value.detach() for name, value in terms.items()})
    torch.testing.assert_close(found[0], found[1], rtol=0.05, atol=1e-3)
    for half, full in zip(*grads):
        assert float((half - full).norm()) < 0.2 * float(full.norm())


@pytest.mark.parametrize(
    "defence",
    [
        TRADES(attack=PGD(eps=0.1, steps=2)),
        IGSumNorm(attack=PGD(eps=0.1, steps=2), points=2, attack_points=2),
        InterpretabilityAware(attack=PGD(eps=0.1, steps=2)),
        FastAdversarialTraining(eps=0.1),
    ],
    ids=lambda d: type(d).__name__,
)
def test_weights_that_an_attack_read_while_they_were_frozen_still_learn(defence):
    """Autocast remembers the weights it rounded: those of the attack's passes must not serve the update."""
    network = tiny().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = defence(network, X.float(), Y, here())
    sum(terms.values()).backward()
    assert all(bool((p.grad != 0).any()) for p in network.parameters())
