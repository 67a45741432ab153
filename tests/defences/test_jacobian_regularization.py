import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from pellucid.attacks import FGSM, PGD
from pellucid.defences import JacobianRegularization, Standard
from pellucid.errors import InputError, SpecError
from pellucid.maths.passes import counted
from pellucid.protocols import Context

from .derivatives import jacobians, labels, pictures, smooth, tied, weight_gradients

WEIGHT, BATCH = 0.7, 6


def penalty(network, x=None, ctx=None, **fields):
    x = pictures() if x is None else x
    defence = JacobianRegularization(**{"weight": 1.0, "normalisation": "mean"} | fields)
    return defence(network, x, labels(len(x)), ctx)["jacobian_penalty"]


@pytest.mark.parametrize(
    ("normalisation", "expected"),
    [
        ("paper_sum", lambda size: WEIGHT * BATCH**0.5 * size),
        ("paper", lambda size: WEIGHT * size / BATCH**0.5),
        ("batch_sum", lambda size: WEIGHT * BATCH**0.5 * size),
        ("mean", lambda size: WEIGHT * size),
        ("code", lambda size: WEIGHT * size),
        ("squared", lambda size: WEIGHT / 2 * size**2),
    ],
)
def test_a_linear_network_has_the_norm_of_its_weights(linear, normalisation, expected):
    network, x, y = linear(), pictures(), labels()
    terms = JacobianRegularization(weight=WEIGHT, normalisation=normalisation)(network, x, y)
    entropy = functional.cross_entropy(network(x), y, reduction="sum" if normalisation == "paper_sum" else "mean")
    assert list(terms) == ["cross_entropy", "jacobian_penalty"]
    torch.testing.assert_close(terms["cross_entropy"], entropy)
    torch.testing.assert_close(terms["jacobian_penalty"], expected(network.weight.norm()))


def test_the_norms_are_those_of_jacrev():
    network, squares = smooth(), jacobians(smooth(), pictures()).square().sum((1, 2))
    expected = {
        "paper_sum": squares.sum().sqrt(),
        "paper": squares.sum().sqrt() / BATCH,
        "batch_sum": squares.sum().sqrt(),
        "mean": squares.mean().sqrt(),
        "code": squares[0].sqrt(),
        "squared": squares.mean() / 2,
    }
    for normalisation, value in expected.items():
        torch.testing.assert_close(penalty(network, normalisation=normalisation).detach(), value)


def test_paper_is_equation_4_over_the_batch_size():
    network = smooth()
    mean, whole = (
        JacobianRegularization(weight=WEIGHT, normalisation=n)(network, pictures(), labels())
        for n in ("paper", "paper_sum")
    )
    for name in mean:
        torch.testing.assert_close(whole[name], BATCH * mean[name])


def test_projections_are_unbiased():
    network, x = smooth(classes=5), pictures(64)
    exact = penalty(network, x, normalisation="squared").item()
    for count in (1, 3):
        draws = torch.stack(
            [
                penalty(network, x, Context(step=step), normalisation="squared", projections=count).detach()
                for step in range(2000)
            ]
        )
        error = draws.std() / len(draws) ** 0.5
        assert float((draws.mean() - exact).abs()) < 4 * error
        assert 0 < error < 0.01 * exact


def test_the_root_of_a_projection_is_low_on_average():
    network, x = smooth(classes=5), pictures(1)
    draws = torch.stack([penalty(network, x, Context(step=step), projections=1).detach() for step in range(1500)])
    assert draws.mean() + 3 * draws.std() / 1500**0.5 < penalty(network, x)


def test_as_many_projections_as_outputs_are_exact():
    network = smooth(classes=5)
    exact = weight_gradients(penalty(network), network)
    found = weight_gradients(penalty(network, projections=5), network)
    torch.testing.assert_close(found, exact)
    with pytest.raises(InputError, match="1 to 5"):
        penalty(network, projections=6)


def test_the_spectral_norm_is_the_largest_singular_value():
    network = smooth()
    largest = torch.linalg.svdvals(jacobians(network, pictures()))[:, 0]
    torch.testing.assert_close(penalty(network, norm="spectral").detach(), largest.square().mean().sqrt())
    torch.testing.assert_close(penalty(network, norm="spectral", normalisation="code").detach(), largest[0])
    weights = torch.tensor([1.0, 0.0, 4.0], dtype=torch.float64)
    rows = jacobians(network, pictures()) * weights.sqrt()[:, None]
    found = penalty(network, norm="spectral", row_weights=weights.tolist()).detach()
    torch.testing.assert_close(found, torch.linalg.svdvals(rows)[:, 0].square().mean().sqrt())


def test_the_spectral_norm_under_autocast():
    network, x, y = smooth().float(), pictures().float(), labels()
    with torch.autocast("cpu", torch.bfloat16):
        found = JacobianRegularization(weight=1.0, norm="spectral", normalisation="mean")(network, x, y)
    torch.testing.assert_close(found["jacobian_penalty"], penalty(network, x, norm="spectral"), rtol=0.02, atol=0)


def test_equal_singular_values_have_finite_gradients():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).double()
    with torch.no_grad():
        network[1].weight.copy_(torch.eye(3, 12))
    for gradient in weight_gradients(penalty(network, norm="spectral") + network(pictures()).sum(), network):
        assert bool(gradient.isfinite().all())


def test_row_weights_weigh_the_rows():
    network, weights = smooth(), (0.5, 0.0, 3.0)
    rows = jacobians(network, pictures()).square().sum(2)
    expected = (rows @ torch.tensor(weights, dtype=torch.float64)).mean() / 2
    found = penalty(network, row_weights=weights, normalisation="squared")
    torch.testing.assert_close(found.detach(), expected)
    projected = penalty(network, row_weights=weights, normalisation="squared", projections=3)
    torch.testing.assert_close(projected, found)
    torch.testing.assert_close(penalty(network, row_weights=(1.0, 1.0, 1.0)), penalty(network))
    with pytest.raises(InputError, match="2 row_weights do not fit 3"):
        penalty(network, row_weights=(1.0, 1.0))


def test_other_layers():
    network, x = smooth(), pictures()
    hidden = jacobians(network[:3], x).square().sum((1, 2))
    likely = jacobians(nn.Sequential(network, nn.Softmax(1)), x).square().sum((1, 2))
    torch.testing.assert_close(penalty(network, layer="2").detach(), hidden.mean().sqrt())
    torch.testing.assert_close(penalty(network, layer="2", normalisation="code").detach(), hidden[0].sqrt())
    torch.testing.assert_close(penalty(network, layer="probabilities").detach(), likely.mean().sqrt())
    torch.testing.assert_close(penalty(network, layer="3"), penalty(network))
    torch.testing.assert_close(penalty(network, layer="2", projections=7), penalty(network, layer="2"))
    with pytest.raises(InputError, match="no layer 'dense'; it has 0, 1, 2, 3"):
        penalty(network, layer="dense")
    assert not any(layer._forward_hooks for layer in network.modules())


def test_a_share_of_the_images_stands_for_the_batch():
    network, x = smooth(), pictures()
    alone = jacobians(network, x).square().sum((1, 2)) / 2
    contexts = [Context(step=step) for step in range(60)]
    draws = torch.stack([penalty(network, x, c, normalisation="squared", examples=0.1).detach() for c in contexts])
    nearest = (draws[:, None] - alone).abs()
    assert float(nearest.min(1).values.max()) < 1e-12
    assert set(nearest.argmin(1).tolist()) == set(range(6))
    for normalisation, factor in (("paper_sum", 6**0.5), ("paper", 6**-0.5), ("mean", 1.0)):
        found = penalty(network, x, contexts[7], normalisation=normalisation, examples=0.1)
        torch.testing.assert_close(found.detach(), factor * (2 * draws[7]).sqrt())


def test_it_costs_what_it_says():
    network, x = smooth(), pictures()
    for fields, backward in (
        ({}, 18),
        ({"projections": 2}, 12),
        ({"examples": 0.5}, 9),
        ({"normalisation": "code"}, 3),
        ({"weight": 0.0, "at": "perturbed"}, 0),
    ):
        with counted() as passes:
            penalty(network, x, **fields)
        assert passes.backward == backward


def test_the_jacobian_at_perturbed_images():
    network, x, y = smooth(), pictures(), labels()
    ctx, attack = Context(step=4), FGSM(eps=0.2)
    expected = jacobians(network, attack(network, x, y)).square().sum((1, 2)).mean().sqrt()
    found = penalty(network, x, ctx, at="perturbed", attack=attack)
    torch.testing.assert_close(found.detach(), expected)
    assert float((expected - penalty(network, x).detach()).abs()) > 1e-4
    terms = JacobianRegularization(at="perturbed", attack=attack)(network, x, y)
    torch.testing.assert_close(terms["cross_entropy"], Standard()(network, x, y)["cross_entropy"])


@pytest.mark.parametrize("fields", [{}, {"norm": "spectral"}, {"examples": 0.5}, {"layer": "2"}, {"projections": 1}])
def test_the_largest_jacobian_is_larger(fields):
    network = smooth()
    clean, random, largest = (
        penalty(network, at=at, attack=PGD(eps=0.2, steps=steps), **fields).item()
        for at, steps in (("clean", 1), ("perturbed", 1), ("largest", 20))
    )
    assert largest > 1.01 * max(clean, random)


def test_a_linear_network_has_no_larger_jacobian(linear):
    network = linear()
    torch.testing.assert_close(penalty(network, at="largest"), penalty(network))


def test_no_jacobian_has_no_slope():
    network = smooth()
    with torch.no_grad():
        network[3].weight.zero_()
    for fields in ({}, {"norm": "spectral"}, {"projections": 2}):
        value = penalty(network, **fields)
        assert value.item() == 0
        for gradient in weight_gradients(value, network):
            assert bool((gradient == 0).all())


def test_batch_normalisation_takes_the_batch_as_it_is():
    network, x = tied(), pictures()
    leaf = x.clone().requires_grad_(True)
    rows = [torch.autograd.grad(column.sum(), leaf, retain_graph=True)[0] for column in network(leaf).unbind(1)]
    squares = torch.stack(rows).square().sum((0, 2, 3, 4))
    torch.testing.assert_close(penalty(network, normalisation="code").detach(), squares[0].sqrt())
    found = penalty(network, examples=0.1, normalisation="squared").detach()
    assert float((found - squares / 2).abs().min()) < 1e-12
    before = copy.deepcopy(network.state_dict())
    penalty(network, at="largest", examples=0.1)
    assert network.state_dict()["2.num_batches_tracked"] == before["2.num_batches_tracked"] + 2


def test_no_weight_is_plain_training():
    terms = JacobianRegularization(weight=0.0, at="largest", layer="nowhere")(smooth(), pictures(), labels())
    assert terms["jacobian_penalty"].item() == 0
    torch.testing.assert_close(terms["cross_entropy"], functional.cross_entropy(smooth()(pictures()), labels()))


def test_options_that_exclude_each_other_are_refused():
    with pytest.raises(SpecError, match="norm frobenius only"):
        JacobianRegularization(norm="spectral", projections=1)
    with pytest.raises(SpecError, match="normalisation code"):
        JacobianRegularization(normalisation="code", examples=0.5)
    with pytest.raises(SpecError, match="examples"):
        JacobianRegularization(examples=0.0)
    assert JacobianRegularization(row_weights="1, 0.5").row_weights == (1.0, 0.5)
