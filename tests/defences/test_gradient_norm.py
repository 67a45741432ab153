import pytest
import torch
from torch.nn import functional

from pellucid.defences import GradientNorm, Standard
from pellucid.defences.gradient_norm import unit, with_known_gradients
from pellucid.maths.passes import counted
from pellucid.rng import global_seed

from .derivatives import each, forgetful, labels, pictures, smooth, weight_gradients

BATCH, PIXELS = 6, 12


def gradients(network):
    """Return the gradient of the cross-entropy at every image, one at a time: (N, D)."""
    targets = iter(labels())

    def at(image):
        return functional.cross_entropy(network(image[None]), next(targets)[None])

    return each(torch.func.grad, at, pictures()).flatten(1)


def penalty(network, **fields):
    return GradientNorm(**{"weight": 1.0} | fields)(network, pictures(), labels())["gradient_norm"]


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize(("norm", "order"), [("l2", 2), ("l1", 1)])
def test_the_norm_is_that_of_one_image_at_a_time(norm, order, squared):
    norms = gradients(smooth()).norm(p=order, dim=1)
    terms = GradientNorm(weight=0.7, norm=norm, squared=squared)(smooth(), pictures(), labels())
    assert list(terms) == ["cross_entropy", "gradient_norm"]
    torch.testing.assert_close(terms["cross_entropy"], functional.cross_entropy(smooth()(pictures()), labels()))
    torch.testing.assert_close(terms["gradient_norm"].detach(), 0.7 * (norms**2 if squared else norms).mean())


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_finite_differences_come_closer_with_the_step(norm, squared):
    network = smooth()
    exact = penalty(network, norm=norm, squared=squared).detach()
    errors = [
        float((penalty(network, norm=norm, squared=squared, form="finite_difference", h=h) - exact).detach().abs())
        for h in (1e-2, 1e-3, 1e-4)
    ]
    assert errors[0] < 0.05 * float(exact)
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(10, rel=0.1)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_the_step_is_taken_as_it_says(norm, squared):
    network, h, weight = smooth(), 0.3, 0.7
    g = gradients(network)
    d = g / g.norm(dim=1, keepdim=True) if norm == "l2" else g.sign() / PIXELS**0.5
    here, ahead = (
        functional.cross_entropy(network(v.view(-1, 1, 3, 4)), labels(), reduction="none")
        for v in (pictures().flatten(1), pictures().flatten(1) + h * d)
    )
    norms = (ahead - here) / h * (1 if norm == "l2" else PIXELS**0.5)
    expected = {"cross_entropy": here.mean(), "gradient_norm": weight * (norms**2 if squared else norms).mean()}
    defence = GradientNorm(weight=weight, norm=norm, squared=squared, form="finite_difference", h=h)
    found = defence(network, pictures(), labels())
    torch.testing.assert_close(found, expected)
    for name in expected:  # each term has gradients of its own
        torch.testing.assert_close(
            torch.autograd.grad(found[name], network.parameters(), retain_graph=True),
            torch.autograd.grad(expected[name], network.parameters(), retain_graph=True),
        )


def test_a_weight_of_the_step_is_adversarial_training():
    network, h = smooth(), 0.2
    terms = GradientNorm(weight=h, form="finite_difference", h=h)(network, pictures(), labels())
    moved = pictures() + h * unit(gradients(network)).view(-1, 1, 3, 4)
    expected = functional.cross_entropy(network(moved), labels())
    torch.testing.assert_close(sum(terms.values()), expected)
    torch.testing.assert_close(weight_gradients(sum(terms.values()), network), weight_gradients(expected, network))


def test_finite_differences_leave_frozen_weights_alone():
    network = smooth()
    network[1].weight.requires_grad_(False)
    sum(GradientNorm(form="finite_difference")(network, pictures(), labels()).values()).backward()
    assert network[1].weight.grad is None
    assert bool((network[3].weight.grad != 0).any())
    network.requires_grad_(False)
    terms = GradientNorm(form="finite_difference")(network, pictures(), labels())
    assert not any(value.requires_grad for value in terms.values())


def test_known_gradients_are_those_of_one_backward_pass():
    network = smooth()
    x = pictures().requires_grad_(True)
    expected = weight_gradients(functional.cross_entropy(network(x), labels()), network)
    loss, slope = with_known_gradients(functional.cross_entropy(network(x), labels()), x, list(network.parameters()))
    torch.testing.assert_close(slope.flatten(1), gradients(network) / BATCH)
    found = torch.autograd.grad(2 * loss, list(network.parameters()), create_graph=True)
    torch.testing.assert_close([g.detach() / 2 for g in found], expected)
    assert not any(g.requires_grad for g in found)  # nothing is left to differentiate again


@pytest.mark.parametrize("form", ["exact", "finite_difference"])
@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_no_gradient_has_no_slope(form, norm):
    network = smooth()
    with torch.no_grad():
        network[3].weight.zero_()
    for squared in (False, True):
        value = penalty(network, form=form, norm=norm, squared=squared)
        assert value.item() == 0
        assert all(bool(g.isfinite().all()) for g in weight_gradients(value, network))


@pytest.mark.parametrize("squared", [False, True])
def test_both_forwards_have_the_same_dropout_mask(squared):
    network, after = forgetful(), []
    values = []
    for form in ("exact", "finite_difference"):
        with global_seed(3):
            values.append(penalty(network, form=form, squared=squared, h=1e-5).detach())
            after.append(torch.rand(3))
    torch.testing.assert_close(values[1], values[0], rtol=1e-3, atol=0)
    torch.testing.assert_close(after[1], after[0])  # the generator goes on as after one forward


def test_passes():
    for form, expected in (("exact", (0, 6)), ("finite_difference", (0, 6))):
        with counted() as passes:
            penalty(smooth(), form=form)
        assert (passes.forward, passes.backward) == expected


def test_units_of_tiny_directions():
    flat = torch.tensor([[3e-30, 4e-30], [0.0, 0.0]])
    torch.testing.assert_close(unit(flat), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    assert unit(torch.ones(2, 1, 2, 2)).shape == (2, 1, 2, 2)


def test_no_weight_is_plain_training():
    for form in ("exact", "finite_difference"):
        terms = GradientNorm(weight=0.0, form=form)(smooth(), pictures(), labels())
        assert terms["gradient_norm"].item() == 0
        torch.testing.assert_close(terms["cross_entropy"], Standard()(smooth(), pictures(), labels())["cross_entropy"])
