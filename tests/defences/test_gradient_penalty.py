import pytest
import torch

from pellucid.defences.gradient_penalty import chosen, forward, inseparable, root
from pellucid.errors import InputError
from pellucid.protocols import Context

from .derivatives import labels, pictures, smooth, tied


def test_the_root_has_a_finite_slope_everywhere():
    at = torch.tensor([0.0, 1e-40, 9.0], dtype=torch.float64, requires_grad=True)
    root(at).sum().backward()
    torch.testing.assert_close(root(at).detach(), at.detach().sqrt())
    torch.testing.assert_close(at.grad, torch.tensor([0.0, 0.5e20, 1 / 6], dtype=torch.float64))


def test_a_share_of_a_batch_is_of_its_size_and_of_every_image_alike():
    x = pictures()
    assert chosen(x, 1.0, Context()).tolist() == [0, 1, 2, 3, 4, 5]
    for share, count in ((0.5, 3), (0.01, 1), (0.34, 2)):
        counts = torch.zeros(6)
        for step in range(600):
            rows = chosen(x, share, Context(step=step))
            assert len(rows) == count
            assert rows.tolist() == sorted(set(rows.tolist()))
            counts[rows] += 1
        expected = 100 * count
        assert float((counts - expected).abs().max()) < 4 * (expected * (1 - count / 6)) ** 0.5


def test_a_share_belongs_to_the_samples_not_to_their_places():
    x, positions = pictures(), torch.tensor([40, 3, 17, 8, 99, 21])
    rows = chosen(x, 0.5, Context(step=2, positions=positions))
    turned = chosen(x.flip(0), 0.5, Context(step=2, positions=positions.flip(0)))
    assert sorted(positions[rows].tolist()) == sorted(positions.flip(0)[turned].tolist())


def test_the_forward_is_a_leaf_only_where_it_must_be():
    x = pictures()
    run = forward(smooth(), x, labels())
    assert run.x.requires_grad
    assert not x.requires_grad
    assert not forward(smooth(), x, labels(), differentiable=False).x.requires_grad
    with pytest.raises(InputError, match="at least one image"):
        forward(smooth(), x[:0], labels()[:0])


def test_batch_statistics_tie_images_together():
    network = tied()
    assert inseparable(network)
    assert not inseparable(network.eval())
    assert not inseparable(smooth().train())
    network[2].running_mean = network[2].running_var = None
    assert inseparable(network)
