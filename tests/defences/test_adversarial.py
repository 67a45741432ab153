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


@pytest.mark.parametrize("batches", ["separate", "together"])
def test_a_batch_without_images_is_refused(linear, images, batches):
    with pytest.raises(InputError, match="at least one image"):
        AdversarialTraining(batches=batches)(linear(), images[:0], torch.zeros(0, dtype=torch.long))
