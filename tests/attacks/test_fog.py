import pytest
import torch

from pellucid.attacks import Fog
from pellucid.rng import Stream

from .effects import check_one_step, check_sizes_and_seeds, check_slope, images, slope_at

X = images(2, 3, 8, 6)
SIDE = 32  # of the map for images of up to 16 pixels


def slow_map(numbers, reach):
    """Diamond-square level by level with loops, on a torus of side 32."""
    heights, used, step, amplitude = {(0, 0): 0.0}, 0, SIDE, 1.0
    while step > 1:
        half, count = step // 2, (SIDE // step) ** 2
        corners = [(i, j) for i in range(0, SIDE, step) for j in range(0, SIDE, step)]
        kinds = (
            ((half, half), ((0, 0), (0, step), (step, 0), (step, step))),
            ((0, half), ((0, 0), (0, step), (half, half), (half - reach * step, half))),
            ((half, 0), ((0, 0), (step, 0), (half, half), (half, half - reach * step))),
        )
        for kind, (place, around) in enumerate(kinds):
            for k, (i, j) in enumerate(corners):
                mean = sum(heights[(i + a) % SIDE, (j + b) % SIDE] for a, b in around) / 4
                drawn = 2 * numbers[used + kind * count + k] - 1
                heights[i + place[0], j + place[1]] = mean + amplitude * drawn
        used, step, amplitude = used + 3 * count, half, amplitude / 2
    return heights


def reference(attack):
    reach = 2 if attack.form == "code" else 1

    def fogged(numbers, i):
        heights = slow_map(numbers.tolist(), reach)
        low, high = min(heights.values()), max(heights.values())
        x, eps = X[i].numpy(), attack.eps / 255
        out = x.copy()
        for c in range(3):
            brightest = x[c].max()
            for row in range(8):
                for column in range(6):
                    fog = (heights[row + 12, column + 13] - low) / (high - low)
                    out[c, row, column] = (x[c, row, column] + eps * fog) / (brightest + eps)
        return out

    return fogged


@pytest.mark.parametrize("form", ["paper", "code"])
def test_one_step_as_in_loops(form):
    attack, rng = Fog(eps=300, step_size=0.2, steps=1, form=form), Stream(5)
    effect = attack.effect(X, rng)
    assert effect.start.shape == (2, SIDE**2 - 1)
    assert bool(((effect.start >= 0) & (effect.start < 1)).all())
    slope = slope_at(effect, X, effect.start)
    check_slope(slope, effect.start, X, reference(attack), samples=15)
    check_one_step(attack, X, rng, (effect.start + 0.2 * slope.sign()).clamp(0, 1), reference(attack))


def test_steps_of_the_default_size_end_at_the_ends():
    attack = Fog()
    assert (attack.eps, attack.steps) == (2048, 200)
    effect = attack.effect(X, Stream())
    moved = effect.move(effect.start, torch.randn_like(effect.start), torch.zeros(2), torch.arange(2))
    assert set(moved.unique().tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("size", "side"), [((28, 28), 64), ((32, 32), 64), ((224, 224), 256), ((8, 6), 32), ((64, 33), 128)]
)
def test_the_map_is_as_large_as_the_authors(size, side):
    """28 is padded to 32; 16 points are cut off on every side of the maps for 32 and 224."""
    x = torch.zeros(1, 1, *size)
    assert Fog().effect(x, Stream()).start.shape == (1, side**2 - 1)


def test_at_eps_zero_channels_are_stretched():
    x = X.clone()
    x[1, 2] = 0  # a black channel
    out = Fog(eps=0, steps=2)(torch.nn.Flatten(), x, torch.tensor([0, 1]))
    expected = x / x.amax((2, 3), keepdim=True)
    expected[1, 2] = 0
    torch.testing.assert_close(out, expected)


def test_every_size_and_seed():
    check_sizes_and_seeds(Fog(steps=2))
