import pytest
import torch
from torch.nn import functional

from pellucid.errors import InputError
from pellucid.maths import counted
from pellucid.metrics import gradient_norms, log_probabilities


def test_norms_are_the_closed_form_of_a_softmax_regression(linear, generator):
    network = linear(classes=4)
    x = torch.rand(9, 1, 3, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 4, (9,), generator=generator)
    p = network(x).softmax(1).detach()
    norms = gradient_norms(network, x, y, batch_size=4)
    for found, label in ((norms.true, y), (norms.next, (y + 1) % 4)):
        expected = ((p - functional.one_hot(label, 4)) @ network.weight.detach()).norm(dim=1)
        torch.testing.assert_close(found, expected)
    assert norms.true.dtype == torch.float64


def test_norms_far_below_the_square_root_of_the_smallest_float_are_kept(linear):
    network = linear(classes=2, dtype=torch.float32)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1e-30], [-1e-30]]).expand(2, 12))
        network.bias.zero_()
    norms = gradient_norms(network, torch.zeros(1, 1, 3, 4), torch.tensor([0]))
    assert norms.true.item() == pytest.approx(1e-30 * 12**0.5, rel=1e-4)  # p - y = -1/2 times the difference 2e-30


def test_saturated_network_has_gradient_zero_not_nan(linear):
    network = linear(classes=2, dtype=torch.float32)
    with torch.no_grad():
        network.bias.copy_(torch.tensor([500.0, -500.0]))
    norms = gradient_norms(network, torch.full((1, 1, 3, 4), 0.5), torch.tensor([0]))
    assert norms.true.item() == 0
    assert norms.next.item() > 1


def test_one_forward_and_two_backward_passes_per_image(linear, generator):
    x = torch.rand(6, 1, 3, 4, generator=generator, dtype=torch.float64)
    with counted() as passes:
        gradient_norms(linear(), x, torch.zeros(6, dtype=torch.long))
    assert passes.backward == 12
    assert passes.forward <= 7  # one more image to learn the number of classes


def test_labels_out_of_range_and_empty_batches(linear):
    with pytest.raises(InputError, match="labels"):
        gradient_norms(linear(classes=3), torch.zeros(1, 1, 3, 4, dtype=torch.float64), torch.tensor([3]))
    empty = gradient_norms(linear(), torch.zeros(0, 1, 3, 4), torch.zeros(0, dtype=torch.long))
    assert empty.true.shape == empty.next.shape == (0,)


def test_log_probabilities_are_those_of_all_classes_even_far_below_the_smallest_float(linear, generator):
    network = linear(classes=3)
    x = torch.rand(5, 1, 3, 4, generator=generator, dtype=torch.float64)
    logs = log_probabilities(network, x, batch_size=2)
    torch.testing.assert_close(logs, network(x).softmax(1).log().detach())
    with torch.no_grad():
        network.bias[0] += 5000
    sharp = log_probabilities(network, x)
    assert (sharp[:, 1:] < -4900).all()
    assert sharp.isfinite().all()
