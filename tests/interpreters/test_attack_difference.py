"""An attack's difference: the image that the attack makes, less the image; closed forms on a linear network."""

import pytest
import torch
from torch import Tensor, nn

from pellucid.attacks import FGSM, PGD, AutoAttack, IteratedTGSM
from pellucid.errors import InputError
from pellucid.guard import frozen
from pellucid.interpreters import AttackDifference
from pellucid.rng import Stream

Y = torch.tensor([0, 1, 2, 1])


@pytest.fixture
def images() -> Tensor:
    return 0.2 + 0.6 * Stream(3).uniform(torch.empty(4, 0, dtype=torch.float64), (1, 3, 4))


def test_of_one_sign_step_on_a_linear_network_it_is_the_sign_of_the_targets_weight(linear, images):
    """d CE_t / dx = sum_k p_k w_k - w_t, and the step goes down it."""
    network, target, eps = linear(classes=3), (Y + 1) % 3, 0.05
    maps = AttackDifference(attack=FGSM(eps=eps))(network, images, target)
    p, weight = network(images).softmax(1).detach(), network.weight.detach()
    slope = p @ weight - weight[target]
    torch.testing.assert_close(maps.flatten(1), -eps * slope.sign(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("attack", [PGD(norm="l2", eps=0.5, steps=3), IteratedTGSM(steps=3), FGSM(eps=0.1)])
def test_with_the_image_added_it_is_the_attacks_own_image_for_every_target(linear, images, attack):
    network, rng = linear(classes=3), Stream(2)
    own = network(images).argmax(1)
    every = torch.arange(3).expand(4, 3)
    maps = AttackDifference(attack=attack)(network, images, every, rng=rng)
    assert maps.shape == (4, 3, 1, 3, 4)
    for t in range(3):
        theirs = attack(network, images, own, target=every[:, t], rng=rng)
        torch.testing.assert_close(images + maps[:, t], theirs, rtol=0, atol=1e-12)
        torch.testing.assert_close(AttackDifference(attack=attack)(network, images, every[:, t], rng=rng), maps[:, t])
    assert float((maps[:, 0] - maps[:, 1]).abs().amax((1, 2, 3)).min()) > 1e-3


def test_the_default_leads_to_the_class_and_stays_among_images(linear, images):
    network, target = linear(classes=3), (Y + 1) % 3
    maps = AttackDifference()(network, images, target)
    assert torch.equal(network(images + maps).argmax(1), target)
    assert float((images + maps).min()) >= 0
    assert float((images + maps).max()) <= 1
    moved = AttackDifference()(network, images, network(images).argmax(1))  # towards the class it already has
    own = network(images).log_softmax(1).amax(1)
    assert bool((network(images + moved).log_softmax(1).amax(1) > own).all())


def test_the_attack_is_not_told_the_answer_and_the_model_is_left_as_it_was(linear, images):
    """The attack's label is the predicted class: the targets are what is asked about."""
    told = []

    class Notes(FGSM):
        def __call__(self, model: nn.Module, x: Tensor, y: Tensor, **more: object) -> Tensor:
            told.append((y.clone(), more["target"]))
            return super().__call__(model, x, y, **more)

    network = linear(classes=3).train()
    AttackDifference(attack=Notes(eps=0.1))(network, images, Y)
    assert torch.equal(told[0][0], network(images).argmax(1))
    assert torch.equal(told[0][1], Y)
    assert network.training
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_what_cannot_be_is_refused(linear, images):
    network, method = linear(classes=3), AttackDifference()
    assert not method.differentiable
    with pytest.raises(InputError, match="no derivative"):
        method(network, images, Y, create_graph=True)
    with pytest.raises(InputError, match=r"targets must be 0\.\.2; found 3"):
        method(network, images, torch.full((4,), 3))
    for call in (method, method.maps):
        with frozen(network), pytest.raises(InputError, match="images must lie"):
            call(network, images + 1, Y)
    with pytest.raises(InputError, match="takes no targets"):
        AttackDifference(attack=AutoAttack(norm="linf", eps=0.1))(network, images, Y)
