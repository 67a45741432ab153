import pytest
import torch
from torch.nn import functional

from pellucid.defences import CrossLipschitz, JacobianRegularization
from pellucid.maths.passes import counted
from pellucid.protocols import Context

from .derivatives import jacobians, labels, pictures, smooth, tied


def penalty(network, ctx=None, **fields):
    defence = CrossLipschitz(**{"weight": 1.0} | fields)
    return defence(network, pictures(), labels(), ctx)["cross_lipschitz"]


def pair_sums(network):
    """Return the sum over ordered pairs, pair by pair: (N,)."""
    rows = jacobians(network, pictures())
    total = torch.zeros(len(rows), dtype=torch.float64)
    for one in rows.unbind(1):
        for other in rows.unbind(1):
            total += (one - other).square().sum(1)
    return total


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_it_is_the_sum_over_ordered_pairs(classes):
    network = smooth(classes)
    y = labels() % classes
    sums = pair_sums(network)
    for normalisation, expected in (
        ("paper", sums.mean()),
        ("paper_sum", sums.sum()),
        ("hein", sums.mean() / classes**2),
    ):
        terms = CrossLipschitz(weight=0.7, normalisation=normalisation)(network, pictures(), y)
        assert list(terms) == ["cross_entropy", "cross_lipschitz"]
        torch.testing.assert_close(terms["cross_lipschitz"].detach(), 0.7 * expected)
        loss = functional.cross_entropy(network(pictures()), y, reduction="sum" if "sum" in normalisation else "mean")
        torch.testing.assert_close(terms["cross_entropy"], loss)


def test_it_is_twice_k_times_the_rows_less_their_sum():
    rows = jacobians(smooth(), pictures())
    expected = 2 * 3 * rows.square().sum((1, 2)) - 2 * rows.sum(1).square().sum(1)
    torch.testing.assert_close(penalty(smooth()).detach(), expected.mean())


def test_what_all_logits_share_costs_nothing(linear):
    network = linear()
    before = penalty(network).item()
    with torch.no_grad():
        network.weight += 5.0
    assert penalty(network).item() == pytest.approx(before, rel=1e-10)
    with torch.no_grad():
        network.weight.copy_(network.weight[:1].expand(3, -1))
    assert 0 <= penalty(network).item() < 1e-20


def test_it_costs_as_much_as_a_jacobian():
    counts = []
    for defence in (CrossLipschitz(), JacobianRegularization(), CrossLipschitz(examples=0.5)):
        with counted() as passes:
            defence(smooth(), pictures(), labels())
        counts.append(passes.backward)
    assert counts == [18, 18, 9]


def test_a_share_of_the_images_stands_for_the_batch():
    sums = pair_sums(smooth())
    draws = torch.stack([penalty(smooth(), Context(step=step), examples=0.1).detach() for step in range(60)])
    nearest = (draws[:, None] - sums).abs()
    assert float(nearest.min(1).values.max()) < 1e-10
    assert set(nearest.argmin(1).tolist()) == set(range(6))
    found = penalty(smooth(), Context(step=7), examples=0.1, normalisation="paper_sum").detach()
    torch.testing.assert_close(found, 6 * draws[7])


def test_batch_normalisation_takes_the_batch_as_it_is():
    draws = torch.stack([penalty(tied(), Context(step=step), examples=0.1).detach() for step in range(60)])
    values = draws.unique(sorted=True)
    apart = values[torch.cat([torch.tensor([True]), values.diff() > 1e-9])]
    assert len(apart) == 6
    torch.testing.assert_close(apart.mean(), penalty(tied()).detach())


def test_no_weight_is_plain_training():
    terms = CrossLipschitz(weight=0.0)(smooth(), pictures(), labels())
    assert terms["cross_lipschitz"].item() == 0
    torch.testing.assert_close(terms["cross_entropy"], functional.cross_entropy(smooth()(pictures()), labels()))


def test_the_default_has_the_scale_of_the_squared_jacobian():
    assert 2 * 10 * CrossLipschitz().weight == pytest.approx(0.01 / 2)
