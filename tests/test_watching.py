import math

import pytest
import torch
from torch import nn

from pellucid.attacks import FGSM, PGD
from pellucid.data import Digits
from pellucid.maths.passes import counted
from pellucid.models import Classifier, SmallCNN
from pellucid.rng import Stream, derive, global_seed
from pellucid.watching import attacked, batch_figures, figures, right

LABELS = torch.tensor([2, 0, 1, 1, 2, 0, 0])


class Smooth(Classifier):
    """A twice differentiable network with batch normalisation and dropout, in float64."""

    def __init__(self, normalised=True):
        super().__init__(mean=0.3, std=0.5, channels=1)
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4) if normalised else nn.Identity(),
            nn.Tanh(),
            nn.Flatten(),
            nn.Dropout(0.5 if normalised else 0),
            nn.Linear(36, 3),
        )

    def features(self, x):
        return x

    def classify(self, f):
        return self.layers(f)


@pytest.fixture
def network():
    with global_seed(0):
        network = Smooth().double()
        network.train()
        for _ in range(3):  # statistics that are not those of the start
            network(torch.rand(20, 1, 5, 5, dtype=torch.float64))
    return network


@pytest.fixture
def x(generator):
    return torch.rand(7, 1, 5, 5, generator=generator, dtype=torch.float64)


def image_by_image(network, x, y):
    """Return the three means of squared norms: one image, one class at a time."""
    network.eval()
    sums = torch.zeros(3, dtype=torch.float64)
    for image, label in zip(x, y):
        slopes = []
        for k in range(3):
            leaf = image[None].clone().requires_grad_(True)
            (g,) = torch.autograd.grad(torch.log(network(leaf).softmax(1)[0, k]), leaf)
            slopes.append(g)
        others = sum(g for k, g in enumerate(slopes) if k != label)
        chosen = (slopes[label], others, sum(slopes))
        sums += torch.stack([g.square().sum() for g in chosen])
    return (sums / len(x)).tolist()


def test_squared_gradients_are_those_of_explicit_loops(network, x):
    found = figures(network, x, LABELS, None, 0)
    own, others, everything = image_by_image(network, x, LABELS)
    assert found["validation_squared_gradient"] == pytest.approx(own, rel=1e-10)
    assert found["validation_squared_gradient_others"] == pytest.approx(others, rel=1e-10)
    assert found["validation_squared_gradient_all"] == pytest.approx(everything, rel=1e-10)
    assert len({round(v, 6) for v in (own, others, everything)}) == 3
    assert min(own, others, everything) > 1e-4


def test_squared_gradients_agree_with_finite_differences(x):
    """Another derivation altogether: central differences of log p in every pixel."""
    with global_seed(1):
        network = Smooth(normalised=False).double().eval()
    found, h = figures(network, x[:1], LABELS[:1], None, 0), 1e-5

    def logs(image):
        with torch.no_grad():
            return network(image.view(1, 1, 5, 5)).log_softmax(1)[0]

    steps = h * torch.eye(25, dtype=torch.float64)
    slopes = torch.stack([(logs(x[0].flatten() + e) - logs(x[0].flatten() - e)) / (2 * h) for e in steps])
    own, whole = slopes[:, 2], slopes.sum(1)
    assert found["validation_squared_gradient"] == pytest.approx(float(own.square().sum()), rel=1e-6)
    assert found["validation_squared_gradient_others"] == pytest.approx(float((whole - own).square().sum()), rel=1e-6)
    assert found["validation_squared_gradient_all"] == pytest.approx(float(whole.square().sum()), rel=1e-6)


def test_accuracy_and_loss(network, x):
    found = figures(network, x, LABELS, None, 0)
    assert set(found) == {
        "validation_accuracy",
        "validation_cross_entropy",
        "validation_squared_gradient",
        "validation_squared_gradient_others",
        "validation_squared_gradient_all",
    }
    logits = network.eval()(x)
    assert found["validation_accuracy"] == pytest.approx(int((logits.argmax(1) == LABELS).sum()) / 7)
    loss = -sum(torch.log(logits[n].softmax(0)[k]).item() for n, k in enumerate(LABELS)) / 7
    assert found["validation_cross_entropy"] == pytest.approx(loss, rel=1e-10)


def test_nothing_is_said_of_no_images(network, x):
    assert figures(network, x[:0], LABELS[:0], FGSM(eps=0.1), 0) == {}


def test_the_network_is_left_as_it_was(network, x):
    """In train mode, with the same statistics, without a gradient in its weights; the images too."""
    before, images = {k: v.clone() for k, v in network.state_dict().items()}, x.clone()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    figures(network, x, LABELS, PGD(eps=0.1, steps=2), 0)
    batch_figures(network, x, LABELS, PGD(eps=0.1, steps=2, mode="train"), 0)
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert all(module.training for module in network.modules())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
    assert torch.equal(x, images)
    assert not x.requires_grad


def test_the_accuracy_on_a_batch_is_that_of_eval_mode(network, x):
    found = batch_figures(network, x, LABELS, None, 0)
    assert found == {"training_accuracy": right(network.eval()(x), LABELS)}


def test_accuracies_under_attack_are_of_the_attack_in_eval_mode(network, x):
    attack = FGSM(eps=0.3)
    found = figures(network, x, LABELS, attack, 0) | batch_figures(network, x, LABELS, attack, 0)
    network.eval()
    expected = right(network(attack(network, x, LABELS)), LABELS)
    assert found["attacked_accuracy"] == found["attacked_training_accuracy"] == expected
    assert expected < found["validation_accuracy"]


def test_random_starts_depend_on_the_seed_alone():
    """The same ones at every log, so that a fall of the figure is the network's; and they are used."""
    with global_seed(0):
        network = SmallCNN(filters=(3, 4, 5)).build(1, (28, 28), 10).eval()
    split, seen = Digits(train=20).load("train"), []

    class Spying(nn.Module):
        def __call__(self, model, x, y, *, target=None, rng=None, stop_when_fooled=False):
            seen.append(PGD(eps=0.1, steps=2)(model, x, y, rng=rng))
            return seen[-1]

    x, y = split.images(), split.labels
    attacked(network, x, y, Spying(), 4)
    torch.rand(5)
    figures(network, x, y, Spying(), 4)
    attacked(network, x, y, Spying(), 5)
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], PGD(eps=0.1, steps=2)(network, x, y, rng=Stream(derive(4, "watched"))))
    assert not torch.equal(seen[0], seen[2])


def test_what_watching_costs(network, x):
    with counted() as passes:
        figures(network, x, LABELS, None, 0)
    assert (passes.forward, passes.backward) == (7, 14)
    with counted() as passes:
        batch_figures(network, x, LABELS, None, 0)
    assert (passes.forward, passes.backward) == (7, 0)


def test_figures_are_float32_where_the_network_is_not():
    """bfloat16 has three digits: a loss of ln 10 to seven says that the softmax was not taken in it."""
    with global_seed(0):
        network = SmallCNN(filters=(3, 4, 5)).build(1, (28, 28), 10)
    nn.init.zeros_(network.head.weight)
    split = Digits(train=20).load("train")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network(split.images()).dtype == torch.bfloat16
        found = figures(network, split.images(), split.labels, None, 0)
    assert found["validation_cross_entropy"] == pytest.approx(math.log(10), rel=1e-6)
