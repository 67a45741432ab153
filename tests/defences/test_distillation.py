"""Defensive distillation: against a teacher's softened predictions, and what the temperature does to logits."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from pellucid.attacks import FGSM
from pellucid.defences import Distillation, DistilledLabelPenalty, DoubleBackprop, Phases, Standard, Sum, with_teachers
from pellucid.errors import InputError, SpecError
from pellucid.protocols import Context
from pellucid.spec import from_dict

from .derivatives import labels, pictures, smooth, tied, weight_gradients

TASK = {"task": "train", "data": "digits", "model": "small_cnn", "steps": 1}


def taught_by(teacher):
    return Context(network=lambda task: teacher)


def other(classes=3):
    network = smooth(classes)
    with torch.no_grad():
        network[3].weight *= -3
    return network


@pytest.mark.parametrize("temperature", [1.0, 5.0, 50.0])
def test_the_loss_is_the_cross_entropy_with_softened_predictions(temperature):
    network, teacher, x = smooth(), other(), pictures()
    terms = Distillation(temperature=temperature)(network, x, labels(), taught_by(teacher))
    targets = (teacher(x).detach() / temperature).softmax(1)
    expected = functional.cross_entropy(network(x) / temperature, targets)
    assert list(terms) == ["cross_entropy"]
    torch.testing.assert_close(terms["cross_entropy"], expected)
    torch.testing.assert_close(
        weight_gradients(terms["cross_entropy"], network), weight_gradients(expected, network), rtol=1e-9, atol=1e-12
    )


def test_of_equal_predictions_the_loss_has_no_slope_and_labels_play_no_part():
    network, x = smooth(), pictures()
    with torch.no_grad():
        network[3].bias += 4.0  # the same for all classes: the same predictions
    found = [Distillation()(network, x, y, taught_by(smooth()))["cross_entropy"] for y in (labels(), 2 - labels())]
    assert torch.equal(*found)
    assert max(float(g.abs().max()) for g in weight_gradients(found[0], network)) < 1e-12


def test_the_teacher_is_asked_in_eval_mode_and_left_as_it_was():
    network, teacher, x = smooth(), tied(), pictures()
    with torch.no_grad():
        teacher[2].running_mean += 0.5
    state = {name: value.clone() for name, value in teacher.state_dict().items()}
    loss = Distillation(temperature=2.0)(network, x, labels(), taught_by(teacher))["cross_entropy"]
    assert teacher.training
    loss.backward()
    assert all(torch.equal(value, state[name]) for name, value in teacher.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in teacher.parameters())
    targets = (teacher.eval()(x) / 2).softmax(1)
    torch.testing.assert_close(loss, functional.cross_entropy(network(x) / 2, targets.detach()))


class Scores(nn.Module):
    """Logits that do not depend on the image: what is learned from the frequencies of the labels alone."""

    def __init__(self):
        super().__init__()
        self.z = nn.Parameter(torch.zeros(3, dtype=torch.float64))

    def forward(self, x):
        return self.z.expand(len(x), -1)


def learned(defence, ctx=None):
    network, x, y = Scores(), torch.zeros(12, 1, 1, 1, dtype=torch.float64), torch.arange(12).clamp(max=9) // 5
    y = torch.where(y == 1, 2 - torch.arange(12) % 2, y)
    moves = torch.optim.LBFGS(network.parameters(), lr=1, max_iter=200, tolerance_grad=1e-14, tolerance_change=1e-16)

    def closure():
        moves.zero_grad()
        loss = defence(network, x, y, ctx)["cross_entropy"] * 2500  # of the curvature 1 / T^2
        loss.backward()
        return loss

    for _ in range(5):
        moves.step(closure)
    z = network.z.detach()
    return network, z - z.mean(), y


def test_logits_learned_at_a_temperature_are_so_many_times_as_large():
    _, plain, y = learned(Standard())
    frequencies = y.bincount(minlength=3).double().log()
    torch.testing.assert_close(plain, frequencies - frequencies.mean(), rtol=1e-5, atol=1e-6)
    teacher, hot, _ = learned(Standard(temperature=50))
    torch.testing.assert_close(hot, 50 * plain, rtol=1e-4, atol=1e-4)
    _, student, _ = learned(Distillation(temperature=50), taught_by(teacher))
    torch.testing.assert_close(student, hot, rtol=1e-4, atol=1e-4)


def test_at_temperature_1_the_gradient_of_large_logits_underflows_and_fgsm_moves_nothing(linear):
    """Why distilled networks look robust to FGSM in float32; no constant is added to the gradient, no double taken."""
    network, x = linear(dtype=torch.float32), pictures().float()
    with torch.no_grad():
        network.weight *= 2
        network.bias *= 2
    y = network(x).argmax(1)
    sure = network(x).topk(2, 1).values
    sure = 50 * (sure[:, 0] - sure[:, 1]) > 110  # exp(-104) is 0 in float32
    assert bool(sure.any())
    assert bool((FGSM(eps=0.1)(network, x, y) != x).flatten(1).any(1)[sure].all())
    with torch.no_grad():
        network.weight *= 50
        network.bias *= 50
    assert torch.equal(FGSM(eps=0.1)(network, x, y)[sure], x[sure])


def test_a_missing_teacher_other_classes_and_labels_out_of_range_are_refused():
    with pytest.raises(InputError, match="learns from a teacher"):
        Distillation()(smooth(), pictures(), labels())
    with pytest.raises(InputError, match="the teacher gives 4 classes, the network 3"):
        Distillation()(smooth(), pictures(), labels(), taught_by(smooth(4)))
    with pytest.raises(InputError, match="labels"):
        Distillation()(smooth(), pictures(), labels() + 1, taught_by(other()))
    for temperature in (0, -1):
        with pytest.raises(SpecError, match="temperature"):
            Distillation(temperature=temperature)
        with pytest.raises(SpecError, match="temperature"):
            Standard(temperature=temperature)


# ----------------------------------------------------------------------------------------- naming the teachers


def test_teachers_are_named_wherever_they_are_missing_and_nowhere_else():
    named = from_dict(TASK | {"seed": 9})
    inner = Phases(defences=(Standard(), DistilledLabelPenalty(temperature=7.0)), until=(0.5,))
    whole = Sum(defences=(DoubleBackprop(), Distillation(teacher=named), inner, Distillation()), weights=(1, 2, 3, 4))
    taught = with_teachers(whole, lambda d: from_dict(TASK | {"defence": Standard(temperature=d.temperature)}))
    at = {t: from_dict(TASK | {"defence": f"standard temperature={t}"}) for t in (7, 50)}
    assert taught == Sum(
        defences=(
            DoubleBackprop(),
            Distillation(teacher=named),
            Phases(defences=(Standard(), DistilledLabelPenalty(temperature=7.0, teacher=at[7])), until=(0.5,)),
            Distillation(teacher=at[50]),
        ),
        weights=(1, 2, 3, 4),
    )
    assert with_teachers(taught, pytest.fail) == taught
    for untaught in (Standard(), from_dict("semi_supervised", "defence"), Sum(defences=(Standard(),))):
        assert with_teachers(untaught, pytest.fail) is untaught


def test_training_names_them_by_its_own_schedule():
    task = from_dict(
        TASK | {"seed": 4, "defence": {"defence": "sum", "defences": ("standard", "distillation"), "weights": (1, 1)}}
    )
    [_, distilled] = task.defence.defences
    assert distilled.teacher == from_dict(TASK | {"seed": 4, "defence": Standard(temperature=50)})


def test_the_teacher_that_is_named_is_asked_for():
    asked, named = [], from_dict(TASK)

    def network(task):
        asked.append(task)
        return other()

    for teacher in (named, None):
        Distillation(teacher=teacher)(smooth(), pictures(), labels(), Context(network=network))
    assert asked == [named, None]
