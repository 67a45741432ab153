import pytest
import torch
from torch import nn
from torch.nn import functional

from pellucid.defences import DoubleBackprop, Standard

NORMALISATIONS = ("paper", "paper_sum", "code")


@pytest.fixture
def images(generator):
    return torch.rand(6, 1, 3, 4, generator=generator, dtype=torch.float64)


@pytest.fixture
def labels():
    return torch.tensor([0, 1, 2, 2, 1, 0])


def smooth() -> nn.Module:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.sin(torch.arange(p.numel()) * 1.3).view_as(p))
    return network


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_terms_of_a_softmax_regression_have_their_closed_form(linear, images, labels, normalisation):
    network, weight, batch = linear(classes=3), 7.0, 6
    log_p = network(images).detach().log_softmax(1)
    entropy = -log_p[torch.arange(6), labels]
    gradients = (log_p.exp() - functional.one_hot(labels, 3)) @ network.weight.detach()
    squares = gradients.square().sum(1)
    expected = {
        "paper": (entropy.mean(), weight * squares.mean()),
        "paper_sum": (entropy.sum(), weight * squares.sum()),
        "code": (entropy.mean(), weight * 0.5 * (gradients / batch).square().sum()),
    }[normalisation]
    terms = DoubleBackprop(weight=weight, normalisation=normalisation)(network, images, labels)
    assert list(terms) == ["cross_entropy", "gradient_penalty"]
    torch.testing.assert_close(tuple(v.detach() for v in terms.values()), expected)


def test_lambda_of_the_paper_is_lambda_of_the_code_over_twice_the_batch(images, labels):
    network = smooth()
    code = DoubleBackprop(weight=512.0, normalisation="code")(network, images, labels)
    paper = DoubleBackprop(weight=512.0 / (2 * 6), normalisation="paper")(network, images, labels)
    whole = DoubleBackprop(weight=512.0 / (2 * 6), normalisation="paper_sum")(network, images, labels)
    torch.testing.assert_close(code, paper)
    for name in code:
        torch.testing.assert_close(whole[name], 6 * paper[name])


def test_the_penalty_and_its_gradient_are_those_of_one_example_at_a_time(images, labels):
    network, slow = smooth(), smooth()
    terms = DoubleBackprop(weight=3.0)(network, images, labels)
    sum(terms.values()).backward()
    total = torch.zeros((), dtype=torch.float64)
    for n in range(6):
        x = images[n : n + 1].clone().requires_grad_(True)
        loss = functional.cross_entropy(slow(x), labels[n : n + 1])
        (g,) = torch.autograd.grad(loss, x, create_graph=True)
        total = total + (loss + 3.0 * (g * g).sum()) / 6
    total.backward()
    torch.testing.assert_close(sum(terms.values()), total)
    for fast, reference in zip(network.parameters(), slow.parameters()):
        torch.testing.assert_close(fast.grad, reference.grad)


def test_gradients_agree_with_finite_differences(images, labels):
    network = smooth()
    defence = DoubleBackprop(weight=3.0)

    def loss(weight: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            network[1].weight.copy_(weight)
        return sum(defence(network, images, labels).values())

    centre = network[1].weight.detach().clone()
    (analytic,) = torch.autograd.grad(loss(centre), network[1].weight)
    for i, j in ((0, 0), (3, 7), (5, 11)):
        change = torch.zeros_like(centre)
        change[i, j] = 1e-5
        numeric = (loss(centre + change) - loss(centre - change)).detach() / 2e-5
        torch.testing.assert_close(analytic[i, j], numeric, rtol=1e-6, atol=1e-8)


def test_batch_norm_in_train_mode_mixes_the_examples_as_the_authors_code_does(images, labels):
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 3)).double().train()
    with torch.no_grad():
        network[2].weight.copy_(torch.sin(torch.arange(36.0)).view(3, 12))
    x = images.clone().requires_grad_(True)
    loss = functional.cross_entropy(network(x), labels)
    (g,) = torch.autograd.grad(loss, x)
    penalty = DoubleBackprop(weight=2.0, normalisation="code")(network, images, labels)["gradient_penalty"]
    torch.testing.assert_close(penalty.detach(), 2.0 * 0.5 * g.square().sum())


def test_without_weight_it_is_the_plain_loss(images, labels):
    network = smooth()
    terms = DoubleBackprop(weight=0.0)(network, images, labels)
    assert terms["gradient_penalty"].item() == 0
    torch.testing.assert_close(terms["cross_entropy"], Standard()(network, images, labels)["cross_entropy"])
    torch.testing.assert_close(terms["cross_entropy"], functional.cross_entropy(network(images), labels))


def test_the_callers_images_are_left_alone(images, labels):
    sum(DoubleBackprop()(smooth(), images, labels).values()).backward()
    assert not images.requires_grad
    assert images.grad is None


def test_the_authors_chosen_weight_is_the_default():
    assert DoubleBackprop().weight == pytest.approx(56234.13 / 512, abs=0.005)
