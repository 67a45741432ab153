"""The penalties on the squared gradient of a score: of uniform, distilled and own labels, and of a logit."""

import pytest
import torch
from torch.nn import functional

from pellucid.defences import (
    CertaintyPenalty,
    DistilledLabelPenalty,
    DoubleBackprop,
    EntropyPenalty,
    LogitGradientPenalty,
    Standard,
)
from pellucid.errors import InputError
from pellucid.protocols import Context
from pellucid.spec import from_dict

from .derivatives import labels, pictures, smooth, weight_gradients

WEIGHT, BATCH = 7.0, 6
ALL = [CertaintyPenalty, DistilledLabelPenalty, EntropyPenalty, LogitGradientPenalty, DoubleBackprop]


def taught_by(teacher):
    return Context(network=lambda task: teacher)


def logit_slopes(kind):
    """Return what a penalty's score has for derivatives in the logits of a softmax regression."""

    def slopes(log_p, y, q):
        p, eye = log_p.exp(), torch.eye(3, dtype=torch.float64)
        return {
            "certainty": p - 1 / 3,
            "distilled": p - q,
            "entropy": -p * (log_p - (p * log_p).sum(1, keepdim=True)),
            "true": eye[y],
            "predicted": eye[p.argmax(1)],
            "sum": torch.ones_like(p),
        }[kind]

    return slopes


@pytest.mark.parametrize("normalisation", ["paper", "paper_sum", "code"])
@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("certainty", CertaintyPenalty),
        ("distilled", lambda **given: DistilledLabelPenalty(temperature=5.0, **given)),
        ("entropy", EntropyPenalty),
        ("true", LogitGradientPenalty),
        ("predicted", lambda **given: LogitGradientPenalty(logits="predicted", **given)),
        ("sum", lambda **given: LogitGradientPenalty(logits="sum", **given)),
    ],
)
def test_terms_of_a_softmax_regression_have_their_closed_form(linear, kind, make, normalisation):
    network, teacher, x, y = linear(), linear(seed=1), pictures(), labels()
    log_p = network(x).detach().log_softmax(1)
    q = (teacher(x).detach() / 5).softmax(1)
    squares = (logit_slopes(kind)(log_p, y, q) @ network.weight.detach()).square().sum(1)
    entropy = -log_p[torch.arange(BATCH), y]
    expected = {
        "paper": (entropy.mean(), WEIGHT * squares.mean()),
        "paper_sum": (entropy.sum(), WEIGHT * squares.sum()),
        "code": (entropy.mean(), WEIGHT * squares.sum() / (2 * BATCH**2)),
    }[normalisation]
    terms = make(weight=WEIGHT, normalisation=normalisation)(network, x, y, taught_by(teacher))
    assert list(terms) == ["cross_entropy", "gradient_penalty"]
    torch.testing.assert_close(tuple(v.detach() for v in terms.values()), expected)


@pytest.mark.parametrize("cls", ALL)
def test_no_weight_is_plain_training(cls):
    network, x, y = smooth(), pictures(), labels()
    terms = cls(weight=0.0)(network, x, y, taught_by(smooth()))
    assert terms["gradient_penalty"].item() == 0
    plain = Standard()(network, x, y)["cross_entropy"]
    torch.testing.assert_close(weight_gradients(sum(terms.values()), network), weight_gradients(plain, network))


@pytest.mark.parametrize("cls", ALL)
def test_the_callers_images_are_left_alone_and_gradients_are_on_where_they_are_off(cls):
    network, x = smooth(), pictures()
    with torch.no_grad():
        terms = cls()(network, x, labels(), taught_by(smooth()))
    assert not x.requires_grad
    assert any(bool((g != 0).any()) for g in weight_gradients(terms["gradient_penalty"], network))


def test_the_entropy_of_predictions_held_fixed_has_no_gradient():
    network, x, y = smooth(), pictures(), labels()
    fixed, free = (
        EntropyPenalty(weight=1.0, detach=detach)(network, x, y)["gradient_penalty"] for detach in (True, False)
    )
    assert 0 <= fixed.item() < 1e-30
    assert max(float(g.abs().max()) for g in weight_gradients(fixed, network)) < 1e-15
    assert free.item() > 1e-3
    assert max(float(g.abs().max()) for g in weight_gradients(free, network)) > 1e-3


def test_certain_and_uniform_predictions_have_no_entropy_penalty(linear):
    for gain in (0.0, 1e4):
        network = linear()
        with torch.no_grad():
            network.weight *= gain
            network.bias.zero_()
        assert EntropyPenalty(weight=1.0)(network, pictures(), labels())["gradient_penalty"].item() < 1e-12


def test_distilled_labels_lie_between_the_teachers_prediction_and_uniform_ones():
    network, teacher, x, y = smooth(), smooth(), pictures(), labels()
    with torch.no_grad():
        teacher[3].weight *= -2

    def penalty(temperature):
        defence = DistilledLabelPenalty(weight=1.0, temperature=temperature)
        return defence(network, x, y, taught_by(teacher))["gradient_penalty"]

    own = DoubleBackprop(weight=1.0)(network, x, teacher(x).argmax(1))["gradient_penalty"]
    torch.testing.assert_close(penalty(1e-3), own)
    uniform = CertaintyPenalty(weight=1.0)(network, x, y)["gradient_penalty"]
    torch.testing.assert_close(penalty(1e9), uniform, rtol=1e-6, atol=0)


def test_the_cross_entropy_keeps_the_true_labels_and_the_teacher_its_state():
    network, teacher = smooth(), smooth().train()
    before = {name: p.clone() for name, p in teacher.named_parameters()}
    terms = DistilledLabelPenalty()(network, pictures(), labels(), taught_by(teacher))
    torch.testing.assert_close(terms["cross_entropy"], functional.cross_entropy(network(pictures()), labels()))
    sum(terms.values()).backward()
    assert teacher.training
    assert all(p.grad is None and torch.equal(p, before[name]) for name, p in teacher.named_parameters())


def test_the_teacher_that_is_named_is_asked_for():
    asked = []

    def network(task):
        asked.append(task)
        return smooth()

    teacher = from_dict({"task": "train", "data": "digits", "model": "small_cnn", "steps": 1, "batch_size": 2})
    for task in (teacher, None):
        DistilledLabelPenalty(teacher=task)(smooth(), pictures(), labels(), Context(network=network))
    assert asked == [teacher, None]


def test_a_teacher_that_is_missing_or_knows_other_classes_is_refused():
    for ctx in (None, Context()):
        with pytest.raises(InputError, match=r"Context\(network=lambda task: teacher\)"):
            DistilledLabelPenalty()(smooth(), pictures(), labels(), ctx)
    with pytest.raises(InputError, match="4 classes, the network 3"):
        DistilledLabelPenalty()(smooth(), pictures(), labels(), taught_by(smooth(4)))


def test_weights_of_the_authors_are_the_defaults():
    assert CertaintyPenalty().weight == 1000 / 512
    assert DistilledLabelPenalty().weight == CertaintyPenalty().weight
