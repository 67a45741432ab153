"""Interpretability-aware training against equation 7 written out, class by class and position by position."""

import dataclasses
import math

import pytest
import torch
from torch.nn import functional

from pellucid.attacks import PGD
from pellucid.data import Digits
from pellucid.defences import INTERPRETABILITY_AWARE, InterpretabilityAware, Standard
from pellucid.errors import InputError, SpecError
from pellucid.interpreters import CAM, AttackDifference, GradCAM, Gradient, IntegratedGradients, SmoothGrad
from pellucid.maths import counted
from pellucid.models import SmallCNN
from pellucid.rng import Stream, derive, global_seed
from pellucid.schedule import Ramp
from pellucid.spec import from_dict, name_of

from .derivatives import weight_gradients
from .stand_ins import CLASSES, SHORT, Handed, N, X, Y, here, shifted, tiny

NEAR = shifted(X)


def class_maps(network, image):
    """Return the class activation maps of one image by equation 1, as lists of positions."""
    features = network.feature_map(image[None])[0].flatten(1)
    channels, positions = features.shape
    return [
        [sum(network.head.weight[c, k] * features[k, i] for k in range(channels)) for i in range(positions)]
        for c in range(CLASSES)
    ]


def gradient_maps(network, image):
    rows = torch.func.jacrev(lambda x: network(x[None])[0])(image)
    return [list(row.flatten()) for row in rows]


def moved(before, after, p, positions):
    """Return the norm of the difference of two maps, lists of positions."""
    share = len(before) if positions == "mean" else 1
    sizes = [(b - a).abs() / share for b, a in zip(before, after)]
    return sum(sizes) if p == 1 else sum(s**2 for s in sizes).sqrt()


def equation_7(network, image, near, y, *, classes="all", form="paper", p=1, positions="sum", maps=class_maps, held=()):
    """Return D~(x, x') of one image; `held` names what no gradient flows through."""
    before, after, scores = maps(network, image), maps(network, near), network(near[None])[0]
    before = [[v.detach() for v in row] for row in before] if "before" in held else before
    after = [[v.detach() for v in row] for row in after] if "after" in held else after
    scores = scores.detach() if "weights" in held else scores
    own = moved(before[y], after[y], p, positions)
    if classes == "one":
        return own
    others = [c for c in range(CLASSES) if c != y]
    total = sum(scores[c].exp() for c in others)
    rest = sum(scores[c].exp() / total * moved(before[c], after[c], p, positions) for c in others)
    return (own + rest) / 2 if form == "paper" else own + rest


def mean_discrepancy(network, **options):
    return sum(equation_7(network, x, near, int(y), **options) for x, near, y in zip(X, NEAR, Y)) / N


@pytest.mark.parametrize("adversarial", [False, True])
@pytest.mark.parametrize(
    ("classes", "form", "p", "positions"),
    [
        ("all", "paper", 1, "sum"),
        ("all", "code", 1, "sum"),
        ("all", "paper", 2, "mean"),
        ("one", "paper", 1, "sum"),
        ("one", "code", 2, "mean"),
    ],
)
def test_terms_are_those_of_equation_7(classes, form, p, positions, adversarial):
    network = tiny()
    defence = InterpretabilityAware(
        weight=0.3,
        attack=Handed(),
        classes=classes,
        form=form,
        p=p,
        positions=positions,
        adversarial=adversarial,
    )
    terms = defence(network, X, Y, here())
    apart = mean_discrepancy(network, classes=classes, form=form, p=p, positions=positions)
    loss = functional.cross_entropy(network(NEAR if adversarial else X), Y)
    expected = {"cross_entropy": torch.zeros_like(loss), "adversarial_cross_entropy": loss, "discrepancy": 0.3 * apart}
    if not adversarial:
        expected = {"cross_entropy": loss, "discrepancy": 0.3 * apart}
    assert list(terms) == list(expected)
    torch.testing.assert_close(terms, expected)
    assert apart > 1e-3


def test_the_code_weighs_twice_as_much_and_the_mean_is_over_positions():
    network = tiny()

    def apart(**options):
        return InterpretabilityAware(attack=Handed(), **options)(network, X, Y)["discrepancy"]

    torch.testing.assert_close(apart(form="code"), 2 * apart())
    positions = network.feature_map(X).shape[2:].numel()
    assert positions > 1
    torch.testing.assert_close(apart(positions="mean"), apart() / positions)
    torch.testing.assert_close(apart(classes="one", form="code"), apart(classes="one"))


@pytest.mark.parametrize("held", ["before", "after", "weights"])
def test_gradients_flow_through_both_maps_and_the_weights(held):
    network = tiny()
    terms = InterpretabilityAware(weight=1.0, attack=Handed())(network, X, Y)
    found = weight_gradients(terms["discrepancy"], network)
    torch.testing.assert_close(found, weight_gradients(mean_discrepancy(network), network))
    without = weight_gradients(mean_discrepancy(network, held=(held,)), network)
    distance = sum(float((a - b).square().sum()) for a, b in zip(found, without)) ** 0.5
    assert distance > 1e-2 * sum(float(a.square().sum()) for a in found) ** 0.5


# ------------------------------------------------------------------------------------------------ no attack


@pytest.mark.parametrize("inner", ["discrepancy", "cross_entropy"])
@pytest.mark.parametrize("adversarial", [False, True])
def test_where_eps_is_0_no_attack_is_run_and_the_loss_is_the_plain_one(inner, adversarial):
    network, ramp = tiny(), Ramp(start=0.0, stop=0.3, begin=10, until=20, unit="steps")
    plain = Standard()(network, X, Y)["cross_entropy"]
    for attack, eps in ((Handed(eps=0.0), None), (PGD(eps=0), None), (PGD(eps=0.3), ramp)):
        defence = InterpretabilityAware(attack=attack, eps=eps, inner=inner, adversarial=adversarial, weight=1.0)
        with counted() as passes:
            terms = defence(network, X, Y, here(step=10))
        assert (passes.forward, passes.backward) == (N, 0)
        assert getattr(attack, "silent", True)
        assert terms["discrepancy"].item() == 0
        assert torch.equal(sum(terms.values()), plain)
    assert defence(network, X, Y, here(step=12))["discrepancy"].item() > 0


def test_the_ramp_sets_the_size_of_the_attack():
    network, ramp = tiny(), Ramp(start=0.0, stop=0.2)
    for inner in ("discrepancy", "cross_entropy"):
        attack = dataclasses.replace(SHORT, eps=9.0)
        moving = InterpretabilityAware(attack=attack, eps=ramp, inner=inner)(network, X, Y, here(progress=0.5))
        still = InterpretabilityAware(attack=dataclasses.replace(attack, eps=0.1), inner=inner)(network, X, Y, here())
        assert moving == still


def test_without_weight_it_is_plain_training_and_no_attack_is_run():
    network, attack = tiny(), Handed()
    terms = InterpretabilityAware(weight=0.0, attack=attack)(network, X, Y)
    assert attack.silent
    assert torch.equal(sum(terms.values()), Standard()(network, X, Y)["cross_entropy"])


# ------------------------------------------------------------------------------------------ the inner attack


@pytest.fixture(scope="module")
def learned():
    """A network that knows the digits, smooth, and digits that it has not seen."""
    train, test = Digits().load("train"), Digits().load("test")
    x, near = (functional.avg_pool2d(split.images(), 4) for split in (train, test))
    with global_seed(0):
        network = SmallCNN(filters=(8, 8, 16), activation="softplus").build(1, (7, 7), 10)
    moves = torch.optim.Adam(network.parameters(), lr=1e-2)
    for step in range(150):
        rows = Stream(derive(8, step)).integers(torch.empty(64, 0), len(x))
        moves.zero_grad()
        functional.cross_entropy(network(x[rows]), train.labels[rows]).backward()
        moves.step()
    assert float((network(near).argmax(1) == test.labels).float().mean()) > 0.8
    return network, near[:32], test.labels[:32]


@pytest.mark.parametrize("classes", ["all", "one"])
def test_each_inner_attack_is_the_better_one_at_what_it_maximises(learned, classes):
    network, x, y = learned
    attack = PGD(eps=0.05, steps=8, step_size=0.015, restarts=4)  # the distance of maps has many hills
    found = {
        inner: InterpretabilityAware(attack=attack, inner=inner, classes=classes).losses(network, x, y, here(n=32))
        for inner in ("discrepancy", "cross_entropy")
    }
    assert torch.equal(found["discrepancy"].clean, found["cross_entropy"].clean)
    assert found["discrepancy"].moved.mean() > 1.1 * found["cross_entropy"].moved.mean()
    assert found["cross_entropy"].attacked.mean() > 1.1 * found["discrepancy"].attacked.mean()


@pytest.mark.parametrize("classes", ["all", "one"])
@pytest.mark.parametrize("adversarial", [False, True])
def test_the_inner_objective_is_the_discrepancy_or_what_the_loss_sums(adversarial, classes):
    network, rows, values = tiny(), torch.tensor([3, 1]), []

    def probe(objective, x):
        point = NEAR[rows].requires_grad_(True)
        values.append(objective(point, rows))
        (slope,) = torch.autograd.grad(values[0].sum(), point)
        assert bool((slope.flatten(1).norm(dim=1) > 1e-3).all())
        with torch.no_grad():
            values.append(objective(NEAR[rows], rows))

    attack = Handed(probe=probe)
    InterpretabilityAware(weight=0.3, classes=classes, adversarial=adversarial, attack=attack)(network, X, Y)
    alone = [equation_7(network, X[n], NEAR[n], int(Y[n]), classes=classes) for n in rows.tolist()]
    expected = torch.stack(alone)
    if adversarial:
        expected = functional.cross_entropy(network(NEAR[rows]), Y[rows], reduction="none") + 0.3 * expected
    for found in values:
        torch.testing.assert_close(found.detach(), expected.detach())


@pytest.mark.parametrize("adversarial", [False, True])
def test_the_other_inner_attack_is_called_as_it_is(adversarial):
    attack = Handed()
    InterpretabilityAware(inner="cross_entropy", adversarial=adversarial, attack=attack)(tiny(), X, Y, here())
    assert not attack.climbed
    [(x, y, rng)] = attack.asked
    assert torch.equal(x, X)
    assert torch.equal(y, Y)
    assert rng.seed == here().stream.seed
    assert torch.equal(rng.positions, here().positions)


@pytest.mark.parametrize("steps", [1, 5])
def test_what_a_step_costs(steps):
    attack = dataclasses.replace(SHORT, steps=steps)
    for inner, again in (("discrepancy", 1), ("cross_entropy", 0)):
        with counted() as passes:
            InterpretabilityAware(attack=attack, inner=inner)(tiny(), X, Y)
        # the clean images and x' in the update, x once more inside an attack on maps, and the steps themselves
        assert (passes.forward, passes.backward) == (N * (2 + again + steps), N * steps)


# ---------------------------------------------------------------------------------------------- interpreters


@pytest.mark.parametrize(
    "interpreter",
    [CAM(), Gradient(), IntegratedGradients(steps=2), GradCAM(relu=False)],
    ids=name_of,
)
def test_any_interpreter_that_can_be_differentiated_trains(interpreter):
    network, defence = tiny(), InterpretabilityAware(weight=1.0, attack=Handed(), interpreter=interpreter, p=2)
    found = weight_gradients(defence(network, X, Y)["discrepancy"], network)
    directions = [Stream(derive(1, str(n))).normal(p[None])[0].detach() for n, p in enumerate(network.parameters())]
    slope = sum(float((g * d).sum()) for g, d in zip(found, directions))

    def apart(step):
        with torch.no_grad():
            for p, d in zip(network.parameters(), directions):
                p += step * d
            value = defence(network, X, Y)["discrepancy"].item()
            for p, d in zip(network.parameters(), directions):
                p -= step * d
        return value

    h = 1e-4
    expected = (8 * (apart(h) - apart(-h)) - (apart(2 * h) - apart(-2 * h))) / (12 * h)
    assert slope == pytest.approx(expected, rel=1e-5)
    assert abs(slope) > 1e-2


def test_maps_of_gradients_are_compared_by_equation_7():
    network = tiny()
    terms = InterpretabilityAware(weight=1.0, attack=Handed(), interpreter=Gradient())(network, X, Y)
    torch.testing.assert_close(terms["discrepancy"], mean_discrepancy(network, maps=gradient_maps))


def test_maps_with_random_numbers_are_the_same_for_an_image_and_its_copy():
    interpreter = SmoothGrad(samples=2)

    def nowhere(objective, x):
        assert objective(x, torch.arange(N)).abs().max().item() == 0

    for inner in ("discrepancy", "cross_entropy"):
        attack = Handed(changed=torch.clone, probe=nowhere)
        defence = InterpretabilityAware(attack=attack, interpreter=interpreter, inner=inner)
        assert defence(tiny(), X, Y, here())["discrepancy"].item() == 0
    near = InterpretabilityAware(attack=Handed(), interpreter=interpreter)
    assert near(tiny(), X, Y, here(step=3)) != near(tiny(), X, Y, here(step=4))


# ------------------------------------------------------------------------------------------ names, refusals


@pytest.mark.parametrize(
    ("name", "classes", "inner", "adversarial"),
    [
        ("int_one_class", "one", "discrepancy", False),
        ("int", "all", "discrepancy", False),
        ("int_adv", "all", "discrepancy", True),
        ("int2", "all", "cross_entropy", False),
        ("int2_adv", "all", "cross_entropy", True),
    ],
)
def test_the_methods_of_the_paper_have_names(name, classes, inner, adversarial):
    method = from_dict(name, "defence")
    assert method is INTERPRETABILITY_AWARE[name] or method == INTERPRETABILITY_AWARE[name]
    assert (method.classes, method.inner, method.adversarial) == (classes, inner, adversarial)
    assert (method.weight, method.p, method.positions, method.form, method.eps) == (0.01, 1, "sum", "paper", None)
    assert (method.interpreter, method.attack) == (CAM(), PGD(eps=0.3, steps=40, step_size=0.01))
    assert len(INTERPRETABILITY_AWARE) == 5


def test_maps_without_derivatives_and_ramps_without_eps_are_refused():
    with pytest.raises(SpecError, match="attack_difference cannot be differentiated"):
        InterpretabilityAware(interpreter=AttackDifference())
    with pytest.raises(SpecError, match="eps"):
        InterpretabilityAware(attack=from_dict("deepfool", "attack"), eps=Ramp(start=0.0, stop=0.3))
    with pytest.raises(SpecError, match="weight"):
        InterpretabilityAware(weight=-1.0)


def test_networks_without_a_head_single_classes_and_empty_batches_are_refused(linear):
    with pytest.raises(InputError, match="linear head"):
        InterpretabilityAware(attack=Handed())(linear(pixels=42), X, Y)
    with pytest.raises(InputError, match="at least one image"):
        InterpretabilityAware()(tiny(), X[:0], Y[:0])
    for wrong in (Y + 1, Y - 1):
        for attack in (Handed(eps=0.0), Handed()):
            with pytest.raises(InputError, match="labels"):
                InterpretabilityAware(attack=attack)(tiny(), X, wrong)


def test_the_discrepancy_of_a_network_with_certain_predictions_is_finite():
    """The weights of equation 7 are a softmax: of far larger scores, the map of one wrong class."""
    network = tiny()
    with torch.no_grad():
        network.head.weight *= 1e3
    found = InterpretabilityAware(weight=1.0, attack=Handed())(network, X, Y)["discrepancy"].item()
    assert math.isfinite(found)
    assert found == pytest.approx(mean_discrepancy_of_one_rival(network), rel=1e-6)


def mean_discrepancy_of_one_rival(network):
    total = 0.0
    for image, near, y in zip(X, NEAR, Y.tolist()):
        before, after, scores = class_maps(network, image), class_maps(network, near), network(near[None])[0].tolist()
        rival = max((c for c in range(CLASSES) if c != y), key=scores.__getitem__)
        total += sum(moved(before[c], after[c], 1, "sum").item() for c in (y, rival)) / 2
    return total / N
