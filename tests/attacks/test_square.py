"""Square, against its schedule, its formulas written as loops, and a slow search image by image."""

import math

import pytest
import torch
from torch import Tensor, nn

from pellucid.attacks import Square
from pellucid.attacks.square import hills, share_of_pixels, side_of_square
from pellucid.errors import SpecError
from pellucid.maths.losses import margin
from pellucid.maths.passes import counted
from pellucid.models.classifier import Classifier
from pellucid.rng import Stream, global_seed


class Small(Classifier):
    def __init__(self, channels: int = 2) -> None:
        super().__init__()
        self.first, self.head = nn.Conv2d(channels, 6, 3, padding=1), nn.Linear(6, 4)

    def features(self, x: Tensor) -> Tensor:
        return torch.tanh(3 * self.first(x))


@pytest.fixture
def model() -> Small:
    with global_seed(5):
        return Small().double().eval().requires_grad_(False)


def images(n: int = 6, channels: int = 2, size: tuple[int, int] = (11, 7)) -> Tensor:
    return Stream(3).uniform(torch.empty(n, 0, dtype=torch.float64), (channels, *size))


def test_the_papers_schedule_in_ten_thousand_queries() -> None:
    halvings = {10: 1, 50: 2, 200: 3, 1000: 4, 2000: 5, 4000: 6, 6000: 7, 8000: 8}
    for at, times in halvings.items():
        assert share_of_pixels("paper", 0.8, at, 10_000) == 0.8 / 2**times
        assert share_of_pixels("paper", 0.8, at - 1, 10_000) == 0.8 / 2 ** (times - 1)


def test_the_papers_schedule_is_rescaled() -> None:
    for proposal in range(1, 1000):
        assert share_of_pixels("paper", 0.8, proposal, 1000) == share_of_pixels("paper", 0.8, 10 * proposal, 10_000)


def test_the_authors_schedule_is_not() -> None:
    shares = [share_of_pixels("authors", 1.0, 1 + i, 5000) for i in (10, 11, 51, 201, 500, 501, 1001, 4001, 8001)]
    assert shares == [1, 1 / 2, 1 / 4, 1 / 8, 1 / 8, 1 / 16, 1 / 32, 1 / 128, 1 / 512]


@pytest.mark.parametrize(
    ("norm", "share", "size", "side"),
    [
        ("linf", 0.8, (32, 32), 29),
        ("linf", 1e-6, (32, 32), 1),
        ("l2", 1e-6, (32, 32), 3),
        ("l2", 0.8, (2, 9), 2),
        ("linf", 0.8, (4, 30), 4),
        ("linf", 0.0, (5, 5), 1),
    ],
)
def test_sides(norm: str, share: float, size: tuple[int, int], side: int) -> None:
    assert side_of_square(norm, share, *size) == side


@pytest.mark.parametrize("side", [1, 2, 3, 4, 7, 8])
def test_hills_are_the_double_sum(side: int) -> None:
    half = side // 2
    expected = torch.zeros(side, side, dtype=torch.float64)
    for first, width, sign in ((0, half, 1.0), (half, side - half, -1.0)):
        n = side // 2
        for r in range(1, side + 1):
            for s in range(1, width + 1):
                top = n - max(abs(r - side // 2 - 1), abs(s - width // 2 - 1))
                expected[r - 1, first + s - 1] = sign * sum(1 / (n + 1 - k) ** 2 for k in range(top + 1))
    assert torch.allclose(hills(side, torch.zeros(1, dtype=torch.float64)), expected / expected.norm())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_proposals_are_those_of_the_paper_written_as_loops(norm: str) -> None:
    """Algorithms 2 and 3, pixel by pixel."""
    x, eps, share = images(), 0.3 if norm == "linf" else 1.5, 0.2
    attack = Square(norm=norm, eps=eps)
    n, channels, height, width = x.shape
    point = attack.start(x, Stream(2))
    side = side_of_square(norm, share, height, width)
    numbers = Stream(8).uniform(x, (channels + (2 if norm == "linf" else 5),))
    found = attack.propose(x, point, share, numbers)
    for i in range(n):
        u = numbers[i].tolist()
        r1, s1 = int(u[0] * (height - side + 1)), int(u[1] * (width - side + 1))
        if norm == "linf":
            expected = point[i].clone()
            for c in range(channels):
                sign = -1 if u[2 + c] < 0.5 else 1
                for r in range(side):
                    for s in range(side):
                        expected[c, r1 + r, s1 + s] += 2 * sign * eps
            expected = torch.minimum(torch.maximum(expected, x[i] - eps), x[i] + eps).clamp(0, 1)
        else:
            r2, s2 = int(u[2] * (height - side + 1)), int(u[3] * (width - side + 1))
            change = point[i] - x[i]
            unused = eps**2 - float(change.square().sum())
            eta = hills(side, x)
            eta = eta.T if u[4] < 0.5 else eta
            for c in range(channels):
                nu, sign = change[c], -1 if u[5 + c] < 0.5 else 1
                union = torch.zeros(height, width, dtype=torch.bool)
                union[r1 : r1 + side, s1 : s1 + side] = union[r2 : r2 + side, s2 : s2 + side] = True
                available = math.sqrt(float(nu[union].square().sum()) + unused / channels)
                here = nu[r1 : r1 + side, s1 : s1 + side]
                temp = sign * eta + here / here.norm()
                nu[r2 : r2 + side, s2 : s2 + side] = 0
                nu[r1 : r1 + side, s1 : s1 + side] = temp / temp.norm() * available
            assert float(change.norm()) == pytest.approx(eps), "the whole length is used before the box is"
            expected = (x[i] + change).clamp(0, 1)
        assert torch.allclose(found[i], expected, atol=1e-12)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_slow_search_image_by_image_ends_at_the_same_points(norm: str) -> None:
    """Algorithm 1 with one image at a time and the same random numbers: the same proposals are accepted."""
    x, eps, queries = images(), 0.15 if norm == "linf" else 1.5, 80
    with global_seed(5), torch.no_grad():
        model = nn.Sequential(nn.Flatten(), nn.Linear(154, 16), nn.Tanh(), nn.Linear(16, 4)).double()
        y = model(x).argmax(1)
    attack = Square(norm=norm, eps=eps, queries=queries)
    together = attack(model, x, y, rng=Stream(4))
    accepted = fooled = 0
    for i in range(len(x)):
        own, stream = x[i : i + 1], Stream(4, torch.tensor([i]))
        point = attack.start(own, stream)
        loss = float(-margin(model(point), y[i : i + 1]))
        for number in range(queries - 2):
            if loss < 0:
                fooled += 1
                break
            block = stream.child("squares").uniform(own, (32, 4 if norm == "linf" else 7), number // 32)
            share = share_of_pixels("paper", 0.8, number + 1, queries)
            new = attack.propose(own, point, share, block[:, number % 32])
            new_loss = float(-margin(model(new), y[i : i + 1]))
            if new_loss < loss:
                point, loss, accepted = new, new_loss, accepted + 1
        assert torch.equal(point[0], together[i]), f"image {i} took another way"
    assert 0 < fooled < len(x), "the test is to see both"
    assert accepted > 20


@pytest.mark.parametrize("queries", [1, 2, 3, 50])
def test_the_budget_is_used_to_the_last_query_and_no_further(model: Small, queries: int) -> None:
    x, y = images(), model(images()).argmax(1)
    with counted() as passes:
        Square(eps=0.001, queries=queries)(model, x, y)
    assert (passes.forward, passes.backward) == (queries * len(x), 0)


def test_fooled_images_ask_no_more(model: Small) -> None:
    x = images()
    y = (model(x).argmax(1) + 1) % 4
    with counted() as passes:
        out = Square(eps=0.1, queries=50)(model, x, y)
    assert passes.forward == len(x), "one query shows that they are misclassified"
    assert torch.equal(out, x)


def test_linf_stripes_are_vertical_and_at_the_corners() -> None:
    x = torch.full((3, 2, 7, 5), 0.5)
    start = Square(eps=0.2).start(x, Stream(0))
    assert torch.allclose((start - x).abs(), torch.tensor(0.2))
    assert torch.equal(start, start[:, :, :1].expand_as(start)), "constant along a column"
    assert len(start[:, :, 0].unique(dim=0)) == 3, "every image has stripes of its own"


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (8, 6), (11, 7), (32, 32)])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size(norm: str, size: tuple[int, int], channels: int) -> None:
    x = 0.5 + 0.1 * images(2, channels, size)
    attack = Square(norm=norm, eps=0.1, queries=60)
    start = attack.start(x, Stream(0))
    if norm == "l2":
        assert torch.allclose((start - x).flatten(1).norm(dim=1), torch.tensor(0.1).double())
    out = attack.maximise(lambda p, rows: p.mean((1, 2, 3)), x)
    assert bool((out.mean((1, 2, 3)) > x.mean((1, 2, 3))).all())


def test_no_gradient_is_needed() -> None:
    class Steps(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            bright = (x.detach() * 8).round().mean((1, 2, 3))
            return torch.stack([bright, 8 - bright], 1)

    x = torch.full((2, 1, 6, 6), 0.55)
    out = Square(eps=0.2, queries=60)(Steps(), x, torch.zeros(2, dtype=torch.int64))
    assert Steps()(out).argmax(1).tolist() == [1, 1]


def test_maximise_never_makes_it_worse() -> None:
    x = torch.full((2, 1, 6, 6), 0.5)
    assert torch.equal(Square(eps=0.2, queries=30).maximise(lambda p, _: -(p - 0.5).abs().sum((1, 2, 3)), x), x)


def test_refusals() -> None:
    with pytest.raises(SpecError, match="queries"):
        Square(eps=0.1, queries=0)
    with pytest.raises(SpecError, match="p_init"):
        Square(eps=0.1, p_init=1.5)
