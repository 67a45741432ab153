"""Attributions of the loss along a path: completeness, the sum written out, and what the attack climbs."""

import dataclasses
from itertools import pairwise

import pytest
import torch
from torch.nn import functional

from pellucid.attacks import PGD
from pellucid.defences import AdversarialTraining, IGNorm, IGSumNorm, Standard, path_attribution
from pellucid.errors import InputError
from pellucid.maths import counted
from pellucid.rng import Stream
from pellucid.schedule import Ramp

from .derivatives import BATCH, labels, pictures, smooth, tied, weight_gradients
from .stand_ins import Handed, N, X, Y, here, shifted, tiny

NEAR = shifted(X)
BOTH = [IGNorm, IGSumNorm]


def written_out(network, x, near, y, points):
    """Return IG(x, x') by loops over images and points of the path."""
    maps = []
    for n in range(len(x)):
        total = torch.zeros_like(x[n])
        for k in range(1, points + 1):
            leaf = (x[n] + k / points * (near[n] - x[n])).requires_grad_(True)
            loss = functional.cross_entropy(network(leaf[None]), y[n : n + 1])
            total = total + torch.autograd.grad(loss, leaf)[0] / points
        maps.append((near[n] - x[n]) * total)
    return torch.stack(maps)


def sizes(network, points, rows=slice(None)):
    return written_out(network, X[rows], NEAR[rows], Y[rows], points).abs().flatten(1).sum(1)


def cross_entropies(network, x, y):
    return functional.cross_entropy(network(x), y, reduction="none")


def test_attributions_sum_to_the_change_of_the_loss_ever_closer():
    network, leaf = tiny(), X.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(cross_entropies(network, leaf, Y).sum(), leaf)
    near = (X + 0.1 * slope.sign()).clamp(0, 1)  # uphill, so that the change is no difference of large parts
    change = (cross_entropies(network, near, Y) - cross_entropies(network, X, Y)).detach()
    totals = {m: path_attribution(network, X, near, Y, m).flatten(1).sum(1).detach() for m in (50, 100, 200)}
    torch.testing.assert_close(totals[200], change, rtol=1e-3, atol=0)
    errors = [total - change for total in totals.values()]
    for coarse, fine in pairwise(errors):
        torch.testing.assert_close(coarse / fine, torch.full_like(coarse, 2.0), rtol=0.03, atol=0)


def test_the_path_is_the_right_riemann_sum():
    network = tiny()
    torch.testing.assert_close(path_attribution(network, X, NEAR, Y, 5), written_out(network, X, NEAR, Y, 5))
    assert torch.equal(path_attribution(network, X, X, Y, 5), torch.zeros_like(X))


def test_the_value_is_the_same_where_no_gradient_is_asked_for():
    network = tiny()
    with torch.no_grad():
        quiet = path_attribution(network, X, NEAR, Y, 3)
    assert torch.equal(quiet, path_attribution(network, X, NEAR, Y, 3))
    assert float(quiet.detach().abs().min()) > 0


@pytest.mark.parametrize("normalisation", ["paper", "code"])
@pytest.mark.parametrize("cls", BOTH)
def test_terms_are_their_formulas(cls, normalisation):
    network = tiny()
    defence = cls(weight=0.7, points=4, attack_points=2, normalisation=normalisation, attack=Handed())
    terms = defence(network, X, Y)
    penalty = 0.7 * sizes(network, 4).sum() / (N if normalisation == "paper" else N * N)
    clean, attacked = (cross_entropies(network, x, Y).mean() for x in (X, NEAR))
    expected = {"cross_entropy": clean}
    if cls is IGSumNorm:
        expected = {"cross_entropy": torch.zeros_like(clean), "adversarial_cross_entropy": attacked}
    assert list(terms) == [*expected, "attribution_norm"]
    torch.testing.assert_close(terms, expected | {"attribution_norm": penalty}, check_dtype=True)


@pytest.mark.parametrize("normalisation", ["paper", "code"])
@pytest.mark.parametrize("cls", BOTH)
def test_the_attack_climbs_the_coarser_norm_and_the_same_sum(cls, normalisation):
    network, rows, values = tiny(), torch.tensor([3, 1]), []

    def probe(objective, x):
        point = NEAR[rows].requires_grad_(True)
        values.append(objective(point, rows))
        assert float(torch.autograd.grad(values[0].sum(), point)[0].abs().min()) > 0
        with torch.no_grad():
            values.append(objective(NEAR[rows], rows))

    cls(weight=0.7, points=4, attack_points=2, normalisation=normalisation, attack=Handed(probe=probe))(network, X, Y)
    expected = sizes(network, 2, rows)
    if cls is IGSumNorm:
        weight = 0.7 if normalisation == "paper" else 0.7 / N
        expected = cross_entropies(network, NEAR[rows], Y[rows]) + weight * expected
    for found in values:
        torch.testing.assert_close(found.detach(), expected.detach())


def test_the_gradient_of_the_attack_goes_along_the_path():
    """d/dx' of ||IG(x, x')||_1, which moves the points of the path too, against central differences."""
    network, slopes = tiny(), []
    direction = Stream(1).normal(X)

    def probe(objective, x):
        rows, point = torch.arange(N), NEAR.clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(objective(point, rows).sum(), point)
        slopes.append((slope * direction).flatten(1).sum(1))
        h = 1e-5
        ahead, behind = (objective((NEAR + s * h * direction).requires_grad_(True), rows) for s in (1, -1))
        slopes.append((ahead - behind).detach() / (2 * h))

    IGNorm(attack=Handed(probe=probe), attack_points=3)(network, X, Y)
    torch.testing.assert_close(*slopes, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("cls", BOTH)
def test_where_eps_is_0_there_is_no_attack_and_no_penalty(cls):
    network, still = tiny(), Ramp(start=0.0, stop=0.1, begin=5, until=9, unit="steps")
    plain, attack = Standard()(network, X, Y)["cross_entropy"], PGD(eps=0.3, steps=2)
    for defence in (cls(attack=Handed(eps=0.0)), cls(attack=attack, points=2, attack_points=2, eps=still)):
        with counted() as passes:
            terms = defence(network, X, Y, here(step=5))
        assert (passes.forward, passes.backward) == (N, 0)
        assert getattr(defence.attack, "silent", True)
        assert (terms["attribution_norm"].item(), terms["attribution_norm"].dtype) == (0, plain.dtype)
        assert torch.equal(sum(terms.values()), plain)
        name = "cross_entropy" if cls is IGNorm else "adversarial_cross_entropy"
        assert torch.equal(terms[name], plain)
    assert defence(network, X, Y, here(step=7))["attribution_norm"].item() > 0


def test_without_weight_they_are_plain_and_adversarial_training():
    network, watched = tiny(), Handed()
    terms = IGNorm(weight=0.0, attack=watched)(network, X, Y)
    assert watched.silent
    assert torch.equal(sum(terms.values()), Standard()(network, X, Y)["cross_entropy"])
    attack = PGD(eps=0.1, steps=3)
    terms = IGSumNorm(weight=0.0, attack=attack, attack_points=2)(network, X, Y, here())
    adversarial = AdversarialTraining(attack=attack, share=1.0)(network, X, Y, here())
    torch.testing.assert_close(sum(terms.values()), sum(adversarial.values()), rtol=1e-12, atol=0)
    assert terms["attribution_norm"].item() == 0


@pytest.mark.parametrize(
    ("cls", "forward", "backward"), [(IGNorm, 1 + 3 * 2 + 5, 3 * 2 + 3 + 5), (IGSumNorm, 1 + 3 * 3 + 5, 3 * 2 + 3 + 5)]
)
def test_what_a_step_costs(cls, forward, backward):
    """Three steps of two points each, and one of the image where its loss counts; five points in the update."""
    with counted() as passes:
        cls(attack=PGD(eps=0.1, steps=3), attack_points=2, points=5)(tiny(), X, Y)
    assert (passes.forward, passes.backward) == (N * forward, N * backward)


def test_an_attack_that_keeps_the_best_of_several_finds_at_least_the_last():
    network = tiny()

    def found(**options):
        attack = PGD(eps=0.1, steps=2, step_size=0.05, **options)
        defence = IGNorm(attack=attack, points=3, attack_points=3)
        alone = zip(X.split(1), Y.split(1))
        return torch.tensor([defence(network, x, y)["attribution_norm"].item() for x, y in alone])

    last, best, restarted = found(), found(keep="best"), found(restarts=3)
    assert bool((best >= last).all())
    assert bool((restarted >= last).all())
    assert bool((restarted > 1.001 * last).any())


@pytest.mark.parametrize("cls", BOTH)
def test_labels_out_of_range_and_empty_batches_are_refused(cls):
    for attack in (PGD(eps=0.1, steps=1), PGD(eps=0.0)):
        for wrong in (Y + 1, Y - 1):
            with pytest.raises(InputError, match="labels"):
                cls(attack=attack, points=2, attack_points=2)(tiny(), X, wrong)
    with pytest.raises(InputError, match="at least one image"):
        cls()(tiny(), X[:0], Y[:0])


@pytest.mark.parametrize("cls", BOTH)
def test_batch_statistics_in_the_attack_are_those_of_the_whole_path(cls):
    """An attack in train mode asks the network about nothing smaller than the batch."""
    network, attack = tied(), PGD(eps=0.1, steps=2, mode="train")
    before = {name: value.clone() for name, value in network.named_buffers()}
    terms = cls(attack=attack, points=2, attack_points=2)(network, pictures(), labels())
    assert all(bool((g != 0).any()) for g in weight_gradients(sum(terms.values()), network)[2:])
    assert int(network[2].num_batches_tracked) == int(before["2.num_batches_tracked"]) + 2  # the loss, the path


def test_training_on_it_makes_attributions_smaller():
    network, plain = smooth(), smooth()
    x, y = pictures(), labels()
    defence = IGNorm(weight=3.0, points=5, attack_points=3, attack=Handed())
    measure = dataclasses.replace(defence, weight=1.0)
    for trained, method in ((network, defence), (plain, Standard())):
        moves = torch.optim.SGD(trained.parameters(), lr=0.1)
        for _ in range(30):
            moves.zero_grad()
            sum(method(trained, x, y).values()).backward()
            moves.step()
    found, other = (measure(trained, x, y)["attribution_norm"].item() for trained in (network, plain))
    assert found < 0.5 * other
    assert len(x) == BATCH
