import pytest
import torch
from torch import nn
from torch.nn import functional

from pellucid.attacks import FGSM, PGD
from pellucid.defences import AdversarialTraining
from pellucid.errors import InputError, SpecError
from pellucid.maths import counted
from pellucid.metrics import predict
from pellucid.models import SmallCNN
from pellucid.protocols import Context
from pellucid.rng import global_seed
from pellucid.schedule import Ramp

from .derivatives import tied
from .stand_ins import Handed, seen, shifted


@pytest.fixture
def images(generator):
    return torch.rand(6, 1, 3, 4, generator=generator, dtype=torch.float64)


@pytest.fixture
def labels():
    return torch.tensor([0, 1, 2, 2, 1, 0])


ATTACK = PGD(norm="l2", eps=0.3, steps=3, random_start=False)  # its result moves smoothly with the weights


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_terms_are_weighted_by_the_share(linear, images, labels, share):
    network = linear(classes=3)
    terms = AdversarialTraining(attack=ATTACK, share=share)(network, images, labels)
    x_adv = ATTACK(network, images, labels)
    expected = {
        "cross_entropy": (1 - share) * functional.cross_entropy(network(images), labels),
        "adversarial_cross_entropy": share * functional.cross_entropy(network(x_adv), labels),
    }
    assert list(terms) == list(expected)
    torch.testing.assert_close(terms, expected)


def test_no_gradient_flows_through_the_attack(linear, images, labels):
    network, reference = linear(classes=3), linear(classes=3)
    x_adv = ATTACK(reference, images, labels)
    loss = functional.cross_entropy(reference(images), labels) + functional.cross_entropy(reference(x_adv), labels)
    (loss / 2).backward()
    sum(AdversarialTraining(attack=ATTACK)(network, images, labels).values()).backward()
    torch.testing.assert_close(network.weight.grad, reference.weight.grad)


def test_the_attack_is_run_once_and_the_examples_are_new(linear, images, labels):
    with counted() as passes:
        AdversarialTraining(attack=ATTACK)(linear(), images, labels)
    assert (passes.forward, passes.backward) == (6 + 3 * 6 + 6, 3 * 6)


def test_a_ramp_moves_eps_and_at_zero_no_attack_is_run(linear, images, labels):
    network = linear()
    defence = AdversarialTraining(attack=FGSM(eps=9.0), eps=Ramp(start=0.0, stop=0.4, begin=0.25, until=0.75))
    plain = functional.cross_entropy(network(images), labels).detach() / 2
    for progress, eps in ((0.0, 0.0), (0.25, 0.0), (0.5, 0.2), (1.0, 0.4)):
        with counted() as passes:
            term = defence(network, images, labels, Context(progress=progress))["adversarial_cross_entropy"]
        assert passes.backward == (6 if eps else 0)
        x_adv = FGSM(eps=eps)(network, images, labels)
        torch.testing.assert_close(term, functional.cross_entropy(network(x_adv), labels) / 2)
        assert (term.detach() > plain + 0.01) == (eps > 0)


def test_the_default_is_that_of_ross_and_does_not_leak_the_labels(linear, images):
    attack = AdversarialTraining().attack
    assert (attack, AdversarialTraining().share) == (FGSM(eps=0.3, labels="predicted", mode="train"), 0.5)
    network = linear(classes=3)
    wrong = (predict(network, images) + 1) % 3
    term = AdversarialTraining()(network, images, wrong)["adversarial_cross_entropy"]
    away_from_the_prediction = FGSM(eps=0.3)(network, images, predict(network, images))
    torch.testing.assert_close(term, functional.cross_entropy(network(away_from_the_prediction), wrong) / 2)


def test_random_starts_follow_step_and_position(linear, images, labels):
    defence = AdversarialTraining(attack=PGD(eps=0.2, steps=1))

    def term(rows, **context):
        ctx = Context(positions=torch.arange(100, 106)[rows], **context)
        return defence(linear(), images[rows], labels[rows], ctx)["adversarial_cross_entropy"].item()

    everyone = torch.arange(6)
    assert term(everyone, step=3) == term(everyone, step=3)
    assert len({term(everyone, step=3), term(everyone, step=4), term(everyone, step=3, seed=1)}) == 3
    halves = [term(everyone[:3], step=3), term(everyone[3:], step=3)]
    assert sum(halves) / 2 == pytest.approx(term(everyone, step=3), abs=1e-12)


def test_both_forwards_but_not_the_attack_move_the_batch_norm_statistics(images, labels):
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Dropout(0.5), nn.Linear(12, 3)).double().train()
    AdversarialTraining()(network, images, labels)
    assert int(network[1].num_batches_tracked) == 2


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_network_stays_in_training_and_its_weights_learn(images, labels, mode):
    with global_seed(0):
        network = SmallCNN(filters=(2, 2, 2)).build(1, (3, 4), 3).double().train()
    sum(AdversarialTraining(attack=FGSM(eps=0.1, mode=mode))(network, images, labels).values()).backward()
    assert network.training
    assert all(p.requires_grad and p.grad is not None for p in network.parameters())


def test_a_ramp_needs_an_attack_with_eps_and_the_share_is_a_share():
    with pytest.raises(SpecError, match="share"):
        AdversarialTraining(share=1.5)
    with pytest.raises(SpecError, match="eps"):
        AdversarialTraining(eps=0.3)


@pytest.mark.parametrize("batches", ["separate", "together", "mixed", "alternate"])
def test_a_batch_without_images_is_refused(linear, images, batches):
    with pytest.raises(InputError, match="at least one image"):
        AdversarialTraining(batches=batches)(linear(), images[:0], torch.zeros(0, dtype=torch.long))


# ------------------------------------------------------------------------------------------ how batches are made


@pytest.mark.parametrize(("share", "n"), [(0.0, 0), (0.2, 1), (0.4, 2), (0.5, 3), (0.74, 4), (1.0, 6)])
def test_mixed_batches_have_so_many_adversarial_images_and_every_image_once(linear, images, labels, share, n):
    network, attack = linear(classes=3), Handed()
    asked = seen(network)
    ctx = Context(step=3, seed=5, positions=torch.arange(20, 26))
    with counted() as passes:
        terms = AdversarialTraining(attack=attack, share=share, batches="mixed")(network, images, labels, ctx)
    assert passes.forward == 6
    whole = torch.cat([shifted(images[:n]), images[n:]])
    assert [torch.equal(x, whole) for x in asked] == [True]
    losses = functional.cross_entropy(network(whole), labels, reduction="none")
    expected = {"cross_entropy": losses[n:].sum() / 6, "adversarial_cross_entropy": losses[:n].sum() / 6}
    torch.testing.assert_close(terms, expected)
    if n == 0:
        assert attack.silent
        return
    [(x, y, rng)] = attack.asked
    assert torch.equal(x, images[:n])
    assert torch.equal(y, labels[:n])
    assert rng.positions.tolist() == list(range(20, 20 + n))


def test_alternate_batches_are_adversarial_at_even_steps_and_clean_at_odd_ones(linear, images, labels):
    network, attack = linear(classes=3), Handed()
    losses = {x is images: functional.cross_entropy(network(x), labels) for x in (images, shifted(images))}
    for step in range(5):
        for share in (1.0, 0.5):
            defence = AdversarialTraining(attack=attack, share=share, batches="alternate")
            with counted() as passes:
                terms = defence(network, images, labels, Context(step=step))
            assert passes.forward == 6
            clean = step % 2 == 1
            assert terms["adversarial_cross_entropy" if clean else "cross_entropy"].item() == 0
            torch.testing.assert_close(sum(terms.values()), losses[clean])
    assert len(attack.asked) == 2 * 3
    assert all(torch.equal(x, images) for x, _, _ in attack.asked)


@pytest.mark.parametrize("batches", ["separate", "together"])
def test_a_share_of_one_asks_nothing_about_the_clean_images(linear, images, labels, batches):
    network = linear(classes=3)
    asked = seen(network)
    defence = AdversarialTraining(attack=Handed(), share=1, batches=batches)
    with counted() as passes:
        terms = defence(network, images, labels)
    assert (passes.forward, passes.backward) == (6, 0)
    assert [torch.equal(x, shifted(images)) for x in asked] == [True]
    assert terms["cross_entropy"].item() == 0
    torch.testing.assert_close(sum(terms.values()), functional.cross_entropy(network(shifted(images)), labels))


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_batches_that_go_together_share_their_statistics(images, labels, share):
    network = tied()
    before = int(network[2].num_batches_tracked)
    terms = AdversarialTraining(attack=Handed(), share=share, batches="together")(network, images, labels)
    assert int(network[2].num_batches_tracked) == before + 1
    both = torch.cat([images, shifted(images)])
    losses = functional.cross_entropy(tied()(both), labels.repeat(2), reduction="none")
    expected = {
        "cross_entropy": (1 - share) * losses[:6].mean(),
        "adversarial_cross_entropy": share * losses[6:].mean(),
    }
    torch.testing.assert_close(terms, expected)
    apart = AdversarialTraining(attack=Handed(), share=share)(tied(), images, labels)
    assert abs(sum(apart.values()).item() - sum(terms.values()).item()) > 1e-3


def test_at_eps_0_nothing_is_attacked_however_batches_are_made(linear, images, labels):
    network, plain = linear(classes=3), functional.cross_entropy(linear(classes=3)(images), labels)
    for batches in ("separate", "together", "mixed", "alternate"):
        attack = Handed(eps=0.0)
        terms = AdversarialTraining(attack=attack, batches=batches)(network, images, labels)
        assert attack.silent
        torch.testing.assert_close(sum(terms.values()), plain)
