import dataclasses
import itertools
import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

from pellucid.attacks import APGD, PGD
from pellucid.attacks.apgd import code_windows, likeliest_others, paper_windows
from pellucid.errors import InputError
from pellucid.maths import counted, cross_entropy, dlr, margin
from pellucid.maths.notes import noted
from pellucid.metrics import predict
from pellucid.models import Classifier
from pellucid.rng import Stream

EPS = {"linf": 0.15, "l2": 0.6}


class Rugged(Classifier):
    """A network with many local maxima, so that steps are halved again and again."""

    def __init__(self, generator, classes=5):
        super().__init__()
        layers = nn.Flatten(), nn.Linear(12, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, classes)
        self.layers = nn.Sequential(*layers)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator) * (6 / p.shape[-1] ** 0.5 if p.ndim == 2 else 1))
        self.double()

    def features(self, x):
        return x

    def classify(self, f):
        return self.layers(f)


@pytest.fixture
def images(generator):
    return torch.rand(10, 1, 3, 4, generator=generator, dtype=torch.float64)


@pytest.fixture
def rugged(generator):
    return Rugged(generator)


# ------------------------------------------------------------------------- the pseudo-code, one image at a time


def loss_of(name, z, y):
    if name == "cross_entropy":
        return torch.logsumexp(z, 0) - z[y]
    order = z.sort(descending=True).values
    return -(z[y] - max(z[j] for j in range(len(z)) if j != y)) / (order[0] - order[2] + 1e-12)


def projected(norm, z, x, eps):
    delta = z - x
    delta = delta.clamp(-eps, eps) if norm == "linf" else delta * min(1.0, eps / max(float(delta.norm()), 1e-300))
    return (x + delta).clamp(0, 1)


def pseudo_code(network, x, y, start, norm, eps, steps, loss, alpha=0.75, rho=0.75):
    """Algorithm 1 of Croce & Hein 2020 for one image; returns every iterate and its loss, and how often it halved."""

    def f(point):
        return float(loss_of(loss, network(point[None])[0].detach(), y))

    def ascent(point):
        leaf = point.clone().requires_grad_(True)
        (g,) = torch.autograd.grad(loss_of(loss, network(leaf[None])[0], y), leaf)
        return g.sign() if norm == "linf" else g / g.norm()

    p = [0.0, 0.22]
    while p[-1] <= 1:
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    w = [math.ceil(round(share * steps, 9)) for share in p]
    eta = [2 * eps]  # eta[j]: the step after checkpoint j
    xs = [start, projected(norm, start + eta[0] * ascent(start), x, eps)]
    fs = [f(xs[0]), f(xs[1])]
    seen = [(xs[0], fs[0]), (xs[1], fs[1])]
    x_max, f_max = (xs[0], fs[0]) if fs[0] >= fs[1] else (xs[1], fs[1])
    best_at = {0: fs[0]}  # the highest loss among x_0 .. x_k, at checkpoints
    j = 1
    for k in range(1, steps):
        z = projected(norm, xs[k] + eta[-1] * ascent(xs[k]), x, eps)
        new = projected(norm, xs[k] + alpha * (z - xs[k]) + (1 - alpha) * (xs[k] - xs[k - 1]), x, eps)
        best_at[k] = f_max
        value = f(new)
        seen.append((new, value))
        xs.append(new)
        fs.append(value)
        if value > f_max:
            x_max, f_max = new, value
        if k == w[j]:
            rises = sum(fs[i + 1] > fs[i] for i in range(w[j - 1], w[j]))
            condition1 = rises < rho * (w[j] - w[j - 1])
            condition2 = (j == 1 or eta[-1] == eta[-2]) and best_at[w[j - 1]] == best_at[w[j]]
            eta.append(eta[-1] / 2 if condition1 or condition2 else eta[-1])
            if condition1 or condition2:
                xs[k + 1], fs[k + 1] = x_max, f_max
            j += 1
    return seen, sum(a != b for a, b in itertools.pairwise(eta))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["cross_entropy", "dlr"])
@pytest.mark.parametrize("steps", [37, 100])
def test_every_iterate_is_that_of_the_pseudo_code(rugged, images, norm, loss, steps):
    with torch.no_grad():  # gentler: where all is chaos, rounding alone parts the two after twenty steps
        for p in rugged.parameters():
            p.mul_(0.5 if p.ndim == 2 else 1)
    labels = predict(rugged, images)
    per_example = {"cross_entropy": cross_entropy, "dlr": dlr}[loss]
    visited = []

    def objective(x, rows):
        visited.append(x.detach().clone())
        return per_example(rugged(x), labels[rows])

    attack = APGD(norm=norm, eps=EPS[norm], steps=steps)
    out = attack.maximise(objective, images, rng=Stream(3))
    halvings = 0
    for i in range(len(images)):
        seen, halved = pseudo_code(rugged, images[i], int(labels[i]), visited[0][i], norm, EPS[norm], steps, loss)
        halvings += halved
        assert len(seen) == len(visited) == steps + 1
        for k, (point, _) in enumerate(seen):
            torch.testing.assert_close(visited[k][i], point, rtol=0, atol=1e-8, msg=f"image {i}, x_{k}")
        best = max(value for _, value in seen)
        got = float(loss_of(loss, rugged(out[i : i + 1])[0].detach(), int(labels[i])))
        assert got == pytest.approx(best, abs=1e-9)
    assert halvings > 2 * len(images), "the network is too smooth to try the checkpoints"


def test_the_checkpoints_are_those_of_the_formula():
    assert list(paper_windows(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert paper_windows(100) == code_windows(100)
    assert list(paper_windows(10)) == [3, 5, 6, 7, 8, 9]
    assert paper_windows(1) == code_windows(1) == {}
    for steps in range(1, 300):
        for windows in (paper_windows(steps), code_windows(steps)):
            assert sum(windows.values()) == max(windows, default=0) < max(steps, 1)
            assert min(windows.values(), default=1) >= 1


# ---------------------------------------------------------------------------------- what it returns, and for whom


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("form", ["paper", "code"])
@pytest.mark.parametrize("start", ["ball", "surface", "image"])
def test_on_a_linear_network_it_reaches_the_worst_point(linear, images, norm, form, start):
    network, middle, labels = linear(classes=2), 0.4 + 0.2 * images, torch.arange(10) % 2
    direction = (network.weight[1] - network.weight[0]).detach().view(1, 1, 3, 4)
    direction = direction * torch.where(labels == 0, 1.0, -1.0).view(-1, 1, 1, 1)
    unit = direction.sign() if norm == "linf" else direction / direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    attack = APGD(norm=norm, eps=0.2, steps=60, form=form, start=start)
    torch.testing.assert_close(attack(network, middle, labels, rng=Stream(1)), middle + 0.2 * unit, rtol=0, atol=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_what_it_returns_is_a_success_with_the_highest_loss(rugged, images, norm):
    labels, eps = predict(rugged, images), EPS[norm] / 3
    visited = []
    rugged.register_forward_hook(lambda module, given, logits: visited.append((given[0].detach(), logits.detach())))
    out = APGD(norm=norm, eps=eps, steps=30)(rugged, images, labels, rng=Stream(2))
    points, logits = (torch.stack(parts) for parts in zip(*visited))
    loss = torch.stack([cross_entropy(z, labels) for z in logits])
    fooled = logits.argmax(2) != labels
    some = fooled.any(0)
    assert some.any(), "nobody was fooled"
    assert (~some).any(), "everybody was fooled"
    chosen = torch.where(fooled | ~some, loss, -torch.inf).argmax(0)
    assert torch.equal(out, points[chosen, torch.arange(10)])


def test_it_is_stronger_than_pgd_and_more_restarts_are_no_weaker(generator, images):
    network = Rugged(generator)
    labels = predict(network, images)
    losses = [
        margin(network(attack(network, images, labels, rng=Stream(5))), labels).detach()
        for attack in (
            PGD(eps=0.03, steps=50),
            APGD(eps=0.03, steps=50),
            APGD(eps=0.03, steps=50, restarts=4),
        )
    ]
    fooled = [int((values > 0).sum()) for values in losses]
    assert fooled == sorted(fooled)


@pytest.mark.parametrize("loss", ["cross_entropy", "dlr", "targeted_dlr"])
def test_only_those_still_standing_are_paid_for(rugged, images, loss):
    labels = predict(rugged, images)
    attack = APGD(eps=0.06, steps=20, loss=loss, restarts=2, targets=3)
    sizes = []
    rugged.register_forward_hook(lambda module, given, logits: sizes.append((len(logits), logits.requires_grad)))
    with counted() as passes:
        out = attack(rugged, images, labels, rng=Stream(2), stop_when_fooled=True)
    assert passes.forward == sum(n for n, _ in sizes)
    assert passes.backward == sum(n for n, graph in sizes if graph)
    runs = attack.restarts * (attack.targets if loss == "targeted_dlr" else 1)
    clean = len(images) if loss == "targeted_dlr" else 0
    fooled = int((predict(rugged, out) != labels).sum())
    assert 0 < fooled < len(images)
    standing = len(images) - fooled
    assert passes.forward >= clean + standing * runs * 21
    assert passes.forward < clean + len(images) * runs * 21 - fooled * runs
    with counted() as once:  # all are misclassified where they start: one look, and no second run
        dataclasses.replace(attack, start="image")(rugged, images, (labels + 1) % 5, stop_when_fooled=True)
    assert once.forward == len(images)
    with counted() as plain:
        APGD(eps=0.06, steps=20)(rugged, images, labels)
    assert (plain.forward, plain.backward) == (21 * 10, 20 * 10)


@pytest.mark.parametrize("loss", ["cross_entropy", "targeted_dlr"])
def test_where_nobody_is_left_the_network_is_not_asked(generator, images, loss):
    class Strict(nn.Module):
        def forward(self, x):
            return network(x).view(len(x), -1)  # a batch of no images has no such shape

    network = Rugged(generator)
    labels = predict(network, images)
    attack = APGD(eps=0.9, steps=30, loss=loss, restarts=4)
    out = attack(Strict(), images, labels, rng=Stream(2), stop_when_fooled=True)
    assert (predict(network, out) != labels).all()
    assert attack(Strict(), images[:0], labels[:0]).shape == images[:0].shape


def test_images_are_copied_never_aliased(rugged, images):
    labels = predict(rugged, images)
    before = images.clone()
    for eps in (0.0, 0.1):
        out = APGD(eps=eps, steps=5, start="image")(rugged, images, labels)
        out.zero_()
        assert torch.equal(images, before)


def test_in_each_norm_the_starts_lie_where_they_should(rugged, images):
    middle = 0.45 + 0.1 * images
    for norm, order in (("linf", torch.inf), ("l2", 2)):
        for start, low in (("surface", 0.3), ("ball", 0.01), ("image", 0.0)):
            seen = []
            attack = APGD(norm=norm, eps=0.3, steps=1, start=start)
            attack.maximise(lambda x, rows, s=seen: s.append(x.detach()) or x.flatten(1).sum(1), middle, rng=Stream(4))
            far = torch.linalg.vector_norm((seen[0] - middle).flatten(1), ord=order, dim=1)
            assert (far >= low - 1e-9).all()
            assert (far <= (0.3 if start != "image" else 0) + 1e-9).all()
            assert start != "ball" or (far < 0.3 - 1e-9).all()


# ----------------------------------------------------------------------------------------------- targets, classes


def test_targets_are_the_likeliest_others():
    logits = torch.tensor([[1.0, 4, 3, 2], [5, 1, 2, 5]])
    assert likeliest_others(logits, torch.tensor([1, 0]), 9).tolist() == [[2, 3, 0], [3, 2, 1]]
    assert likeliest_others(logits, torch.tensor([2, 3]), 2).tolist() == [[1, 3], [0, 2]]
    with pytest.raises(InputError, match="two classes"):
        likeliest_others(torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64), 1)


@pytest.mark.parametrize("loss", ["cross_entropy", "dlr"])
def test_with_a_target_it_is_reached(linear, images, loss):
    network, labels = linear(classes=5), torch.arange(10) % 5
    attack = APGD(eps=0.7, steps=40, loss=loss, target="next")
    out = attack(network, images, labels, rng=Stream(1))
    assert (predict(network, out) == (labels + 1) % 5).float().mean() > 0.7
    given = dataclasses.replace(attack, target=None)(network, images, labels, target=(labels + 1) % 5, rng=Stream(1))
    torch.testing.assert_close(given, out)


def test_each_target_is_tried_on_those_left(linear, images):
    """The nearest boundary is that of the class ranked last: only a run on that target crosses it."""
    network, labels = linear(classes=6), torch.zeros(10, dtype=torch.int64)
    with torch.no_grad():
        network.weight.zero_()
        network.bias.copy_(torch.tensor([0.0, -1, -2, -3, -4, -5]))
        network.weight[5, :] = 2.0  # 24 eps of 0.25 raise class 5 by 6
    middle = torch.full_like(images, 0.0)
    attack = APGD(eps=0.25, steps=10, loss="targeted_dlr", start="image")
    assert (predict(network, attack(network, middle, labels)) == 5).all()
    few = dataclasses.replace(attack, targets=4)
    assert (predict(network, few(network, middle, labels)) == 0).all()


@pytest.mark.parametrize(("loss", "classes"), [("dlr", 2), ("targeted_dlr", 2), ("targeted_dlr", 3)])
def test_too_few_classes_are_announced_and_attacked_all_the_same(linear, images, loss, classes):
    network, middle = linear(classes=classes), 0.4 + 0.2 * images
    labels = predict(network, middle)
    attack = APGD(eps=0.3, steps=30, loss=loss)
    with pytest.warns(UserWarning, match="too few"):
        out = attack(network, middle, labels)
    with noted() as notes, warnings.catch_warnings():
        warnings.simplefilter("error")  # who listens is told once, by the note
        assert torch.equal(attack(network, middle, labels), out)
    assert notes["dlr_fallback"].tolist() == [True] * 10
    fooled = predict(network, out) != labels
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        best = APGD(eps=0.3, steps=30)(network, middle, labels)
    assert torch.equal(fooled, predict(network, best) != labels)
    assert fooled.any()


def test_a_gradient_that_is_not_a_number_is_refused(images):
    with pytest.raises(InputError, match="NaN"):
        APGD(eps=0.1, steps=2).maximise(lambda x, rows: (x - x.detach()).sqrt().flatten(1).sum(1) * 0, images)


def test_half_precision_images_are_attacked(linear, images):
    network = linear(classes=4, dtype=torch.float32).to(torch.bfloat16)
    labels = torch.arange(10) % 4
    out = APGD(eps=0.25, steps=6, loss="dlr")(network, images.to(torch.bfloat16), labels)
    assert out.dtype == torch.bfloat16
    assert functional.l1_loss(out.float(), images.float()) > 0.05
