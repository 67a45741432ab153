"""Sums and phases of defences: which terms are added, which are counted once, and who is in force when."""

import pytest
import torch
from torch.nn import functional

from pellucid.attacks import FGSM
from pellucid.defences import (
    AdversarialTraining,
    CertaintyPenalty,
    Distillation,
    DoubleBackprop,
    JacobianRegularization,
    Phases,
    Standard,
    Sum,
)
from pellucid.errors import SpecError
from pellucid.protocols import Context
from pellucid.spec import from_dict, to_dict

from .derivatives import labels, pictures, smooth, weight_gradients

ATTACK = FGSM(eps=0.1)


def cross_entropy(network, x):
    return functional.cross_entropy(network(x), labels())


def penalty(network, target=None):
    """Return the mean squared gradient of the cross-entropy with labels, or with uniform ones."""
    leaf = pictures().requires_grad_(True)
    y = torch.full((6, 3), 1 / 3, dtype=torch.float64) if target == "uniform" else labels()
    losses = functional.cross_entropy(network(leaf), y, reduction="none")
    (slope,) = torch.autograd.grad(losses.sum(), leaf, create_graph=True)
    return slope.flatten(1).square().sum(1).mean()


def test_without_weights_the_plain_loss_counts_once_and_terms_of_one_name_are_added():
    network, x = smooth(), pictures()
    parts = (DoubleBackprop(weight=2.0), CertaintyPenalty(weight=3.0), JacobianRegularization(weight=0.1))
    terms = Sum(defences=parts)(network, x, labels())
    jacobian = parts[2](network, x, labels())
    expected = {
        "cross_entropy": cross_entropy(network, x),
        "gradient_penalty": 2 * penalty(network) + 3 * penalty(network, "uniform"),
    }
    expected |= {name: value for name, value in jacobian.items() if name != "cross_entropy"}
    assert list(terms) == list(expected)
    assert len(terms) == 3
    torch.testing.assert_close(terms, expected)
    found, wanted = (weight_gradients(sum(t.values()), network) for t in (terms, expected))
    torch.testing.assert_close(found, wanted)


def test_the_plain_loss_is_that_of_the_first():
    """Jakubovitz & Giryes combine: half clean, half adversarial images, and the Jacobian of the clean ones."""
    network, x = smooth(), pictures()
    adversarial, penalised = AdversarialTraining(attack=ATTACK), DoubleBackprop(weight=1.0)
    for parts, share in (((adversarial, penalised), 0.5), ((penalised, adversarial), 1.0)):
        terms = Sum(defences=parts)(network, x, labels())
        torch.testing.assert_close(terms["cross_entropy"], share * cross_entropy(network, x))
        near = ATTACK(network, x, labels())
        torch.testing.assert_close(terms["adversarial_cross_entropy"], cross_entropy(network, near) / 2)
        torch.testing.assert_close(terms["gradient_penalty"], penalty(network))


def test_ross_and_doshi_velez_have_both_defences_at_half():
    network, x = smooth(), pictures()
    both = Sum(defences=(DoubleBackprop(weight=7.0), AdversarialTraining(attack=ATTACK, share=1)), weights=(0.5, 0.5))
    found = sum(both(network, x, labels()).values())
    near = ATTACK(network, x, labels())
    expected = (cross_entropy(network, x) + 7 * penalty(network) + cross_entropy(network, near)) / 2
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(weight_gradients(found, network), weight_gradients(expected, network))


def test_with_weights_all_losses_count():
    network, x = smooth(), pictures()
    terms = Sum(defences=(Standard(), DoubleBackprop(weight=2.0)), weights=(0.25, 3.0))(network, x, labels())
    expected = {"cross_entropy": 3.25 * cross_entropy(network, x), "gradient_penalty": 6 * penalty(network)}
    torch.testing.assert_close(terms, expected)
    nothing = Sum(defences=(Standard(), DoubleBackprop()), weights=(1.0, 0.0))(network, x, labels())
    torch.testing.assert_close(sum(nothing.values()), cross_entropy(network, x))


def test_a_sum_of_one_and_a_sum_in_a_sum_are_what_is_in_them():
    network, x = smooth(), pictures()
    one = DoubleBackprop(weight=2.0)
    plain = one(network, x, labels())
    inner = Sum(defences=(one, CertaintyPenalty(weight=3.0)))
    flat = Sum(defences=(Standard(), *inner.defences))(network, x, labels())
    assert Sum(defences=(one,))(network, x, labels()) == plain
    torch.testing.assert_close(Sum(defences=(Standard(), inner))(network, x, labels()), flat)


def test_every_part_is_told_where_the_run_stands():
    told = []

    class Part(Standard):
        def __call__(self, model, x, y, ctx=None):
            told.append(ctx)
            return super().__call__(model, x, y, ctx)

    ctx = Context(progress=0.5, step=4)
    both = Sum(defences=(Part(), Phases(defences=(Part(), Standard()), until=(0.9,)), Part()))
    both(smooth(), pictures(), labels(), ctx)
    assert [c is ctx for c in told] == [True] * 3


def test_who_is_in_force_when():
    parts = (Standard(), DoubleBackprop(weight=1), DoubleBackprop(weight=2))
    phases = Phases(defences=parts, until=(0.25, 0.75))
    places = {0.0: 0, 0.2499: 0, 0.25: 1, 0.5: 1, 0.7499: 1, 0.75: 2, 0.999: 2, 1.0: 2}
    for progress, number in places.items():
        ctx = Context(progress=progress)
        assert phases.at(ctx) is parts[number]
        assert phases(smooth(), pictures(), labels(), ctx) == parts[number](smooth(), pictures(), labels(), ctx)
    assert phases(smooth(), pictures(), labels()) == parts[2](smooth(), pictures(), labels())  # no context: the end
    assert Phases(defences=(Standard(),), until=()).at(Context(progress=0.3)) == Standard()


def test_what_they_move_is_what_the_last_part_moves():
    parts = (DoubleBackprop(), AdversarialTraining())
    assert Sum(defences=parts).moves == "attacked_accuracy"
    assert Phases(defences=parts[::-1], until=(0.5,)).moves == "input_gradient_norm"


@pytest.mark.parametrize("weights", [(1,), (1, 2, 3), (1, -0.1)])
def test_weights_that_do_not_fit_or_are_negative_are_refused(weights):
    with pytest.raises(SpecError, match=r"a weight, 0 or more, for each of its 2"):
        Sum(defences=(Standard(), DoubleBackprop()), weights=weights)


@pytest.mark.parametrize("until", [(), (0.0,), (1.0,), (0.2, 0.5), (-0.1,), (1.1,)])
def test_borders_that_do_not_fit_or_lie_outside_the_run_are_refused(until):
    with pytest.raises(SpecError, match="one border fewer"):
        Phases(defences=(Standard(), DoubleBackprop()), until=until)


def test_borders_must_ascend_and_parts_be_defences():
    for until in ((0.5, 0.5), (0.6, 0.4)):
        with pytest.raises(SpecError, match="ascending"):
            Phases(defences=(Standard(),) * 3, until=until)
    for cls, more in ((Sum, {}), (Phases, {"until": ()})):
        with pytest.raises(SpecError, match="defence"):
            cls(defences=(), **more)
        with pytest.raises(SpecError, match="defences"):
            cls(defences=(ATTACK,), **more)
        with pytest.raises(SpecError, match="defences"):
            cls(defences=Standard(), **more)


def test_parts_are_read_from_names_with_fields():
    both = from_dict({"defence": "sum", "defences": "double_backprop weight=2, int2 weight=0.02", "weights": "1/2,1/2"})
    assert both.weights == (0.5, 0.5)
    assert both.defences == (DoubleBackprop(weight=2), from_dict({"defence": "int2", "weight": 0.02}))
    assert from_dict(to_dict(both)) == both


@pytest.mark.parametrize(
    "second",
    [
        Distillation(),
        Standard(temperature=5),
        Sum(defences=(Standard(), DoubleBackprop()), weights=(0.5, 0.5)),
        Phases(defences=(Standard(), Distillation()), until=(0.5,)),
    ],
    ids=["distillation", "temperature", "weighted", "phases"],
)
def test_no_loss_is_dropped_without_a_word(second):
    with pytest.raises(SpecError, match="put it first, or give weights"):
        Sum(defences=(DoubleBackprop(), second))
    Sum(defences=(second, DoubleBackprop()))
    Sum(defences=(DoubleBackprop(), second), weights=(1, 1))
