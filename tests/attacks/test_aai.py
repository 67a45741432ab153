import pytest
import torch
from torch import nn
from torch.nn import functional

from pellucid.attacks import AAI
from pellucid.attacks.aai import mass_center, positions_of, shares
from pellucid.errors import InputError, SpecError
from pellucid.interpreters import CAM, Gradient
from pellucid.maths import counted
from pellucid.metrics import kendall_tau, predict, stability
from pellucid.models import Classifier
from pellucid.rng import Stream, global_seed

WEIGHTS = torch.tensor([4.0, -1.0, 0.5], dtype=torch.float64)


class Plain(Classifier):
    """The image is its own feature map: CAM_c = w_c x."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(1, 3).double()
        with torch.no_grad():
            self.head.weight.copy_(WEIGHTS[:, None])
            self.head.bias.zero_()

    def features(self, x):
        return x


class Bent(Classifier):
    """A smooth convolution, pooled, a linear head."""

    def __init__(self):
        super().__init__()
        with global_seed(4):
            self.first = nn.Conv2d(1, 5, 3, padding=1).double()
            self.head = nn.Linear(5, 4).double()
        with torch.no_grad():
            for p in self.parameters():
                p.mul_(3)
            self.head.bias -= self(torch.full((1, 1, 3, 4), 0.5, dtype=torch.float64))[0]  # grey: undecided

    def features(self, x):
        return functional.softplus(self.first(x))


@pytest.fixture
def images(generator):
    return 0.3 + 0.4 * torch.rand(6, 1, 3, 4, generator=generator, dtype=torch.float64)


@pytest.fixture
def labels():
    return torch.tensor([0, 1, 2, 0, 1, 2])


def largest(images, labels, k):
    """Mark the k positions where w_y x is largest."""
    ranked = (WEIGHTS[labels].view(-1, 1, 1, 1) * images).flatten(1).argsort(1, descending=True)
    marked = torch.zeros_like(images, dtype=torch.bool).flatten(1).scatter_(1, ranked[:, :k], True)
    return marked.view_as(images)


def test_one_step_in_closed_form(images, labels):
    attack = AAI(interpreter=CAM(), eps=0.1, step_size=0.03, steps=1, top_k=5, random_start=False)
    sign = WEIGHTS[labels].sign().view(-1, 1, 1, 1)
    expected = torch.where(largest(images, labels, 5), images - 0.03 * sign, images)
    torch.testing.assert_close(attack(Plain(), images, labels), expected, rtol=0, atol=1e-12)


def test_the_saturated_solution_in_closed_form(images, labels):
    attack = AAI(interpreter=CAM(), eps=0.6, step_size=0.1, steps=20, top_k=5, random_start=False)
    sign = WEIGHTS[labels].sign().view(-1, 1, 1, 1)
    expected = torch.where(largest(images, labels, 5), (images - 0.6 * sign).clamp(0, 1), images)
    out = attack(Plain(), images, labels)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    assert 0.0 in out  # box and ball have both been met
    assert float((out - images).abs().max()) == pytest.approx(0.6) or 1.0 in out


def test_random_start_moves_the_other_positions_only(images, labels):
    attack = AAI(interpreter=CAM(), eps=0.2, step_size=0.05, steps=30, top_k=5)
    top, sign = largest(images, labels, 5), WEIGHTS[labels].sign().view(-1, 1, 1, 1).expand_as(images)
    shift = attack(Plain(), images, labels, rng=Stream(2)) - images
    torch.testing.assert_close(shift[top], (-0.2 * sign)[top])
    assert float(shift[~top].abs().max()) <= 0.2
    assert float(shift[~top].std()) > 0.08  # uniform in [-.2, .2]: .115


def reference(network, x, y, attack, start, aim=None):
    """Attack one image as the formulas say, in plain loops; returns every iterate."""
    height, width = x.shape[2:]

    def the_map(point):
        features = network.features(point)[0]
        return sum(network.head.weight[y, k] * features[k] for k in range(features.shape[0]))

    def centre(m):
        weight = m.abs() / m.abs().sum()
        row = sum(weight[i, j] * i for i in range(height) for j in range(width))
        column = sum(weight[i, j] * j for i in range(height) for j in range(width))
        return torch.stack([row, column])

    clean, p = the_map(x).detach(), functional.softmax(network(x)[0], 0).detach()
    aim = clean.flip(0).flip(1) if aim is None else aim
    top = sorted(range(height * width), key=lambda i: -float(clean.flatten()[i]))[: attack.top_k]
    iterates, point = [], start
    for _ in range(attack.steps):
        iterates.append(point)
        point = point.detach().requires_grad_(True)
        now = the_map(point)
        if attack.objective == "top_k":
            loss = sum(now.flatten()[i] for i in top)
        elif attack.objective == "mass_center":
            loss = -(centre(now) - centre(clean)).norm()
        else:
            far = height * width * (now / now.abs().sum() - aim / aim.abs().sum())
            loss = (far**2).mean() + attack.output_weight * ((functional.softmax(network(point)[0], 0) - p) ** 2).sum()
        (slope,) = torch.autograd.grad(loss, point)
        point = torch.min(torch.max(point.detach() - attack.step_size * slope.sign(), x - attack.eps), x + attack.eps)
        point = point.clamp(0, 1)
    return [*iterates, point]


@pytest.mark.parametrize("objective", ["top_k", "mass_center", "target_map"])
def test_the_same_images_as_a_loop_over_the_formulas(images, labels, objective):
    network = Bent()
    attack = AAI(interpreter=CAM(), eps=0.1, step_size=0.02, steps=8, top_k=4, objective=objective)
    out = attack(network, images, labels, rng=Stream(5))
    start = (images + (2 * Stream(5).child("start").uniform(images) - 1) * 0.1).clamp(0, 1)
    for i in range(6):
        rows = slice(i, i + 1)
        expected = reference(network, images[rows], int(labels[i]), attack, start[rows])[-1]
        torch.testing.assert_close(out[rows], expected, rtol=0, atol=1e-10)


def test_a_given_map_is_approached(images, labels):
    network = Bent()
    attack = AAI(interpreter=CAM(), eps=0.25, step_size=0.02, steps=40, objective="target_map", output_weight=0)
    wanted = CAM()(network, images.flip(0), labels)
    out = attack.towards(network, images, labels, wanted)

    def gap(x):
        return (shares(CAM()(network, x, labels)) - shares(wanted)).square().sum((1, 2))

    assert bool((gap(out) < 0.6 * gap(images)).all())
    for i in range(6):
        rows = slice(i, i + 1)
        start = (images + (2 * Stream(0).child("start").uniform(images) - 1) * 0.25).clamp(0, 1)[rows]
        expected = reference(network, images[rows], int(labels[i]), attack, start, wanted[i])[-1]
        torch.testing.assert_close(out[rows], expected, rtol=0, atol=1e-9)
    with pytest.raises(InputError, match=r"target map must be \(6, 3, 4\)"):
        attack.towards(network, images, labels, wanted[:, :2])
    with pytest.raises(InputError, match="objective=target_map, not top_k"):
        AAI(interpreter=CAM(), eps=0.1).towards(network, images, labels, wanted)


def test_the_output_term_holds_the_output(images, labels):
    network = Bent()
    shift = []
    for weight in (0, 1000):
        attack = AAI(interpreter=CAM(), eps=0.2, step_size=0.01, steps=40, objective="target_map", output_weight=weight)
        moved = functional.softmax(network(attack(network, images, labels)), 1) - functional.softmax(network(images), 1)
        shift.append(float(moved.detach().square().sum(1).mean()))
    assert shift[1] < 0.3 * shift[0]


@pytest.mark.parametrize("objective", ["top_k", "mass_center"])
def test_unchanged_keeps_the_prediction_and_the_highest_value(images, objective):
    network = Bent()
    labels = predict(network, images)
    last, kept = (
        AAI(interpreter=CAM(), eps=0.2, step_size=0.05, steps=10, top_k=4, objective=objective, keep=keep)
        for keep in ("last", "unchanged")
    )
    assert bool((predict(network, last(network, images, labels)) != labels).any())  # or there is nothing to keep
    out = kept(network, images, labels)
    assert torch.equal(predict(network, out), labels)
    start = (images + (2 * Stream(0).child("start").uniform(images) - 1) * 0.2).clamp(0, 1)
    clean = CAM()(network, images, labels)
    for i in range(6):
        iterates = reference(network, images[i : i + 1], int(labels[i]), kept, start[i : i + 1])
        best, value = images[i : i + 1], -float("inf")
        top = clean[i].flatten().topk(4).indices
        for point in iterates:
            if int(predict(network, point)) != int(labels[i]):
                continue
            now = CAM()(network, point, labels[i : i + 1])
            if objective == "top_k":
                found = -float(now.flatten()[top].sum())
            else:
                found = float((mass_center(now) - mass_center(clean[i : i + 1])).norm())
            if found > value:
                best, value = point, found
        torch.testing.assert_close(out[i : i + 1], best, rtol=0, atol=1e-9)


def test_the_clean_image_where_no_iterate_keeps_the_prediction(labels):
    network = Plain()
    with torch.no_grad():
        network.head.bias.copy_(torch.tensor([-2.25, 0.25, -9.0]))  # class 0 from mean(x) = 1/2, which the start leaves
    images = torch.full((6, 1, 3, 4), 0.501, dtype=torch.float64)
    zeros = torch.zeros_like(labels)
    attack = AAI(interpreter=CAM(), eps=0.2, step_size=0.2, steps=3, top_k=12, keep="unchanged")
    stream = Stream(1)
    start = images + (2 * stream.child("start").uniform(images) - 1) * 0.2
    never = predict(network, start) != 0
    assert 0 < int(never.sum()) < 6
    out = attack(network, images, zeros, rng=stream)
    assert torch.equal(out[never], images[never])
    torch.testing.assert_close(out[~never], start[~never])


def test_channels_are_added_by_magnitude(images):
    maps = torch.tensor([[[[1.0, -2.0]], [[-3.0, 0.5]]]])
    assert torch.equal(positions_of(maps), torch.tensor([[[4.0, 2.5]]]))
    assert torch.equal(positions_of(maps[0]), maps[0])
    with pytest.raises(InputError, match=r"maps must be"):
        positions_of(maps[0, 0])
    network, labels = Bent(), torch.zeros(6, dtype=torch.long)
    attack = AAI(interpreter=Gradient(), eps=0.1, step_size=0.02, steps=10, top_k=3)
    out = attack(network, images, labels)
    before, after = (Gradient()(network, v, labels).abs().sum(1).flatten(1) for v in (images, out))
    top = before.topk(3, dim=1).indices
    assert bool((after.gather(1, top).sum(1) < before.gather(1, top).sum(1)).all())


def test_a_map_of_zeros_has_a_centre():
    assert torch.equal(mass_center(torch.zeros(2, 3, 4)), torch.zeros(2, 2))
    assert torch.equal(shares(torch.zeros(2, 3, 4)), torch.zeros(2, 3, 4))


def test_the_papers_measure(images):
    """tau between clean and attacked maps of the true class, over images whose prediction did not change."""
    network = Bent()
    labels = predict(network, images)
    out = AAI(interpreter=CAM(), eps=0.05, steps=30, top_k=4)(network, images, labels)
    kept = predict(network, out) == predict(network, images)
    tau = kendall_tau(CAM()(network, images, labels), CAM()(network, out, labels))
    found = stability(tau, kept)
    assert (found.kept, found.undefined) == (int(kept.sum()), 0)
    assert found.kept > 0
    assert found.tau.value < 0.9
    noise = (images + (2 * Stream(9).uniform(images) - 1) * 0.05).clamp(0, 1)
    by_noise = kendall_tau(CAM()(network, images, labels), CAM()(network, noise, labels))
    assert float(tau.mean()) < float(by_noise.mean())


def test_what_it_costs(images, labels):
    network = Bent()
    with counted() as passes:
        AAI(interpreter=CAM(), eps=0.1, steps=7)(network, images, labels)
    assert (passes.forward, passes.backward) == (6 * (2 + 7), 6 * 7)
    with counted() as passes:
        AAI(interpreter=CAM(), eps=0.1, steps=7, keep="unchanged")(network, images, labels)
    assert (passes.forward, passes.backward) == (6 * (2 + 7 + 1), 6 * 7)  # logits and maps of one forward


def test_refusals(images, labels):
    with pytest.raises(InputError, match="the maps have 12"):
        AAI(interpreter=CAM(), eps=0.1, top_k=13)(Bent(), images, labels)
    with pytest.raises(InputError, match="takes no target labels"):
        AAI(interpreter=CAM(), eps=0.1)(Bent(), images, labels, target=labels)
    with pytest.raises(SpecError, match="random_start"):
        AAI(interpreter=CAM(), eps=0.1, objective="mass_center", random_start=False)
    with pytest.raises(InputError, match="labels"):
        AAI(interpreter=CAM(), eps=0.1)(Bent(), images, labels + 2)
    foreign = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).double()
    with pytest.raises(InputError, match="Sequential does not"):
        AAI(interpreter=CAM(), eps=0.1)(foreign, images, labels)
