"""Training from images with and without labels: which are which, and what is asked of each."""

import pytest
import torch
from torch.nn import functional

from pellucid.defences import AdversarialTraining, InterpretabilityAware, SemiSupervised
from pellucid.errors import InputError, SpecError
from pellucid.interpreters import CAM
from pellucid.maths import counted, label_free_discrepancy
from pellucid.protocols import Context
from pellucid.rng import Stream
from pellucid.spec import from_dict

from .derivatives import weight_gradients
from .stand_ins import CLASSES, SHORT, Handed, N, X, Y, here, shifted, tiny

MORE = 0.2 + 0.6 * Stream(6).uniform(torch.empty(3, 0, dtype=torch.float64), (1, 7, 6))


def pictures(n):
    return Stream(7).uniform(torch.empty(n, 0, dtype=torch.float64), (1, 7, 6))


def known_of(x, labelled, **where):
    """Say which images' labels are used, by labels that no prediction agrees with: the attack is told the others."""
    network, attack = tiny(), Handed()
    wrong = (network(x).argmax(1) + 1) % CLASSES
    inner = InterpretabilityAware(inner="cross_entropy", attack=attack)
    SemiSupervised(inner=inner, labelled=labelled)(network, x, wrong, Context(**where))
    [(_, told, _)] = attack.asked
    assert bool(((told == wrong) | (told == network(x).argmax(1))).all())
    return told == wrong


def test_the_same_images_have_labels_at_every_step_and_in_every_batch():
    x, positions = pictures(400), torch.arange(1000, 1400)
    first = known_of(x, 0.3, step=0, seed=5, positions=positions)
    assert abs(float(first.double().mean()) - 0.3) < 0.115  # five standard deviations
    assert torch.equal(known_of(x, 0.3, step=17, seed=5, positions=positions), first)
    rows = torch.tensor([9, 300, 4, 77, 12])
    assert torch.equal(known_of(x[rows], 0.3, step=3, seed=5, positions=positions[rows]), first[rows])
    assert torch.equal(known_of(x.float().double(), 0.3, seed=5, positions=positions), first)
    assert not torch.equal(known_of(x, 0.3, seed=6, positions=positions), first)
    larger = known_of(x, 0.6, seed=5, positions=positions)
    assert bool(larger[first].all())  # more labels: those, and others
    assert abs(float(larger.double().mean()) - 0.6) < 0.123


@pytest.mark.parametrize("adversarial", [False, True])
@pytest.mark.parametrize("labelled", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("unlabelled", [None, MORE])
def test_all_images_are_compared_and_labelled_ones_classified(labelled, unlabelled, adversarial):
    network, known = tiny(), known_of(X, labelled, seed=5, positions=torch.arange(N) + 20)
    assert int(known.sum()) == {0.0: 0, 0.5: 2, 1.0: 4}[labelled]
    everything = X if unlabelled is None else torch.cat([X, unlabelled])
    y = network(everything).argmax(1)
    y[:N] = torch.where(known, Y, y[:N])
    near, every = shifted(everything), torch.arange(CLASSES).expand(len(everything), -1)
    maps = [CAM()(network, x, every, create_graph=True) for x in (everything, near)]
    apart = 0.3 * label_free_discrepancy(*maps, y, network(near), positions="sum").mean()
    loss = functional.cross_entropy(network(near if adversarial else everything)[:N], Y, reduction="none")
    loss = loss[known].sum() / max(1, int(known.sum()))
    expected = {"cross_entropy": loss, "discrepancy": apart}
    if adversarial:
        expected = {"cross_entropy": torch.zeros_like(loss), "adversarial_cross_entropy": loss, "discrepancy": apart}
    inner = InterpretabilityAware(weight=0.3, attack=Handed(), adversarial=adversarial)
    terms = SemiSupervised(inner=inner, labelled=labelled)(network, X, Y, here(unlabelled=unlabelled))
    assert list(terms) == list(expected)
    torch.testing.assert_close(terms, expected)
    found, wanted = (weight_gradients(sum(t.values()), network) for t in (terms, expected))
    torch.testing.assert_close(found, wanted)


def test_with_every_label_and_nothing_more_it_is_what_is_in_it():
    for name in ("int", "int_adv", "int2", "int_one_class"):
        inner = from_dict({"defence": name, "weight": 0.3, "attack": SHORT})
        found = SemiSupervised(inner=inner)(tiny(), X, Y, here())
        expected = inner(tiny(), X, Y, here())
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
        assert SemiSupervised(inner=inner)(tiny(), X, Y, here(unlabelled=MORE[:0])) == found


@pytest.mark.parametrize("inner", ["discrepancy", "cross_entropy"])
def test_hidden_labels_are_not_read(inner):
    known = known_of(X, 0.5, seed=5, positions=torch.arange(N) + 20)
    defence = SemiSupervised(inner=InterpretabilityAware(attack=SHORT, inner=inner, weight=1.0), labelled=0.5)
    terms = defence(tiny(), X, Y, here(unlabelled=MORE))
    for other in ((Y + 1) % CLASSES, torch.full_like(Y, 999)):
        assert defence(tiny(), X, torch.where(known, Y, other), here(unlabelled=MORE)) == terms
    with pytest.raises(InputError, match="labels"):
        defence(tiny(), X, torch.where(known, 999, Y), here(unlabelled=MORE))


def test_images_without_labels_have_random_numbers_of_their_own():
    attack = Handed()
    defence = SemiSupervised(inner=InterpretabilityAware(inner="cross_entropy", attack=attack))
    defence(tiny(), X, Y, here(unlabelled=X))
    [(x, _, rng)] = attack.asked
    assert torch.equal(x, torch.cat([X, X]))
    assert rng.positions[:N].tolist() == here().positions.tolist()
    assert int(rng.positions[N:].min()) > 1 << 36  # no data set is as large
    assert len(set(rng.positions.tolist())) == 2 * N
    drawn = rng.child("any").uniform(x)
    assert torch.equal(drawn[:N], here().stream.child("any").uniform(X))
    assert float((drawn[:N] - drawn[N:]).abs().flatten(1).amax(1).min()) > 0.5
    for positions in (None, torch.arange(N)):
        defence(tiny(), X, Y, Context(seed=5, positions=positions, unlabelled=X))
    assert torch.equal(attack.asked[1][2].positions, attack.asked[2][2].positions)


def test_without_an_attack_nothing_but_the_labels_is_learned_from():
    network, inner = tiny(), InterpretabilityAware(attack=Handed(eps=0.0))
    known = known_of(X, 0.5, seed=5, positions=torch.arange(N) + 20)
    with counted() as passes:
        terms = SemiSupervised(inner=inner, labelled=0.5)(network, X, Y, here(unlabelled=MORE))
    assert (passes.forward, passes.backward) == (2 * (N + 3), 0)  # once for the predictions
    assert terms["discrepancy"].item() == 0
    torch.testing.assert_close(terms["cross_entropy"], functional.cross_entropy(network(X[known]), Y[known]))


def test_other_defences_shares_and_images_are_refused():
    for inner in (AdversarialTraining(), from_dict("trades", "defence")):
        with pytest.raises(SpecError, match="interpretability_aware"):
            SemiSupervised(inner=inner)
    with pytest.raises(SpecError, match="labelled"):
        SemiSupervised(labelled=1.5)
    with pytest.raises(InputError, match="images must"):
        SemiSupervised(inner=InterpretabilityAware(attack=Handed()))(tiny(), X, Y, here(unlabelled=MORE + 1))
    with pytest.raises(InputError, match="at least one image"):
        SemiSupervised()(tiny(), X[:0], Y[:0], here(n=0))
