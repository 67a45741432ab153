"""The discrepancy that needs no target label (Boopathy et al. 2020, equation 7), and the measure on networks."""

import pytest
import torch

from pellucid.errors import InputError
from pellucid.interpreters import CAM, GradCAM, GuidedBackprop, IntegratedGradients, SmoothGrad
from pellucid.maths import counted
from pellucid.maths.discrepancy import discrepancy, label_free_discrepancy
from pellucid.metrics import interpretation_discrepancy
from pellucid.models import SmallCNN
from pellucid.rng import Stream, global_seed


def drawn(*shape, seed=0):
    return Stream(seed).normal(torch.empty(shape[0], 0, dtype=torch.float64), shape[1:])


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("form", ["paper", "code"])
@pytest.mark.parametrize("positions", ["mean", "sum"])
def test_it_is_its_formula(p, form, positions):
    before, after, logits, y = (
        drawn(4, 3, 2, 5),
        drawn(4, 3, 2, 5, seed=1),
        drawn(4, 3, seed=2),
        torch.tensor([0, 2, 1, 1]),
    )
    found = label_free_discrepancy(before, after, y, logits, form=form, p=p, positions=positions)
    unit = 1 / 10 if positions == "mean" else 1.0
    for n in range(4):
        norms = [float((unit * (after - before)[n, c]).flatten().norm(p)) for c in range(3)]
        wrong = [c for c in range(3) if c != int(y[n])]
        shares = torch.softmax(logits[n, wrong], 0).tolist()
        by_hand = norms[int(y[n])] + sum(w * norms[c] for w, c in zip(shares, wrong))
        assert float(found[n]) == pytest.approx(by_hand / (2 if form == "paper" else 1))


def test_with_two_classes_it_is_the_two_class_discrepancy():
    before, after = drawn(3, 2, 4, 4), drawn(3, 2, 4, 4, seed=1)
    found = label_free_discrepancy(before, after, torch.tensor([0, 1, 0]), drawn(3, 2, seed=2))
    torch.testing.assert_close(found, discrepancy(before, after))


def test_derivatives_are_right_and_flow_through_the_weights_unless_told_otherwise():
    maps = [drawn(2, 3, 2, 2, seed=seed).requires_grad_(True) for seed in (0, 1)]
    logits, y = drawn(2, 3, seed=2).requires_grad_(True), torch.tensor([0, 2])
    assert torch.autograd.gradgradcheck(lambda *a: label_free_discrepancy(a[0], a[1], y, a[2], p=2), (*maps, logits))
    (slope,) = torch.autograd.grad(label_free_discrepancy(*maps, y, logits).sum(), logits)
    assert float(slope.abs().max()) > 0
    still = label_free_discrepancy(*maps, y, logits, detach_weights=True)
    assert torch.autograd.grad(still.sum(), logits, allow_unused=True)[0] is None


def test_what_does_not_fit_is_refused():
    maps, y = drawn(2, 3, 2, 2), torch.tensor([0, 1])
    with pytest.raises(InputError, match=r"\(N, K, \.\.\.\)"):
        label_free_discrepancy(maps, maps, y, drawn(2, 4))
    with pytest.raises(InputError, match="of one shape"):
        label_free_discrepancy(maps, maps[:, :2], y, drawn(2, 3))
    with pytest.raises(InputError, match="paper or code"):
        label_free_discrepancy(maps, maps, y, drawn(2, 3), form="print")
    with pytest.raises(InputError, match="2 classes"):
        label_free_discrepancy(maps[:, :1], maps[:, :1], y, drawn(2, 1))


@pytest.fixture(scope="module")
def network():
    with global_seed(0):
        return SmallCNN(filters=(4, 6, 8)).build(1, (16, 12), 3).double().eval()


def test_the_measure_asks_the_network_for_the_maps_it_compares(network):
    x, y = drawn(5, 1, 16, 12).sigmoid(), torch.tensor([0, 1, 2, 0, 1])
    moved = (x + 0.1 * drawn(5, 1, 16, 12, seed=3)).clamp(0, 1)
    every = torch.arange(3).expand(5, 3)
    before, after = (CAM()(network, part, every) for part in (x, moved))
    with torch.no_grad():
        logits = network(moved)
    expected = label_free_discrepancy(before, after, y, logits)
    found = interpretation_discrepancy(network, CAM(), x, moved, y, classes="label_free", batch_size=2)
    torch.testing.assert_close(found, expected)
    rows = torch.arange(5)
    one = discrepancy(before[rows, y][:, None], after[rows, y][:, None], 2)
    torch.testing.assert_close(interpretation_discrepancy(network, CAM(), x, moved, y, classes="one", p=2), one)
    target = (y + 1) % 3
    two = interpretation_discrepancy(network, CAM(), x, moved, y, target=target)
    pair = torch.stack([y, target], 1)
    torch.testing.assert_close(two, discrepancy(before[rows[:, None], pair], after[rows[:, None], pair]))
    assert float(interpretation_discrepancy(network, IntegratedGradients(steps=3), x, x, y, positions="sum").max()) == 0
    with pytest.raises(InputError, match="one shape"):
        interpretation_discrepancy(network, CAM(), x, moved[:2], y)


def pictures():
    x = drawn(5, 1, 16, 12).sigmoid()
    return x, (x + 0.1 * drawn(5, 1, 16, 12, seed=3)).clamp(0, 1), torch.tensor([0, 1, 2, 0, 1])


@pytest.mark.parametrize("classes", ["one", "two", "all", "label_free"])
def test_cam_passes_every_image_forward_once(network, classes):
    with counted() as passes:
        interpretation_discrepancy(network, CAM(), *pictures(), classes=classes, batch_size=2)
    assert (passes.forward, passes.backward) == (10, 0)


@pytest.mark.parametrize(
    "method",
    [
        GradCAM(layer="convolutions.1", relu=False),
        GuidedBackprop(),
        IntegratedGradients(steps=2),
        SmoothGrad(samples=2),
    ],
)
def test_any_interpreter_is_asked_as_by_itself(network, method):
    x, moved, y = pictures()
    every, rng = torch.arange(3).expand(5, 3), Stream(9)
    before, after = (method(network, part, every, rng=rng) for part in (x, moved))
    found = interpretation_discrepancy(network, method, x, moved, y, classes="all", rng=rng, batch_size=2)
    torch.testing.assert_close(found, discrepancy(before, after))
    assert float(found.min()) > 0
    same = interpretation_discrepancy(network, method, x, x, y, classes="all", rng=rng)
    assert same.tolist() == [0.0] * 5, "noise is the same for both"


def test_two_classes_without_a_target_are_the_true_and_the_likeliest_other(network):
    x, moved, y = pictures()
    with torch.no_grad():
        logits = network(moved).tolist()
    other = torch.tensor(
        [max((c for c in range(3) if c != t), key=row.__getitem__) for row, t in zip(logits, y.tolist())]
    )
    found = interpretation_discrepancy(network, CAM(), x, moved, y)
    assert torch.equal(found, interpretation_discrepancy(network, CAM(), x, moved, y, target=other))
    assert interpretation_discrepancy(network, CAM(), x[:0], moved[:0], y[:0]).shape == (0,)


def test_the_measure_refuses_words_and_targets_that_say_nothing(network):
    x, moved, y = pictures()
    with pytest.raises(InputError, match="label_free"):
        interpretation_discrepancy(network, CAM(), x, moved, y, classes="three")
    with pytest.raises(InputError, match="mean or sum"):
        interpretation_discrepancy(network, CAM(), x, moved, y, positions="average")
    with pytest.raises(InputError, match="other than the true"):
        interpretation_discrepancy(network, CAM(), x, moved, y, target=y)
    for wrong in (y + 2, torch.full_like(y, 3)):
        for classes in ("one", "two", "all"):
            with pytest.raises(InputError, match=r"0\.\.2"):
                interpretation_discrepancy(network, CAM(), x, moved, wrong, classes=classes)
    for labels in ({"y": y + 2, "target": y}, {"y": y, "target": y + 1}):
        with pytest.raises(InputError, match=r"0\.\.2"):
            interpretation_discrepancy(network, CAM(), x, moved, **labels)
