import pytest
import torch
from torch import nn
from torch.nn import functional

from pellucid.attacks import FGSM
from pellucid.errors import InputError
from pellucid.maths import counted
from pellucid.metrics import predict


@pytest.fixture
def images(generator):
    return torch.rand(15, 1, 3, 4, generator=generator, dtype=torch.float64)


def loss_gradient(network, images, labels):
    """(p - y) W, the closed form on a softmax regression."""
    p = network(images).softmax(1).detach()
    return ((p - functional.one_hot(labels, p.shape[1])) @ network.weight.detach()).view_as(images)


def test_one_step_along_the_sign_of_the_gradient(linear, images):
    network, labels = linear(classes=4), torch.arange(15) % 4
    expected = (images + 0.1 * loss_gradient(network, images, labels).sign()).clamp(0, 1)
    torch.testing.assert_close(FGSM(eps=0.1)(network, images, labels), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rule", ["next", "runner_up", "least_likely"])
def test_with_a_target_one_step_down_its_loss(linear, images, rule):
    network, labels = linear(classes=4), torch.arange(15) % 4
    ranking = network(images).argsort(1, descending=True)
    others = torch.stack([row[row != y] for row, y in zip(ranking, labels)])
    target = {"next": (labels + 1) % 4, "runner_up": others[:, 0], "least_likely": others[:, -1]}[rule]
    expected = (images - 0.1 * loss_gradient(network, images, target).sign()).clamp(0, 1)
    torch.testing.assert_close(FGSM(eps=0.1, target=rule)(network, images, labels), expected)
    torch.testing.assert_close(FGSM(eps=0.1)(network, images, labels, target=target), expected)
    assert not torch.allclose(expected, FGSM(eps=0.1)(network, images, labels))


def test_for_two_classes_the_step_reaches_the_worst_point_of_the_ball(linear, images):
    network, labels = linear(classes=2), torch.arange(15) % 2
    difference = (network.weight[1] - network.weight[0]).detach().view(1, 1, 3, 4)
    sign = torch.where(labels == 0, 1.0, -1.0).view(-1, 1, 1, 1)
    worst = (images + 0.2 * sign * difference.sign()).clamp(0, 1)
    torch.testing.assert_close(FGSM(eps=0.2)(network, images, labels), worst)


def test_where_the_gradient_underflows_the_image_stays(linear, images):
    network = linear(classes=2, dtype=torch.float32)
    with torch.no_grad():
        network.bias.copy_(torch.tensor([1000.0, -1000.0]))
    x = images.float()
    assert torch.equal(FGSM(eps=0.3)(network, x, torch.zeros(15, dtype=torch.long)), x)


def test_predicted_labels_do_not_look_at_the_true_ones(linear, images):
    network, attack = linear(classes=4), FGSM(eps=0.1, labels="predicted")
    own = predict(network, images)
    expected = FGSM(eps=0.1)(network, images, own)
    for labels in (own, (own + 1) % 4, torch.zeros(15, dtype=torch.long)):
        torch.testing.assert_close(attack(network, images, labels), expected)
    wrong = (own + 1) % 4
    assert not torch.allclose(FGSM(eps=0.1)(network, images, wrong), expected)


def test_predictions_that_tie_share_the_mass(linear):
    network = linear(classes=3)
    with torch.no_grad():
        network.weight.zero_()
        network.weight[0, 0], network.weight[1, 1], network.weight[2, 2] = 1.0, 1.0, 1.0
        network.bias.copy_(torch.tensor([1.0, 1.0, -1.0]))
    x = torch.full((1, 1, 3, 4), 0.5, dtype=torch.float64)
    moved = FGSM(eps=0.1, labels="predicted")(network, x, torch.tensor([0])) - x
    # p = (a, a, b), target (1/2, 1/2, 0): both tied logits fall, the third rises
    torch.testing.assert_close(moved.flatten()[:4], torch.tensor([-0.1, -0.1, 0.1, 0.0], dtype=torch.float64))


def test_any_objective_can_be_maximised(images):
    directions = torch.linspace(-1, 1, 15, dtype=torch.float64).view(-1, 1, 1, 1)
    moved = FGSM(eps=0.05).maximise(lambda x, rows: (x * directions[rows]).flatten(1).sum(1), images)
    torch.testing.assert_close(moved, (images + 0.05 * directions.sign()).clamp(0, 1))


def test_costs_one_forward_and_one_backward(linear, images):
    with counted() as passes:
        FGSM(eps=0.1)(linear(), images, torch.zeros(15, dtype=torch.long))
    assert (passes.forward, passes.backward) == (15, 15)
    with counted() as passes:
        FGSM(eps=0.1, target="least_likely")(linear(), images, torch.zeros(15, dtype=torch.long))
    assert (passes.forward, passes.backward) == (30, 15)


def batch_norm_network() -> nn.Module:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.sin(torch.arange(p.numel(), dtype=p.dtype) * 1.7).view_as(p))
        network[2].running_mean.fill_(3.0)
    return network.double()


def test_train_mode_uses_batch_statistics_and_dropout_but_leaves_no_trace(images):
    network, labels = batch_norm_network(), torch.arange(15) % 3
    statistics = {k: v.clone() for k, v in network.state_dict().items()}
    generator = torch.get_rng_state()
    attack = FGSM(eps=0.1, mode="train")
    trained, again = attack(network, images, labels), attack(network, images, labels)
    assert torch.equal(trained, again)
    assert not torch.equal(trained, FGSM(eps=0.1)(network, images, labels))
    assert all(torch.equal(v, statistics[k]) for k, v in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert network.training


def test_eval_mode_ignores_the_rest_of_the_batch_also_in_a_network_left_in_training(images):
    network, labels = batch_norm_network().train(), torch.arange(15) % 3
    together = FGSM(eps=0.1)(network, images, labels)
    torch.testing.assert_close(FGSM(eps=0.1)(network, images[4:5], labels[4:5]), together[4:5])


def test_labels_beyond_the_classes_are_refused(linear, images):
    with pytest.raises(InputError, match=r"labels must be 0\.\.2; found 3"):
        FGSM(eps=0.1)(linear(), images, torch.full((15,), 3))
    with pytest.raises(InputError, match="target labels"):
        FGSM(eps=0.1)(linear(), images, torch.zeros(15, dtype=torch.long), target=torch.full((15,), 3))
    with pytest.raises(InputError, match="two classes"):
        FGSM(eps=0.1, target="next")(linear(classes=1), images, torch.zeros(15, dtype=torch.long))
