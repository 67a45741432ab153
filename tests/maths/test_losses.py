import pytest
import torch
from torch import nn
from torch.nn import functional

from pellucid.errors import InputError
from pellucid.maths import cam, certainty_entropy, cross_entropy, dlr, log_probability, margin, targeted_dlr


@pytest.fixture
def logits(generator):
    return torch.randn(7, 5, generator=generator, dtype=torch.float64) * 3


@pytest.fixture
def labels(generator):
    return torch.randint(0, 5, (7,), generator=generator)


def test_cross_entropy_is_that_of_torch_per_example(logits, labels):
    expected = functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(cross_entropy(logits, labels), expected)
    torch.testing.assert_close(log_probability(logits, labels), -expected)


def test_certainty_entropy_is_cross_entropy_with_uniform_targets(logits):
    uniform = torch.full_like(logits, 1 / 5)
    expected = functional.cross_entropy(logits, uniform, reduction="none")
    torch.testing.assert_close(certainty_entropy(logits), expected)
    torch.testing.assert_close(certainty_entropy(torch.zeros(1, 4)), torch.tensor(4.0).log()[None])


def test_margin_is_that_of_torch_multi_margin_form(logits, labels):
    rows = torch.arange(7)
    expected = [max(z for j, z in enumerate(row) if j != y) - row[y] for row, y in zip(logits.tolist(), labels)]
    assert margin(logits, labels).tolist() == pytest.approx(expected)
    wrong = logits.argmax(1) != labels
    assert torch.equal(margin(logits, labels) > 0, wrong)
    assert (margin(logits, logits.argmax(1)) <= 0).all()
    assert margin(logits, labels)[rows].shape == (7,)


@pytest.mark.parametrize("loss", [cross_entropy, margin, log_probability])
def test_gradients_agree_with_finite_differences(loss, logits, labels):
    assert torch.autograd.gradcheck(lambda z: loss(z, labels), logits.requires_grad_(True))


def test_certain_predictions_stay_finite(labels):
    sharp = torch.full((7, 5), -1e4)
    sharp[:, 0] = 1e4
    assert cross_entropy(sharp, labels).isfinite().all()
    assert certainty_entropy(sharp).isfinite().all()
    assert cross_entropy(sharp, torch.zeros_like(labels)).tolist() == [0.0] * 7


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype, logits, labels):
    half = logits.to(dtype)
    for values in (cross_entropy(half, labels), margin(half, labels), certainty_entropy(half)):
        assert values.dtype == torch.float32
    torch.testing.assert_close(cross_entropy(half, labels), cross_entropy(half.float(), labels))


def test_a_single_class_is_certain():
    assert cross_entropy(torch.tensor([[3.0]]), torch.tensor([0])).item() == 0


# -------------------------------------------------------------------------------------------------------- cam


@pytest.mark.parametrize("bias", [True, False])
def test_the_mean_of_a_cam_is_its_logit_minus_the_bias(bias, generator):
    features = torch.randn(3, 6, 4, 5, generator=generator, dtype=torch.float64)
    head = nn.Linear(6, 7, bias=bias, dtype=torch.float64)
    maps, logits = cam(features, head)
    assert maps.shape == (3, 7, 4, 5)
    torch.testing.assert_close(logits, head(features.mean((2, 3))))
    torch.testing.assert_close(maps.mean((2, 3)), logits - (head.bias if bias else 0))


def test_a_cam_is_the_weighted_sum_of_the_channels(generator):
    features = torch.randn(2, 3, 2, 2, generator=generator)
    head = nn.Linear(3, 4)
    maps, _ = cam(features, head)
    for c in range(4):
        expected = sum(head.weight[c, k] * features[:, k] for k in range(3))
        torch.testing.assert_close(maps[:, c], expected)


def test_a_cam_is_differentiable_in_features_and_weights(generator):
    features = torch.randn(2, 3, 2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    head = nn.Linear(3, 4, dtype=torch.float64)
    assert torch.autograd.gradgradcheck(lambda f: cam(f, head)[0] ** 2, features)
    cam(features, head)[0].square().sum().backward()
    assert float(head.weight.grad.abs().sum()) > 0


# ---------------------------------------------------------------------------------- difference of logits ratio


def test_the_ratios_are_those_of_the_paper(logits, labels):
    targets = (labels + 2) % 5
    plain, aimed = [], []
    for z, y, t in zip(logits.tolist(), labels.tolist(), targets.tolist()):
        first, _, third, fourth, _ = sorted(z, reverse=True)
        plain.append(-(z[y] - max(v for j, v in enumerate(z) if j != y)) / (first - third))
        aimed.append(-(z[y] - z[t]) / (first - (third + fourth) / 2))
    assert dlr(logits, labels).tolist() == pytest.approx(plain)
    assert targeted_dlr(logits, labels, targets).tolist() == pytest.approx(aimed)


def test_the_ratios_know_neither_shift_nor_scale(logits, labels):
    targets = (labels + 1) % 5
    torch.testing.assert_close(dlr(7 * logits + 3, labels), dlr(logits, labels))
    torch.testing.assert_close(targeted_dlr(7 * logits + 3, labels, targets), targeted_dlr(logits, labels, targets))
    assert torch.equal(dlr(logits, labels) > 0, logits.argmax(1) != labels)
    assert (dlr(logits, logits.argmax(1)) >= -1).all()
    assert dlr(torch.zeros(1, 4), torch.tensor([1])).tolist() == [0]  # all equal: no 0 / 0
    assert dlr(logits.half(), labels).dtype == torch.float32


def test_the_gradients_of_the_ratios_agree_with_finite_differences(logits, labels):
    logits.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda z: dlr(z, labels), logits)
    assert torch.autograd.gradcheck(lambda z: targeted_dlr(z, labels, (labels + 2) % 5), logits)


def test_the_ratios_refuse_too_few_classes():
    y = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(InputError, match="at least 3 classes"):
        dlr(torch.randn(2, 2), y)
    with pytest.raises(InputError, match="at least 4 classes"):
        targeted_dlr(torch.randn(2, 3), y, y)
