import numpy as np
import pytest
import torch

from pellucid.attacks import CarliniWagner
from pellucid.errors import GradientError, InputError
from pellucid.maths import counted
from pellucid.metrics import predict

FEW = {"search_steps": 3, "adam_steps": 30, "learning_rate": 0.05, "initial_c": 1.0}


@pytest.fixture
def images(generator):
    return 0.4 + 0.2 * torch.rand(6, 1, 3, 4, generator=generator, dtype=torch.float64)


def to_the_boundary(network, images):
    """The distance of every image to the other class of two, in closed form."""
    logits, weight = network(images).detach(), network.weight.detach()
    return (logits[:, 1] - logits[:, 0]).abs() / (weight[1] - weight[0]).norm()


@pytest.mark.parametrize(
    ("steps", "rate", "tolerance"),
    [((4, 200), 3e-3, 1e-4), pytest.param((12, 1000), 5e-4, 1e-5, marks=pytest.mark.slow)],
)
def test_on_a_linear_network_it_finds_the_distance_to_the_boundary(linear, images, steps, rate, tolerance):
    network = linear(classes=2)
    own = predict(network, images)
    runs, each = steps
    attack = CarliniWagner(adam_steps=each, learning_rate=rate, search_steps=runs, initial_c=0.1, abort_early=False)
    found = attack(network, images, own)
    assert bool((predict(network, found) != own).all())
    gap = (found - images).flatten(1).norm(dim=1) - to_the_boundary(network, images)
    assert float(gap.min()) >= -1e-12
    assert float(gap.max()) <= tolerance


def test_of_two_classes_the_other_is_the_target(linear, images):
    network, attack = linear(classes=2), CarliniWagner(**FEW)
    own = predict(network, images)
    assert torch.equal(attack(network, images, own), attack(network, images, own, target=1 - own))


def reference(network, x, y, *, confidence, search_steps, adam_steps, learning_rate, initial_c, targeted=False):
    """The attack for one image, in NumPy but for the network's gradient; no early abort."""
    x, c, low, high, best, nearest = x.numpy(), initial_c, 0.0, np.inf, x.numpy(), np.inf
    for _ in range(search_steps):
        w, m, v, found = np.arctanh(0.999999 * (2 * x - 1)), np.zeros_like(x), np.zeros_like(x), False
        for t in range(1, adam_steps + 1):
            leaf = torch.from_numpy(w).requires_grad_(True)
            moved = (torch.tanh(leaf) + 1) / 2
            z = network(moved[None])[0]
            other = max(z[j] for j in range(len(z)) if j != y)
            hinge = torch.clamp((other - z[y] if targeted else z[y] - other) + confidence, min=0)
            away = ((moved - torch.from_numpy(x)) ** 2).sum()
            (g,) = torch.autograd.grad(away + c * hinge, leaf)
            if float(hinge) == 0 and float(away) < nearest:
                best, nearest = moved.detach().numpy(), float(away)
            found, g = found or float(hinge) == 0, g.numpy()
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            w = w - learning_rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        low, high = (low, min(high, c)) if found else (max(low, c), high)
        c = 10 * c if np.isinf(high) else (low + high) / 2
    return best


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("confidence", [0.0, 0.7])
def test_is_the_algorithm_written_out_for_one_image(linear, images, confidence, targeted):
    network = linear(classes=3)
    own = predict(network, images)
    aim = (own + 1) % 3
    attack = CarliniWagner(confidence=confidence, abort_early=False, **FEW)
    found = attack(network, images, own, target=aim if targeted else None)
    assert not torch.equal(found, images)
    for i in range(6):
        y = int(aim[i] if targeted else own[i])
        slow = reference(network, images[i], y, confidence=confidence, targeted=targeted, **FEW)
        np.testing.assert_allclose(found[i].numpy(), slow, rtol=0, atol=1e-9)


def test_confidence_is_a_lead_of_the_logits(linear, images):
    network = linear(classes=2)
    own = predict(network, images)
    sizes = []
    for confidence in (0.0, 0.5, 1.5):
        found = CarliniWagner(confidence=confidence, **FEW)(network, images, own)
        moved = (found != images).flatten(1).any(1)
        assert bool(moved.any())
        z = network(found).detach()
        lead = (z[:, 1] - z[:, 0]) * torch.where(own == 0, 1.0, -1.0)
        assert bool((lead[moved] >= confidence).all())
        sizes.append(float((found - images).flatten(1).norm(dim=1).mean()))
    assert sizes == sorted(sizes)


def test_images_that_cannot_be_fooled_come_back_unchanged(linear, images):
    network = linear(classes=2)
    own = predict(network, images)
    hopeless = CarliniWagner(search_steps=2, adam_steps=2, learning_rate=1e-4)
    assert torch.equal(hopeless(network, images, own), images)


def test_images_that_are_misclassified_stay_where_they_are(linear, images):
    network = linear(classes=3)
    wrong = (predict(network, images) + 1) % 3
    for leave in (False, True):
        found = CarliniWagner(**FEW)(network, images, wrong, stop_when_fooled=leave)
        torch.testing.assert_close(found, images, rtol=0, atol=1e-6)


def test_white_and_black_pixels_can_move(linear, images):
    network = linear(classes=2)
    x = (images > 0.5).double()
    own = predict(network, x)
    found = CarliniWagner(search_steps=3, adam_steps=60, learning_rate=0.5, initial_c=10.0)(network, x, own)
    assert bool((predict(network, found) != own).all())


def test_every_step_costs_a_forward_and_a_backward(linear, images):
    network = linear(classes=2)
    own = predict(network, images)
    with counted() as passes:
        CarliniWagner(abort_early=False, **FEW)(network, images, own)
    assert (passes.forward, passes.backward) == (6 * 90, 6 * 90)
    with counted() as early:
        CarliniWagner(**{**FEW, "learning_rate": 0.3})(network, images, own)
    assert early.forward == early.backward < 6 * 90, "images that stand still leave the run"
    with counted() as stopped:
        found = CarliniWagner(**FEW)(network, images, own, stop_when_fooled=True)
    assert bool((predict(network, found) != own).all())
    assert stopped.forward < 6 * 30, "images leave for good at their first success"


def lambda_module(function):
    module = torch.nn.Module()
    module.forward = function
    return module


def test_what_makes_no_sense_is_refused(linear, images):
    attack, zeros = CarliniWagner(**FEW), torch.zeros(6, dtype=torch.long)
    with pytest.raises(InputError, match="two classes"):
        attack(linear(classes=1), images, zeros)
    with pytest.raises(InputError, match="cannot maximise"):
        attack.maximise(lambda x, rows: x.flatten(1).sum(1), images)
    with pytest.raises(InputError, match=r"labels must be 0\.\.2; found 3"):
        attack(linear(), images, zeros + 3)
    with pytest.raises(InputError, match="target labels"):
        attack(linear(), images, zeros, target=zeros + 3)
    network = linear()
    with pytest.raises(GradientError, match="NaN"):
        attack(lambda_module(lambda x: network(x) + (x - x).sqrt().sum((1, 2, 3))[:, None]), images, zeros)


def test_a_large_c_does_not_overflow_half_precision():
    """An image that no run fools raises c to its limit, which float16 has to bear."""
    sure = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).half()
    with torch.no_grad():
        sure[1].weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0]]))
        sure[1].bias.copy_(torch.tensor([50.0, 0]))
    x, y = torch.full((2, 1, 2, 2), 0.5).half(), torch.tensor([0, 0])
    assert torch.equal(CarliniWagner(adam_steps=3, search_steps=12)(sure, x, y), x)
