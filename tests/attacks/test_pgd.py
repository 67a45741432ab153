import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from pellucid.attacks import FGSM, PGD
from pellucid.errors import SpecError
from pellucid.maths import counted, cross_entropy, margin
from pellucid.metrics import predict
from pellucid.rng import Stream


@pytest.fixture
def images(generator):
    return torch.rand(12, 1, 3, 4, generator=generator, dtype=torch.float64)


@pytest.fixture
def middle(images):
    return 0.4 + 0.2 * images


@pytest.fixture
def rough(generator):
    """A network with many local maxima."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 4))
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * (8 / p.shape[-1] ** 0.5 if p.ndim == 2 else 1))
    return network.double()


def towards_the_other_class(network, labels):
    difference = (network.weight[1] - network.weight[0]).detach().view(1, 1, 3, 4)
    return difference * torch.where(labels == 0, 1.0, -1.0).view(-1, 1, 1, 1)


@pytest.mark.parametrize("random_start", [True, False])
@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_linf_reaches_the_worst_point_of_ball_and_box(linear, images, random_start, loss):
    network, labels = linear(classes=2), torch.arange(12) % 2
    attack = PGD(eps=0.2, steps=12, random_start=random_start, loss=loss)
    worst = (images + 0.2 * towards_the_other_class(network, labels).sign()).clamp(0, 1)
    torch.testing.assert_close(attack(network, images, labels, rng=Stream(1)), worst, rtol=0, atol=1e-12)


@pytest.mark.parametrize("random_start", [True, False])
def test_l2_reaches_the_worst_point_of_the_ball(linear, middle, random_start):
    network, labels = linear(classes=2), torch.arange(12) % 2
    attack = PGD(norm="l2", eps=0.2, steps=100, step_size=0.05, random_start=random_start)
    direction = towards_the_other_class(network, labels)
    worst = middle + 0.2 * direction / direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    torch.testing.assert_close(attack(network, middle, labels, rng=Stream(1)), worst, rtol=0, atol=1e-5)


def test_a_step_beyond_the_ball_ends_in_its_corner(linear, middle):
    network, labels = linear(classes=2), torch.arange(12) % 2
    attack = PGD(eps=0.003, step_size=0.1, steps=1, random_start=False)
    expected = middle + 0.003 * towards_the_other_class(network, labels).sign()
    torch.testing.assert_close(attack(network, middle, labels), expected)


def test_steps_have_the_length_that_was_asked_for(linear, middle):
    network, labels = linear(classes=2), torch.arange(12) % 2
    for step, steps in ((0.01, 3), (0.02, 2)):
        given = PGD(norm="l2", eps=0.5, step_size=step, steps=steps, random_start=False)
        moved = (given(network, middle, labels) - middle).flatten(1).norm(dim=1)
        torch.testing.assert_close(moved, torch.full_like(moved, step * steps))
    default = PGD(norm="l2", eps=0.1, steps=1000, random_start=False)
    one = dataclasses.replace(default, steps=1, step_size=2.5 * 0.1 / 1000)
    first_of_default = []
    default.maximise(lambda x, rows: first_of_default.append(x.detach()) or x.flatten(1).sum(1), middle)
    torch.testing.assert_close(first_of_default[1], one.maximise(lambda x, rows: x.flatten(1).sum(1), middle))


def test_one_full_step_is_fgsm(linear, images):
    network, labels = linear(classes=4), torch.arange(12) % 4
    attack = PGD(eps=0.1, step_size=0.1, steps=1, random_start=False)
    torch.testing.assert_close(attack(network, images, labels), FGSM(eps=0.1)(network, images, labels))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_with_a_target_its_probability_reaches_the_maximum_of_the_ball(linear, middle, norm):
    network, labels = linear(classes=2), torch.arange(12) % 2
    untargeted = PGD(norm=norm, eps=0.1, steps=100, random_start=False)
    targeted = dataclasses.replace(untargeted, target="next")  # of two classes: the same thing
    torch.testing.assert_close(
        targeted(network, middle, labels), untargeted(network, middle, labels), rtol=0, atol=1e-6
    )
    away = untargeted(network, middle, labels, target=labels)
    assert (cross_entropy(network(away), labels) < cross_entropy(network(middle), labels)).all()


def test_random_targets_follow_the_sample_not_the_batch(linear, images):
    network, labels = linear(classes=10), torch.arange(12) % 10
    attack = PGD(eps=0.1, steps=4, target="random")
    together = attack(network, images, labels, rng=Stream(3))
    rows = torch.tensor([7, 2])
    alone = attack(network, images[rows], labels[rows], rng=Stream(3).take(rows))
    torch.testing.assert_close(alone, together[rows], rtol=0, atol=1e-12)


def test_the_start_is_random_by_stream(rough, images):
    labels = predict(rough, images)
    attack = PGD(eps=0.1, steps=1)
    first = attack(rough, images, labels, rng=Stream(1))
    assert torch.equal(attack(rough, images, labels, rng=Stream(1)), first)
    assert not torch.equal(attack(rough, images, labels, rng=Stream(2)), first)
    assert torch.equal(attack(rough, images, labels), attack(rough, images, labels, rng=Stream(0)))


@pytest.mark.parametrize("keep", ["last", "best"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_more_restarts_are_never_worse_and_sometimes_better(rough, images, norm, keep):
    labels = predict(rough, images)
    eps = 0.1 if norm == "linf" else 0.4
    losses, fooled = [], []
    for restarts in (1, 2, 4, 8):
        attack = PGD(norm=norm, eps=eps, steps=4, restarts=restarts, keep=keep)
        with torch.no_grad():
            logits = rough(attack(rough, images, labels, rng=Stream(5)))
        losses.append(cross_entropy(logits, labels))
        fooled.append(logits.argmax(1) != labels)
    for fewer, more in zip(range(3), range(1, 4)):
        assert (fooled[more] | ~fooled[fewer]).all()
        same = fooled[more] == fooled[fewer]
        assert (losses[more] >= losses[fewer] - 1e-12)[same].all()
    assert (losses[3] > losses[0] + 1e-3).any()


def test_the_best_iterate_is_at_least_as_good_as_the_last(rough, images):
    labels = predict(rough, images)
    losses = {}
    for keep in ("last", "best"):
        attack = PGD(eps=0.1, steps=6, step_size=0.1, keep=keep)
        with torch.no_grad():
            losses[keep] = cross_entropy(rough(attack(rough, images, labels)), labels)
    assert (losses["best"] >= losses["last"]).all()
    assert (losses["best"] > losses["last"] + 1e-6).any()


def steps_to_fool(network, images, labels, step_size):
    """How many steps a linear network of two classes withstands, without box and ball."""
    difference = network.weight[1] - network.weight[0]
    margin = (network(images) * torch.where(labels == 0, 1.0, -1.0)[:, None]).detach()
    lead = margin[:, 0] - margin[:, 1]  # own logit minus the other
    reach = step_size * float(difference.detach().abs().sum())
    return [max(0, math.floor(m / reach) + 1) for m in lead.tolist()]


def test_samples_that_were_fooled_leave_and_cost_nothing_more(linear, middle):
    network, steps = linear(classes=2), 6
    labels = predict(network, middle)
    labels[0] = 1 - labels[0]
    needed = steps_to_fool(network, middle, labels, 0.004)
    needed[0] = 0
    assert 0 in needed
    assert any(1 < n < steps for n in needed)
    assert any(n >= steps for n in needed)
    attack = PGD(eps=0.5, step_size=0.004, steps=steps, random_start=False)
    with counted() as passes:
        x_adv = attack(network, middle, labels, stop_when_fooled=True)
    assert passes.forward == passes.backward == sum(min(n + 1, steps) for n in needed)
    moved = ((x_adv - middle).abs().amax((1, 2, 3)) / 0.004).round().long().tolist()
    assert moved == [min(n, steps) for n in needed]
    assert torch.equal(predict(network, x_adv) != labels, torch.tensor(needed) <= steps)
    with counted() as passes:
        attack(network, middle, labels)
    assert passes.forward == passes.backward == steps * 12


def test_only_samples_still_standing_are_started_again(linear, middle):
    network, steps = linear(classes=2), 3
    labels = predict(network, middle)
    needed = steps_to_fool(network, middle, labels, 0.01)
    standing = sum(n > steps for n in needed)
    assert 0 < standing < 12
    attack = PGD(eps=0.5, step_size=0.01, steps=steps, random_start=False, restarts=4)
    with counted() as passes:
        attack(network, middle, labels, stop_when_fooled=True)
    first = sum(min(n, steps) + 1 for n in needed)  # each restart is judged: one forward more
    assert passes.forward == first + 3 * standing * (steps + 1)
    with counted() as passes:
        attack(network, middle, labels)
    assert passes.forward == 4 * 12 * (steps + 1)


def test_stopping_early_never_loses_a_success(rough, images):
    labels = predict(rough, images)
    attack = PGD(eps=0.08, steps=6, restarts=2)
    full = predict(rough, attack(rough, images, labels)) != labels
    early = predict(rough, attack(rough, images, labels, stop_when_fooled=True)) != labels
    assert (early | ~full).all()
    assert 0 < int(early.sum()) < 12


def test_a_sample_is_started_again_with_its_own_numbers_whoever_has_left(rough, images):
    labels = predict(rough, images)
    attack = PGD(eps=0.06, steps=3, restarts=4)
    together = attack(rough, images, labels, rng=Stream(4), stop_when_fooled=True)
    once = dataclasses.replace(attack, restarts=1)(rough, images, labels, rng=Stream(4))
    assert 0 < int((predict(rough, once) != labels).sum()) < 11
    for n in range(12):
        row = torch.tensor([n])
        alone = attack(rough, images[row], labels[row], rng=Stream(4).take(row), stop_when_fooled=True)
        torch.testing.assert_close(alone, together[row], rtol=0, atol=1e-9)


def test_any_objective_can_be_maximised_with_its_rows(middle):
    directions = torch.linspace(-1, 1, 12, dtype=torch.float64).view(-1, 1, 1, 1)
    attack = PGD(eps=0.05, steps=10, restarts=2)
    moved = attack.maximise(lambda x, rows: (x * directions[rows]).flatten(1).sum(1), middle)
    torch.testing.assert_close(moved, middle + 0.05 * directions.sign())


def test_restarts_of_an_objective_keep_the_highest_value(images):
    def waves(x, rows):
        return torch.sin(40 * x).flatten(1).sum(1) + x.flatten(1).sum(1)

    values = [
        waves(PGD(eps=0.2, steps=5, step_size=0.01, restarts=r).maximise(waves, images, rng=Stream(2)), None)
        for r in (1, 3, 9)
    ]
    assert (values[0] <= values[1]).all()
    assert (values[1] <= values[2]).all()
    assert (values[2] > values[0] + 0.1).any()


def test_train_mode_leaves_statistics_and_the_global_generator_alone(images):
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Dropout(0.5), nn.Linear(12, 3)).double()
    with torch.no_grad():
        network[3].weight.copy_(torch.sin(torch.arange(36.0)).view(3, 12))
    before = {k: v.clone() for k, v in network.state_dict().items()}
    generator = torch.get_rng_state()
    attack = PGD(eps=0.1, steps=3, mode="train")
    moved = attack(network, images, torch.arange(12) % 3, rng=Stream(1))
    assert not torch.equal(moved, PGD(eps=0.1, steps=3)(network, images, torch.arange(12) % 3, rng=Stream(1)))
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)


def test_the_caller_may_have_switched_gradients_off(linear, images):
    network, labels = linear(classes=2), torch.arange(12) % 2
    attack = PGD(eps=0.1, steps=3)
    with torch.no_grad():
        quiet = attack(network, images, labels)
        grown = attack.maximise(lambda x, rows: x.flatten(1).sum(1), images)
    assert torch.equal(quiet, attack(network, images, labels))
    assert (grown > images).any()


def released(network, x, y, eps, step, steps, direction, order):
    """PGD in l2, image by image, in NumPy: Zhang & Zhu's released order ends with one more clip to [0, 1]."""
    out = []
    for n in range(len(x)):
        clean, point = x[n].numpy(), x[n].numpy()
        for _ in range(steps):
            leaf = torch.from_numpy(point)[None].requires_grad_(True)
            (slope,) = torch.autograd.grad(cross_entropy(network(leaf), y[n : n + 1]).sum(), leaf)
            slope = slope[0].numpy()
            point = point + step * (np.sign(slope) if direction == "sign" else slope / np.sqrt((slope**2).sum()))
            if order == "box_ball":
                point = np.clip(point, 0, 1)
            delta = point - clean
            point = clean + delta * min(1, eps / np.sqrt((delta**2).sum()))
            if order == "ball_box":
                point = np.clip(point, 0, 1)
        out.append(torch.from_numpy(np.clip(point, 0, 1)))
    return torch.stack(out)


@pytest.mark.parametrize("order", ["ball_box", "box_ball"])
@pytest.mark.parametrize("direction", ["steepest", "sign"])
def test_sign_steps_and_both_orders_are_their_definitions(rough, images, direction, order):
    y = torch.arange(12) % 4
    eps, step = 0.5, 0.06 if direction == "sign" else 0.2
    attack = PGD(norm="l2", eps=eps, step_size=step, steps=8, random_start=False, direction=direction, order=order)
    expected = released(rough, images, y, eps, step, 8, direction, order)
    torch.testing.assert_close(attack(rough, images, y), expected, rtol=0, atol=1e-12)
    others = [released(rough, images, y, eps, step, 8, direction, o) for o in ("ball_box", "box_ball")]
    assert float((others[0] - others[1]).abs().max()) > 1e-3  # the box plays a part, and the orders differ


def test_sign_steps_reach_the_l2_ball_where_normalised_ones_of_that_size_cannot(linear, middle):
    network, y = linear(classes=2), torch.arange(12) % 2
    attack = PGD(norm="l2", eps=0.12, step_size=0.005, steps=10, random_start=False)
    moved = {
        way: (dataclasses.replace(attack, direction=way)(network, middle, y) - middle).flatten(1).norm(dim=1)
        for way in ("steepest", "sign")
    }
    torch.testing.assert_close(moved["steepest"], torch.full_like(moved["steepest"], 0.05))
    torch.testing.assert_close(moved["sign"], torch.full_like(moved["sign"], 0.12))
    one = PGD(norm="l2", eps=0.12, steps=10, direction="sign")
    torch.testing.assert_close(  # by default a step has the same length in both directions
        dataclasses.replace(one, random_start=False, steps=1, eps=10, step_size=one._step(middle))
        .maximise(lambda x, rows: x.flatten(1).sum(1), middle)
        .sub(middle)
        .flatten(1)
        .norm(dim=1),
        torch.full((12,), 2.5 * 0.12 / 10, dtype=torch.float64),
    )


def leads(network, x, y):
    with torch.no_grad():
        return margin(network(x), y)


@pytest.mark.parametrize("targeted", [False, True])
def test_images_stay_where_the_margin_is_tolerated(linear, middle, targeted):
    network, y = linear(classes=3), torch.arange(12) % 3
    goal = (y + 1) % 3
    attack = PGD(eps=0.3, step_size=0.005, steps=60, random_start=False, loss="margin", tolerance=0.5)
    aim = {"target": goal} if targeted else {}
    out, free = (a(network, middle, y, **aim) for a in (attack, dataclasses.replace(attack, tolerance=None)))
    lead = -leads(network, out, goal) if targeted else leads(network, out, y)
    reach = -leads(network, free, goal) if targeted else leads(network, free, y)
    step = 2 * 0.005 * float(network.weight.detach().abs().sum(1).max())  # what one step can move the margin by
    arrived = reach > 0.5 + step
    assert bool(arrived.any())
    assert bool((lead[arrived] >= 0.5).all())
    clean = -leads(network, middle, goal) if targeted else leads(network, middle, y)
    assert bool((lead[arrived] <= torch.maximum(clean, clean.new_tensor(0.5 + step))[arrived]).all())
    assert torch.equal(out[clean > 0.5], middle[clean > 0.5])
    assert float(reach.max()) > 0.5 + 2 * step
    with pytest.raises(SpecError, match="loss margin only"):
        PGD(eps=0.1, tolerance=0.1)


def test_a_tolerance_of_nought_ends_just_behind_the_boundary(rough, images):
    y = predict(rough, images)
    attack = PGD(eps=0.1, steps=20, step_size=0.002, random_start=False, loss="margin")
    early = attack(rough, images, y, stop_when_fooled=True)
    held = dataclasses.replace(attack, tolerance=0.0)(rough, images, y)
    fooled = predict(rough, early) != y
    assert 0 < int(fooled.sum()) < 12
    torch.testing.assert_close(held, early, rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", [{"tolerance": 0.3, "loss": "margin"}, {"direction": "sign", "order": "box_ball"}])
def test_stopping_early_gives_the_first_iterate_that_fooled(rough, images, options):
    y = predict(rough, images)
    attack = PGD(norm="l2", eps=0.3, steps=6, random_start=False, step_size=0.03, **options)
    iterates = [images, *(dataclasses.replace(attack, steps=k)(rough, images, y) for k in range(1, 7))]
    fooled = torch.stack([predict(rough, x) != y for x in iterates])
    first = [int(column.nonzero()[0]) if column.any() else 6 for column in fooled.T]
    assert len(set(first)) > 2
    out = attack(rough, images, y, stop_when_fooled=True)
    torch.testing.assert_close(out, torch.stack([iterates[first[n]][n] for n in range(12)]), rtol=0, atol=1e-12)


def test_options_that_change_nothing_for_linf_are_refused():
    for options in ({"direction": "sign"}, {"order": "box_ball"}):
        with pytest.raises(SpecError, match="norm l2 only"):
            PGD(eps=0.1, **options)
        assert PGD(norm="l2", eps=0.1, **options)


# ------------------------------------------------------------------------------------------- the normal start


def starts(x, seed=1, **options):
    """Return where an attack starts: the first points at which it asks for its objective."""
    attack, asked = PGD(**{"eps": 0.3, "steps": 1, "start": "normal"} | options), []
    attack.maximise(lambda point, rows: asked.append(point.detach()) or point.flatten(1).sum(1), x, rng=Stream(seed))
    return asked[0]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_normal_start_has_mean_0_and_a_thousandth_for_deviation(norm):
    grey = torch.full((500, 1, 4, 5), 0.5, dtype=torch.float64)
    drawn = (starts(grey, norm=norm) - grey).flatten() * 1000
    assert len(drawn) == 10_000
    assert abs(float(drawn.mean())) < 4 / 100
    assert float(drawn.std()) == pytest.approx(1, abs=4 / (2 * 10_000) ** 0.5)
    for within, share in ((1, 0.6827), (2, 0.9545), (3, 0.9973)):
        assert float((drawn.abs() < within).double().mean()) == pytest.approx(share, abs=0.02)
    assert 3 < float(drawn.abs().max()) < 6
    uniform = starts(grey, norm="linf", start="uniform") - grey
    assert float(uniform.abs().max()) > 0.29


def test_a_normal_start_is_brought_into_ball_and_range(images):
    for norm, size in (("linf", lambda d: d.abs().amax(1)), ("l2", lambda d: d.norm(dim=1))):
        shifts = (starts(0.25 + images / 2, norm=norm, eps=5e-4) - (0.25 + images / 2)).flatten(1)
        assert float(size(shifts).max()) <= 5e-4 + 1e-12
        assert bool((size(shifts) > 4e-4).all())  # it is cut, not scaled down
    edges = starts(images.round())
    assert (float(edges.min()), float(edges.max())) == (0, 1)
    moved = (edges != images.round()).double().mean()
    assert 0.3 < float(moved) < 0.7  # half of the noise points outwards
    assert torch.equal(starts(images, eps=0.0), images)


def test_normal_starts_are_those_of_the_sample_the_seed_and_the_restart(images):
    everyone, rows = starts(images), torch.tensor([7, 2])
    attack = PGD(eps=0.3, steps=1, step_size=0.0, start="normal")
    some = attack.maximise(lambda x, rows: x.flatten(1).sum(1), images[rows], rng=Stream(1).take(rows))
    assert torch.equal(some, everyone[rows])
    assert not torch.equal(starts(images, seed=2), everyone)
    asked = []
    again = dataclasses.replace(attack, restarts=2)
    again.maximise(lambda x, rows: asked.append(x.detach()) or x.flatten(1).sum(1), images, rng=Stream(1))
    assert torch.equal(asked[0], everyone)
    assert not torch.equal(asked[0], asked[-1])


def test_a_normal_start_is_where_the_climb_begins(linear, images):
    network, labels = linear(classes=2), torch.arange(12) % 2
    attack = PGD(eps=0.2, steps=3, step_size=0.004, start="normal")
    begun = starts(images, eps=0.2)
    expected = (begun + 3 * 0.004 * towards_the_other_class(network, labels).sign()).clamp(0, 1)
    inside = (begun - images).abs() < 0.01
    found = attack(network, images, labels, rng=Stream(1))
    middle_pixels = inside & (begun > 0.02) & (begun < 0.98)
    torch.testing.assert_close(found[middle_pixels], expected[middle_pixels])
    with pytest.raises(SpecError, match="a normal start with random_start only"):
        PGD(eps=0.1, start="normal", random_start=False)
