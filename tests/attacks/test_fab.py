import dataclasses

import pytest
import torch
from torch import nn

from pellucid.attacks import FAB, PGD
from pellucid.errors import InputError
from pellucid.maths import counted
from pellucid.metrics import predict
from pellucid.models import Classifier
from pellucid.rng import Stream

FAR = {"linf": 1.0, "l2": 100.0}  # no point of the box is outside
ORDER = {"linf": torch.inf, "l2": 2}
DUAL = {"linf": 1, "l2": 2}


class Bent(Classifier):
    """A network with curved boundaries."""

    def __init__(self, generator, classes=5):
        super().__init__()
        layers = nn.Flatten(), nn.Linear(12, 24), nn.Tanh(), nn.Linear(24, classes)
        self.layers = nn.Sequential(*layers)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator) * (3 / p.shape[-1] ** 0.5 if p.ndim == 2 else 0.3))
        self.double()

    def features(self, x):
        return x

    def classify(self, f):
        return self.layers(f)


@pytest.fixture
def images(generator):
    return torch.rand(10, 1, 3, 4, generator=generator, dtype=torch.float64)


@pytest.fixture
def bent(generator):
    return Bent(generator)


def far(norm, out, x):
    return torch.linalg.vector_norm((out - x).flatten(1), ord=ORDER[norm], dim=1)


def projection(norm, point, w, c):
    """The smallest step from `point` (d,) onto <w, z> + c = 0 within the box, by bisection over its size."""
    gap = float(w @ point + c)
    v = -w if gap > 0 else w
    room = torch.where(v > 0, 1 - point, point)
    speed = torch.ones_like(v) if norm == "linf" else v.abs()

    def step(t):
        return torch.where(v == 0, 0.0, v.sign() * torch.minimum(t * speed, room))

    low, high = 0.0, float((room / speed).max()) + 1
    for _ in range(70):
        middle = (low + high) / 2
        low, high = (middle, high) if float(v @ step(middle)) < abs(gap) else (low, middle)
    return step(high)


def algorithm_1(network, x, y, aims, norm, steps, alpha_max=0.1, eta=1.05, beta=0.9):
    """Algorithm 1 of the paper for one image without restarts; returns the distance and all points."""

    def logits(z):
        return network(z.view(1, 1, 3, 4))[0]

    point, nearest, found, visited = x.flatten(), float("inf"), None, []
    for _ in range(steps):
        z = point.clone().requires_grad_(True)
        scores = logits(z)
        planes = []
        for other in aims:
            value = scores[other] - scores[y]
            (w,) = torch.autograd.grad(value, z, retain_graph=True)
            value = float(value.detach())
            planes.append((abs(value) / float(w.norm(p=DUAL[norm])), w, value - float(w @ point)))
        _, w, c = min(planes, key=lambda plane: plane[0])
        origin = x.flatten()
        d, d0 = projection(norm, point, w, c), projection(norm, origin, w, c)
        a, a0 = float(d.norm(p=ORDER[norm])), float(d0.norm(p=ORDER[norm]))
        alpha = min(a / (a + a0), alpha_max)
        point = ((1 - alpha) * (point + eta * d) + alpha * (origin + eta * d0)).clamp(0, 1)
        visited.append(point)
        if int(logits(point).argmax()) != y:
            size = float((point - origin).norm(p=ORDER[norm]))
            if size < nearest:
                nearest, found = size, point
            point = (1 - beta) * origin + beta * point
    return nearest, found, visited


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("boundaries", ["targets", "nearest"])
def test_every_step_is_that_of_the_algorithm(bent, images, norm, boundaries):
    labels = predict(bent, images)
    attack = FAB(norm=norm, eps=FAR[norm], steps=8, boundaries=boundaries, targets=1, final_steps=0)
    visited = []
    handle = bent.register_forward_hook(
        lambda module, given, z: None if z.requires_grad else visited.append(given[0].detach().clone())
    )
    out = attack(bent, images, labels)
    handle.remove()
    assert len(visited) == 9
    with torch.no_grad():
        ranked = bent(images).argsort(1, descending=True)
    for i in range(len(images)):
        aims = ranked[i, 1:2].tolist() if boundaries == "targets" else [k for k in range(5) if k != labels[i]]
        size, found, points = algorithm_1(bent, images[i], int(labels[i]), aims, norm, 8)
        for k, point in enumerate(points):
            torch.testing.assert_close(visited[k + 1][i].flatten(), point, rtol=0, atol=1e-8, msg=f"image {i}, {k}")
        if found is not None:
            torch.testing.assert_close(out[i].flatten(), found, rtol=0, atol=1e-8)
            assert float(far(norm, out[i : i + 1], images[i : i + 1])) == pytest.approx(size)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("boundaries", ["targets", "nearest"])
def test_on_a_linear_network_the_distance_is_that_to_the_nearest_boundary(linear, images, norm, boundaries):
    network, middle = linear(classes=4), 0.45 + 0.1 * images
    labels = predict(network, middle)
    with torch.no_grad():
        lead = network(middle)
        lead = lead.gather(1, labels[:, None]) - lead
        slopes = network.weight[labels][:, None] - network.weight
        distances = lead / slopes.norm(p=DUAL[norm], dim=2)
    exact = distances.scatter(1, labels[:, None], torch.inf).amin(1)
    attack = FAB(norm=norm, eps=FAR[norm], steps=20, boundaries=boundaries)
    out = attack(network, middle, labels)
    assert (predict(network, out) != labels).all()
    torch.testing.assert_close(far(norm, out, middle), exact, rtol=1e-6, atol=1e-9)
    rough = far(norm, dataclasses.replace(attack, final_steps=0)(network, middle, labels), middle)
    assert (rough > exact * (1 + 1e-4)).all(), "without the final search the overshoot remains"
    assert (rough < exact * 1.06).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_slopes_whose_squares_underflow_still_name_the_nearest_boundary(linear, images, norm):
    network, x = linear(classes=4, dtype=torch.float32), images.float()
    labels, attack = predict(network, x), FAB(norm=norm, eps=FAR[norm], steps=5, boundaries="nearest")
    expected = attack(network, x, labels)
    with torch.no_grad():
        network.weight.mul_(1e-30), network.bias.mul_(1e-30)
    torch.testing.assert_close(attack(network, x, labels), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_finds_no_longer_ways_than_pgd_at_any_eps(bent, images, norm):
    labels = predict(bent, images)
    distance = far(norm, FAB(norm=norm, eps=FAR[norm], steps=40)(bent, images, labels), images)
    for eps in (0.05, 0.1) if norm == "linf" else (0.15, 0.3):
        strong = PGD(norm=norm, eps=eps, steps=100, restarts=2)(bent, images, labels, rng=Stream(1))
        fooled = predict(bent, strong) != labels
        assert (distance[fooled] <= eps * 1.02).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_outside_the_ball_it_has_failed_and_says_where_it_looked(bent, images, norm):
    labels = predict(bent, images)
    free = FAB(norm=norm, eps=FAR[norm], steps=20)(bent, images, labels)
    distance = far(norm, free, images)
    eps = float(distance.median())
    out = FAB(norm=norm, eps=eps, steps=20)(bent, images, labels)
    inside = distance <= eps
    assert inside.any()
    assert (~inside).any()
    torch.testing.assert_close(out[inside], free[inside])
    assert (predict(bent, out)[~inside] == labels[~inside]).all()
    torch.testing.assert_close(far(norm, out, images)[~inside], torch.full_like(distance, eps)[~inside])


def test_misclassified_images_come_back_as_copies(bent, images):
    wrong = (predict(bent, images) + 1) % 5
    for leave in (False, True):
        with counted() as passes:
            out = FAB(eps=0.1, steps=5, restarts=2)(bent, images, wrong, stop_when_fooled=leave)
        assert torch.equal(out, images)
        assert out.data_ptr() != images.data_ptr()
        assert (passes.forward, passes.backward) == (10, 0)


@pytest.mark.parametrize("boundaries", ["targets", "nearest"])
def test_its_passes_are_those_it_says_and_the_fooled_are_not_paid_for(bent, images, boundaries):
    labels = predict(bent, images)
    planes = 4 if boundaries == "nearest" else 1
    runs = 1 if boundaries == "nearest" else 3
    attack = FAB(eps=0.08, steps=10, boundaries=boundaries, targets=3)
    with counted() as full:
        out = attack(bent, images, labels)
    assert full.backward == 10 * 10 * runs * planes
    assert 10 + 200 * runs <= full.forward <= 10 + 200 * runs + 30  # and three cuts for those that were found
    sizes = []
    bent.register_forward_hook(lambda module, given, z: sizes.append(len(z)))
    with counted() as early:
        fast = attack(bent, images, labels, stop_when_fooled=True)
    assert early.forward == sum(sizes) < full.forward / 1.5
    assert early.backward < full.backward / 1.5
    assert torch.equal(predict(bent, fast) != labels, predict(bent, out) != labels)
    standing = int((predict(bent, fast) == labels).sum())
    assert 0 < standing < 10


def test_restarts_begin_half_way_and_never_lengthen_the_way(bent, images):
    labels = predict(bent, images)
    for norm, eps in (("linf", 0.02), ("l2", 0.05)):
        attack = FAB(norm=norm, eps=eps, steps=6, targets=1, final_steps=0)
        visited = []
        handle = bent.register_forward_hook(lambda m, given, z, v=visited: v.append((z.requires_grad, given[0])))
        more = dataclasses.replace(attack, restarts=2)(bent, images, labels, rng=Stream(2))
        handle.remove()
        gradients = [x.detach() for graph, x in visited if graph]
        started = far(norm, gradients[6], images)
        found = far(
            norm, FAB(norm=norm, eps=FAR[norm], steps=6, targets=1, final_steps=0)(bent, images, labels), images
        )
        expected = found.clamp(max=eps) / 2
        assert (started <= expected + 1e-9).all()  # shorter where the box cuts it
        assert ((started - expected).abs() < 1e-9).any()
        once = attack(bent, images, labels)
        fooled = [predict(bent, x) != labels for x in (once, more)]
        assert (fooled[1] | ~fooled[0]).all()


def test_with_a_target_only_the_target_will_do(linear, images):
    network, middle = linear(classes=5), 0.4 + 0.2 * images
    labels = predict(network, middle)
    aims = (labels + 2) % 5
    attack = FAB(norm="l2", eps=100, steps=30)
    out = attack(network, middle, labels, target=aims)
    assert (predict(network, out) == aims).float().mean() >= 0.9
    by_rule = dataclasses.replace(attack, target="next")(network, middle, labels)
    assert (predict(network, by_rule) == (labels + 1) % 5).float().mean() >= 0.9
    other = attack(network, middle, labels)
    assert (far("l2", out, middle) >= far("l2", other, middle) - 1e-3).all()


def test_two_classes_are_enough_and_one_is_not(linear, images):
    network = linear(classes=2)
    labels = predict(network, images)
    assert (predict(network, FAB(eps=1, steps=15)(network, images, labels)) != labels).all()
    for target in (None, torch.zeros_like(labels)):
        with pytest.raises(InputError, match="two classes"):
            FAB(eps=1, steps=2)(linear(classes=1), images, torch.zeros_like(labels), target=target)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_network_sees_the_dtype_of_the_images(linear, images, norm, dtype):
    network, x, seen = linear(classes=4, dtype=torch.float32).to(dtype), images.to(dtype), set()
    labels = predict(network, x)
    handle = network.register_forward_pre_hook(lambda module, given: seen.add(given[0].dtype))
    out = FAB(norm=norm, eps=FAR[norm], steps=6, restarts=2)(network, x, labels, rng=Stream(1))
    handle.remove()
    assert seen == {out.dtype} == {dtype}
    assert (predict(network, out) != labels).float().mean() > 0.5


def test_an_objective_is_refused(images):
    with pytest.raises(InputError, match="boundaries between classes"):
        FAB(eps=0.1).maximise(lambda x, rows: x.flatten(1).sum(1), images)


def test_the_result_is_an_ordinary_tensor_under_inference_mode():
    x, y = torch.tensor([[[[0.2, 0.7]]]]), torch.tensor([1])
    with torch.inference_mode():
        assert not FAB(eps=0.3, steps=3)(nn.Flatten(), x, y).is_inference()
