import numpy as np
import pytest
import torch
from torch import nn

from pellucid.attacks import DeepFool
from pellucid.errors import GradientError, InputError, SpecError
from pellucid.maths import counted
from pellucid.metrics import predict
from pellucid.models.classifier import Classifier

NORMS = ("l2", "linf")


@pytest.fixture
def images(generator):
    return 0.4 + 0.2 * torch.rand(15, 1, 3, 4, generator=generator, dtype=torch.float64)


class Curved(Classifier):
    """Smooth and not linear, so that several steps are needed."""

    def __init__(self, classes=5):
        super().__init__()
        self.first, self.second = nn.Linear(12, 16), nn.Linear(16, classes)
        with torch.no_grad():
            for number, p in enumerate(self.parameters()):
                p.copy_(torch.sin(torch.arange(p.numel()) ** 2 * (1.3 + number)).view_as(p))
            self.second.bias.zero_()

    def features(self, x):
        return x

    def classify(self, f):
        return self.second(torch.tanh(6 * self.first(f.flatten(1) - 0.5)))


@pytest.fixture
def curved():
    return Curved().double().requires_grad_(False)


def distances(network, images, norm):
    """The distance of every image to every other class's boundary, in closed form on a linear network: (N, K)."""
    logits, weight = network(images).detach(), network.weight.detach()
    own = logits.argmax(1)
    gaps = logits.gather(1, own[:, None]) - logits
    order = {"l2": 2, "linf": 1}[norm]  # the dual norm
    slopes = torch.stack([torch.linalg.vector_norm(weight - weight[k], ord=order, dim=1) for k in own])
    return (gaps / slopes).scatter(1, own[:, None], torch.inf)


def size(norm, change):
    return torch.linalg.vector_norm(change.flatten(1), ord={"l2": 2, "linf": torch.inf}[norm], dim=1)


@pytest.mark.parametrize("at", ["each_step", "end"])
@pytest.mark.parametrize("norm", NORMS)
def test_on_a_linear_network_one_step_crosses_the_nearest_boundary(linear, images, norm, at):
    network, anything = linear(classes=4), torch.zeros(15, dtype=torch.long)
    nearest, where = distances(network, images, norm).min(1)
    attack = DeepFool(norm=norm, overshoot_at=at)
    with counted() as passes:
        found = attack(network, images, anything)
    expected = 1.02 * (nearest + 1e-4)
    torch.testing.assert_close(size(norm, found - images), expected, rtol=0, atol=1e-9)
    assert torch.equal(predict(network, found), where), "it is the nearest of the boundaries that is crossed"
    assert (passes.forward, passes.backward) == (30, 45), "one step, and the forward that sees it succeed"


@pytest.mark.parametrize("norm", NORMS)
def test_without_overshoot_the_distance_is_that_to_the_boundary(linear, images, norm):
    network = linear(classes=4)
    nearest = distances(network, images, norm).min(1).values
    found = DeepFool(norm=norm, overshoot=0.0, nudge=1e-7)(network, images, torch.zeros(15, dtype=torch.long))
    torch.testing.assert_close(size(norm, found - images), nearest, rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_towards_a_target_only_its_boundaries_count(linear, images, norm):
    network, own = linear(classes=2), predict(linear(classes=2), images)
    found = DeepFool(norm=norm)(network, images, own, target=1 - own)
    torch.testing.assert_close(found, DeepFool(norm=norm)(network, images, own))
    network = linear(classes=4)
    own = predict(network, images)
    for shift in (1, 2, 3):
        aim = (own + shift) % 4
        with counted() as passes:
            found = DeepFool(norm=norm)(network, images, own, target=aim)
        assert torch.equal(predict(network, found), aim)
        assert passes.backward <= 15 * 4, "one gradient a step, not one a class"
        least = distances(network, images, norm).gather(1, aim[:, None])[:, 0]
        assert bool((size(norm, found - images) >= least).all())
    assert torch.equal(DeepFool()(network, images, own, target=own), images), "those that are there already stay"


def reference(network, x, norm, *, steps, overshoot, nudge, candidates, at, clip):
    """Algorithm 2 of the paper and the authors' loop, one image and one class at a time in NumPy."""

    def z_and_slopes(point):
        leaf = torch.from_numpy(point)[None].requires_grad_(True)
        z = network(leaf)[0]
        slopes = [torch.autograd.grad(z[k], leaf, retain_graph=True)[0][0].numpy() for k in range(len(z))]
        return z.detach().numpy(), slopes

    origin, total = x.numpy(), np.zeros_like(x.numpy())
    classes = np.argsort(-z_and_slopes(origin)[0])[:candidates]
    for _ in range(steps):
        point = origin + ((1 + overshoot) if at == "each_step" else 1) * total
        z, slopes = z_and_slopes(np.clip(point, 0, 1) if clip == "each_step" else point)
        if z.argmax() != classes[0]:
            break
        best = None
        for k in classes[1:]:
            w, f = slopes[k] - slopes[classes[0]], abs(z[k] - z[classes[0]])
            length = np.sqrt((w**2).sum()) if norm == "l2" else np.abs(w).sum()
            if best is None or f / length < best[0]:
                best = f / length, w / length if norm == "l2" else np.sign(w)
        total = total + (best[0] + nudge) * best[1]
    return np.clip(origin + (1 + overshoot) * total, 0, 1)


@pytest.mark.parametrize("clip", ["each_step", "end"])
@pytest.mark.parametrize("at", ["each_step", "end"])
@pytest.mark.parametrize("norm", NORMS)
def test_is_the_algorithm_written_out_for_one_image(curved, images, norm, at, clip):
    x = (4 * (images - 0.5) + 0.5).clamp(0, 1)  # some pixels at the ends of the range
    for steps, candidates, overshoot in ((1, 5, 0.02), (2, 3, 0.02), (20, 5, 0.02), (20, 2, 0.5)):
        fields = {"steps": steps, "overshoot": overshoot, "nudge": 1e-4, "candidates": candidates}
        found = DeepFool(norm=norm, overshoot_at=at, clip=clip, **fields)(curved, x, torch.zeros(15, dtype=torch.long))
        for i in range(15):
            slow = reference(curved, x[i], norm, at=at, clip=clip, **fields)
            np.testing.assert_allclose(found[i].numpy(), slow, rtol=0, atol=1e-10)


def test_all_classes_are_candidates_on_request(curved, images):
    y = torch.zeros(15, dtype=torch.long)
    exact = DeepFool(candidates=None)(curved, images, y)
    assert torch.equal(exact, DeepFool(candidates=5)(curved, images, y))
    assert torch.equal(exact, DeepFool(candidates=99)(curved, images, y))
    assert not torch.equal(exact, DeepFool(candidates=2)(curved, images, y))


def test_images_pay_only_while_they_stand(curved, images):
    y = torch.zeros(15, dtype=torch.long)
    own = predict(curved, images)
    needed = torch.full((15,), 99)  # steps until the label changes
    for steps in range(12, 0, -1):
        needed[predict(curved, DeepFool(steps=steps)(curved, images, y)) != own] = steps
    assert len(needed.unique()) > 3, "the images should not all leave together"
    forward = backward = 0
    for number in range(12):
        standing, checked = int((needed > number).sum()), int((needed >= number).sum())
        gone = checked - standing
        again = gone > 0 and 0 < standing < gone * 4
        forward += checked + (standing if again else 0)
        backward += 4 * (standing if again or not standing else checked)
    with counted() as passes:
        DeepFool(steps=12)(curved, images, y)
    assert (passes.forward, passes.backward) == (forward, backward)


def test_it_is_the_networks_own_label_that_is_left(curved, images):
    own = predict(curved, images)
    wrong = (own + 1) % 5
    found = DeepFool()(curved, images, own)
    assert bool((predict(curved, found) != own).all())
    assert torch.equal(DeepFool()(curved, images, wrong), found), "y plays no part"
    mixed = torch.where(torch.arange(15) % 2 == 0, own, wrong)
    stopped = DeepFool()(curved, images, mixed, stop_when_fooled=True)
    assert torch.equal(stopped[1::2], images[1::2]), "for white-box accuracy what is wrong already stays"
    torch.testing.assert_close(stopped[::2], found[::2], rtol=0, atol=1e-12)


def test_a_label_that_changed_stays_changed_in_float32(linear):
    network = linear(classes=3, pixels=48, dtype=torch.float32)
    own = torch.Generator().manual_seed(3)
    x = torch.rand(200, 3, 4, 4, generator=own)
    for norm in NORMS:
        found = DeepFool(norm=norm)(network, x, torch.zeros(200, dtype=torch.long))
        alone = torch.cat([predict(network, found[i : i + 1]) for i in range(200)])
        assert bool((alone != predict(network, x)).all())


def test_where_the_network_is_flat_nothing_moves(linear, images):
    network = linear(classes=3)
    with torch.no_grad():
        network.weight.zero_()
    assert torch.equal(DeepFool()(network, images, torch.zeros(15, dtype=torch.long)), images)


def test_slopes_whose_squares_underflow_still_lead_somewhere(linear, images):
    network, x = linear(classes=3, dtype=torch.float32), images.float()
    expected = DeepFool()(network, x, torch.zeros(15, dtype=torch.long))
    with torch.no_grad():
        network.weight.mul_(1e-30), network.bias.mul_(1e-30)
    torch.testing.assert_close(DeepFool()(network, x, torch.zeros(15, dtype=torch.long)), expected, rtol=0, atol=1e-5)


def test_an_image_on_the_boundary_crosses_it(linear):
    network = linear(classes=2)
    with torch.no_grad():
        network.bias.copy_(-network.weight.sum(1) / 2)
    grey = torch.full((1, 1, 3, 4), 0.5, dtype=torch.float64)
    found = DeepFool()(network, grey, torch.tensor([0]))
    assert predict(network, found) != predict(network, grey)
    assert float((found - grey).norm()) < 1e-3


def test_what_makes_no_sense_is_refused(linear, images):
    with pytest.raises(SpecError, match="at least 2 candidates"):
        DeepFool(candidates=1)
    with pytest.raises(InputError, match="at least two classes"):
        DeepFool()(linear(classes=1), images, torch.zeros(15, dtype=torch.long))
    with pytest.raises(InputError, match="boundary between classes"):
        DeepFool().maximise(lambda x, rows: x.flatten(1).sum(1), images)
    with pytest.raises(InputError, match=r"labels must be 0\.\.2; found 3"):
        DeepFool()(linear(), images, torch.full((15,), 3))
    with pytest.raises(InputError, match="target labels"):
        DeepFool()(linear(), images, torch.zeros(15, dtype=torch.long), target=torch.full((15,), 3))

    class Broken(Curved):
        def classify(self, f):
            return super().classify(f) + (0 * f.flatten(1)[:, :1]).sqrt()  # its slope is 0 times infinity

    with pytest.raises(GradientError, match="NaN"):
        DeepFool()(Broken().double(), images, torch.zeros(15, dtype=torch.long))
