import subprocess
import sys
from itertools import combinations

import pytest
import torch
from torch import nn

from pellucid.attacks import JSMA
from pellucid.errors import GradientError, InputError, SpecError
from pellucid.maths import counted
from pellucid.maths.notes import noted
from pellucid.metrics import predict
from pellucid.models import Classifier
from pellucid.rng import Stream

CASES, CLASSES, SIZE = 50, 5, (2, 3, 4)


class Bent(Classifier):
    """A smooth network whose slopes change with every step."""

    def __init__(self, generator, classes=CLASSES, pixels=24):
        super().__init__()
        first, second = torch.randn(2, 40, pixels, generator=generator, dtype=torch.float64)
        self.first, self.second = nn.Parameter(first), nn.Parameter(second[:classes] / 5)
        self.mixing = nn.Parameter(torch.randn(classes, 40, generator=generator, dtype=torch.float64))

    def features(self, x):
        return x.flatten(1)

    def classify(self, f):
        return torch.tanh(f @ self.first.T) @ self.mixing.T + f @ self.second.T


@pytest.fixture
def bent(generator):
    return Bent(generator)


@pytest.fixture
def images(generator):
    return torch.rand(CASES, *SIZE, generator=generator, dtype=torch.float64)


def slopes(network, image, target, probabilities=False):
    """The whole Jacobian, one backward per class, as the definition has it."""
    leaf = image[None].clone().requires_grad_(True)
    out = network(leaf)[0]
    out = out.softmax(0) if probabilities else out
    rows = [torch.autograd.grad(z, leaf, retain_graph=True)[0].flatten() for z in out]
    others = [row for j, row in enumerate(rows) if j != target]
    return rows[target].tolist(), torch.stack(others).sum(0).tolist()


def reference(network, image, target, steps, theta=1.0, single=False, again=False, probabilities=False):
    """Choices in their order and the image after each, by a loop over every pair."""
    image, up = image.clone(), theta > 0
    trail = [image.clone()]
    free = {i for i, v in enumerate(image.flatten().tolist()) if (v < 1 if up else v > 0)}
    chosen = []
    for _ in range(steps):
        if int(predict(network, image[None])) == target:
            break
        a, b = slopes(network, image, target, probabilities)
        best, choice = None, None
        for group in combinations(sorted(free), 1 if single else 2):
            alpha, beta = sum(a[i] for i in group), sum(b[i] for i in group)
            fits = (alpha > 0 > beta) if up else (alpha < 0 < beta)
            if fits and (best is None or -alpha * beta > best):
                best, choice = -alpha * beta, group
        if choice is None:
            break
        for i in choice:
            value = min(1.0, max(0.0, float(image.flatten()[i]) + theta))
            image.view(-1)[i] = value
            if not again or value in (0.0, 1.0):
                free.discard(i)
        chosen.append(choice)
        trail.append(image.clone())
    return chosen, trail


def assert_same_pixels_in_the_same_order(attack, network, images, target, steps, **how):
    """After every number of steps the images are those of the reference, so the order is the same too."""
    expected = [reference(network, x, int(t), steps, attack.theta, **how)[1] for x, t in zip(images, target)]
    y = (target + 1) % CLASSES
    for step in range(1, steps + 1):
        ours = JSMA(**{**vars(attack), "steps": step})(network, images, y, target=target)
        theirs = torch.stack([trail[min(step, len(trail) - 1)] for trail in expected])
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    return [len(trail) - 1 for trail in expected]


@pytest.mark.parametrize("theta", [1.0, 0.3, -1.0, -0.3])
def test_same_pixels_in_the_same_order_as_every_pair(bent, images, theta):
    target = torch.arange(CASES) % CLASSES
    lengths = assert_same_pixels_in_the_same_order(JSMA(theta=theta), bent, images, target, steps=6)
    assert len(set(lengths)) >= 3, "some images are to end early, some late"


@pytest.mark.parametrize(
    "how",
    [
        {"single": True},
        {"single": True, "again": True},
        {"again": True},
        {"probabilities": True},
        {"single": True, "probabilities": True},
    ],
)
def test_the_variants_follow_their_definition(bent, images, how):
    attack = JSMA(
        theta=0.3,
        pixels="single" if "single" in how else "pair",
        again="again" in how,
        scores="probabilities" if "probabilities" in how else "logits",
    )
    target = torch.arange(20) % CLASSES
    assert_same_pixels_in_the_same_order(attack, bent, images[:20], target, steps=5, **how)


def whole_numbers(linear, generator, pixels=24):
    """A linear network with weights -2..2: slopes are exact and full of ties; class 0 wins whatever happens."""
    network = linear(classes=CLASSES, pixels=pixels)
    with torch.no_grad():
        network.weight.copy_(torch.randint(-2, 3, network.weight.shape, generator=generator))
        network.bias.zero_()[0] = 1e6
    return network


@pytest.mark.parametrize("theta", [1.0, -0.25])
def test_ties_go_to_the_smallest_index(linear, generator, images, theta):
    quarters = (4 * images).round() / 4  # many pixels start at an end of the range
    network, target = whole_numbers(linear, generator), 1 + torch.arange(CASES) % (CLASSES - 1)
    assert_same_pixels_in_the_same_order(JSMA(theta=theta), network, quarters, target, steps=5)


def test_darkening_a_negative_is_brightening(bent, images):
    class Negative(nn.Module):
        def forward(self, x):
            return bent(1 - x)

    x, y = (64 * images).round() / 64, torch.zeros(CASES, dtype=torch.long)  # 1 - x is exact
    target = 1 + torch.arange(CASES) % (CLASSES - 1)
    brighter = JSMA(theta=0.25, steps=4)(bent, x, y, target=target)
    darker = JSMA(theta=-0.25, steps=4)(Negative(), 1 - x, y, target=target)
    assert torch.equal(darker, 1 - brighter)
    assert not torch.equal(brighter, x)


@pytest.mark.parametrize(
    ("given", "pixels", "changed"),
    [
        ({}, 24, 6),  # floor(24 * 0.25 / 2) = 3 pairs
        ({}, 28, 6),  # 3.5 pairs
        ({"gamma": 1}, 7, 6),
        ({"gamma": 0}, 24, 0),
        ({"pixels": "single"}, 27, 6),
        ({"pixels": "single", "gamma": 0.29}, 100, 29),  # 28.999... in binary
        ({"steps": 5}, 24, 10),
        ({"steps": 80}, 24, 24),  # until no pair is left
        ({"pixels": "single", "steps": 5}, 24, 5),
    ],
)
def test_how_many_pixels_are_changed(linear, generator, given, pixels, changed):
    network = linear(classes=3, pixels=pixels)
    with torch.no_grad():
        network.weight[1], network.weight[2], network.bias[0] = 1, -2, 1e6
        network.weight[0] = 0
    x = torch.rand(3, 1, 1, pixels, generator=generator, dtype=torch.float64)
    out = JSMA(**given)(network, x, torch.zeros(3, dtype=torch.long), target=torch.ones(3, dtype=torch.long))
    assert (out != x).flatten(1).sum(1).tolist() == [changed] * 3


def test_where_nothing_qualifies_the_image_stays(linear, images):
    network = linear(classes=2, pixels=24)
    with torch.no_grad():  # what raises class 1 raises class 0 more
        network.weight[1] = network.weight[0].abs_() / 2
        network.bias.copy_(torch.tensor([100.0, 0.0]))
    y = torch.zeros(CASES, dtype=torch.long)
    for pixels in ("pair", "single"):
        attack = JSMA(pixels=pixels, gamma=1)
        assert torch.equal(attack(network, images, y, target=1 - y), images)


def test_an_image_ends_when_the_target_is_predicted_and_not_before(bent, images):
    y = predict(bent, images)
    target = (y + 1) % CLASSES
    for leave in (False, True):
        out = JSMA(gamma=1)(bent, images, y, target=target, stop_when_fooled=leave)
        assert float((predict(bent, out) == target).float().mean()) > 0.5
        assert torch.equal(
            JSMA(gamma=1)(bent, out, y, target=target)[predict(bent, out) == target], out[predict(bent, out) == target]
        )
    assert torch.equal(JSMA()(bent, images, target, target=y), images)


def test_a_pixel_is_chosen_again_until_it_is_at_the_end(linear, generator):
    network = linear(classes=2, pixels=24)
    with torch.no_grad():
        network.weight[1] = torch.arange(24, 0, -1)
        network.weight[0] = -network.weight[1]
        network.bias.copy_(torch.tensor([1e6, 0.0]))
    x, y = torch.full((1, *SIZE), 0.5, dtype=torch.float64), torch.zeros(1, dtype=torch.long)

    def rises(steps, **given):
        out = JSMA(pixels="single", theta=0.25, steps=steps, **given)(network, x, y, target=1 - y)
        return (out - x).flatten()[:4].tolist()

    assert rises(3) == [0.25, 0.25, 0.25, 0]
    assert rises(3, again=True) == [0.5, 0.25, 0, 0]
    assert rises(6, again=True) == [0.5, 0.5, 0.5, 0]
    assert torch.equal(*(JSMA(again=again)(network, x, y, target=1 - y) for again in (False, True)))


def test_the_rule_names_the_target_and_the_call_overrules_it(bent, images):
    y, stream = predict(bent, images), Stream(3)
    aims = {}
    for rule in ("random", "next", "runner_up", "least_likely"):
        with noted() as notes:
            by_rule = JSMA(target=rule)(bent, images, y, rng=stream)
        aims[rule] = notes["target"]
        assert bool((aims[rule] != y).all())
        assert torch.equal(by_rule, JSMA(target="next")(bent, images, y, target=aims[rule]))
    assert torch.equal(aims["next"], (y + 1) % CLASSES)
    assert len(aims["random"].unique()) >= CLASSES - 1
    with noted() as notes:
        JSMA()(bent, images[:7], y[:7], rng=Stream(3))
    assert torch.equal(notes["target"], aims["random"][:7]), "a target must not depend on the batch"


@pytest.mark.parametrize(("scores", "backwards"), [("logits", 2), ("probabilities", 1)])
@pytest.mark.parametrize("classes", [2, 30])
def test_passes_are_two_a_step_for_those_that_stand_whatever_the_number_of_classes(
    generator, images, scores, backwards, classes
):
    network = Bent(generator, classes)
    y = predict(network, images)
    attack = JSMA(theta=0.4, scores=scores, steps=6)
    arrived = {}
    for step in range(7):  # who has arrived, or is stuck, by the forward of which step
        out = images if step == 0 else JSMA(theta=0.4, scores=scores, steps=step)(network, images, y, rng=Stream(1))
        with noted() as notes:
            after = JSMA(theta=0.4, scores=scores, steps=step + 1)(network, images, y, rng=Stream(1))
        arrived[step] = (predict(network, out) == notes["target"]) | (after == out).flatten(1).all(1)
    standing = [CASES] + [int((~arrived[step]).sum()) for step in range(5)]
    assert standing[-1] < standing[0]
    with counted() as passes:
        attack(network, images, y, rng=Stream(1))
    assert passes.forward == sum(standing), "one forward a step is the check of the step before"
    assert passes.backward == backwards * sum(standing)


def test_the_last_to_stand_pay_no_backward_for_their_check(bent, images):
    y = predict(bent, images)
    with counted() as passes:
        JSMA()(bent, images, y, target=y)
    assert (passes.forward, passes.backward) == (CASES, 0)


def test_refusals(bent, images):
    y = torch.zeros(CASES, dtype=torch.long)
    for theta in (0, 1.5, -2):
        with pytest.raises(SpecError, match="theta"):
            JSMA(theta=theta)
    with pytest.raises(InputError, match="a single objective has no others"):
        JSMA().maximise(lambda point, rows: point.flatten(1).sum(1), images)
    with pytest.raises(InputError, match="target labels must be"):
        JSMA()(bent, images, y, target=y + CLASSES)

    class Kinked(nn.Module):
        def forward(self, x):
            return bent(x) + (x - x).sqrt().sum((1, 2, 3))[:, None]

    with pytest.raises(GradientError, match="NaN or infinite"):
        JSMA()(Kinked(), images, y, target=y + 3)
    for target in (None, y):
        with pytest.raises(InputError, match="two classes"):
            JSMA()(Bent(torch.Generator().manual_seed(0), 1), images, y, target=target)


def test_slopes_of_an_image_that_is_there_already_are_nobodys_business(bent, images):
    class Kinked(nn.Module):
        def forward(self, x):
            first = (x == images[0]).flatten(1).all(1)
            nothing = torch.zeros_like(x[:, 0, 0, 0])
            nothing[first] += (0 * x[first]).sum((1, 2, 3)).sqrt()
            return bent(x) + nothing[:, None]

    x, y = images[:4], predict(bent, images[:4])
    target = torch.cat([y[:1], (y[1:] + 1) % CLASSES])
    out = JSMA()(Kinked(), x, (y + 2) % CLASSES, target=target)
    assert torch.equal(out[0], x[0])
    assert torch.equal(out, JSMA()(bent, x, (y + 2) % CLASSES, target=target))


MEMORY = """
import resource, torch
from pellucid.attacks import JSMA
from pellucid.models import SmallCNN

with torch.random.fork_rng():
    torch.manual_seed(0)
    network = SmallCNN().build(3, (224, 224), 10)
    x = 0.1 + 0.8 * torch.rand(1, 3, 224, 224)
network(x)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
out = JSMA(theta=1, steps=5)(network, x, network(x).argmax(1), target=network(x).argmin(1))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(before // 1024, after // 1024, int((out != x).sum()))
"""


@pytest.mark.slow
def test_memory_at_the_size_of_imagenet():
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    before, after, changed = map(int, done.stdout.split())
    assert changed == 10
    assert after < 2048, f"{after} MiB in all, {before} before the attack; a matrix of all pairs is 84 GiB"
