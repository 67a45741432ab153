import copy

import pytest
import torch
from torch import nn

from pellucid.errors import InputError
from pellucid.guard import check_images, check_labels, check_logits, frozen, reading


def network() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3),
        nn.BatchNorm2d(2),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.BatchNorm1d(8),
        nn.Linear(8, 3),
    )
    with torch.no_grad():
        for number, p in enumerate(net.parameters()):
            p.copy_(torch.linspace(-1, 1, p.numel()).view_as(p) + 0.1 * number)
    net.train()
    net[1].eval()  # frozen batch norm inside a network in training
    net[0].weight.requires_grad_(False)
    return net


def state(net: nn.Module) -> list:
    modes = [m.training for m in net.modules()]
    flags = [p.requires_grad for p in net.parameters()]
    tensors = {k: v.clone() for k, v in net.state_dict().items()}
    return [modes, flags, tensors]


def same(a: list, b: list) -> bool:
    return a[:2] == b[:2] and all(torch.equal(a[2][k], b[2][k]) for k in a[2] | b[2])


IMAGES = torch.linspace(0, 1, 4 * 16).view(4, 1, 4, 4)


# ----------------------------------------------------------------------------------------------------- images


def test_images_in_range_are_returned_as_they_are():
    assert check_images(IMAGES) is IMAGES
    empty = torch.zeros(0, 1, 4, 4)
    assert check_images(empty) is empty


def test_images_within_rounding_are_clamped():
    x = IMAGES.clone()
    x[0, 0, 0, 0], x[3, 0, 3, 3] = -5e-7, 1 + 5e-7
    clamped = check_images(x)
    assert float(clamped.min()) == 0
    assert float(clamped.max()) == 1
    assert float(x.min()) < 0  # the caller's own tensor is left alone


def test_clamping_keeps_the_graph():
    leaf = (IMAGES * (1 + 5e-7)).requires_grad_(True)
    check_images(leaf).sum().backward()
    assert leaf.grad is not None


@pytest.mark.parametrize(
    ("x", "cause"),
    [
        (IMAGES * 255, "divide by 255"),
        (IMAGES - 0.5, "mean and std"),
        (IMAGES * 1.9, "mean and std"),
        (IMAGES * 4 - 2, "mean and std"),
        (IMAGES * 1000, "mean and std"),
        (torch.where(IMAGES > 0.5, float("nan"), IMAGES), "NaN"),
        (IMAGES + 2e-6, r"\[2e-06, 1\]"),
        (torch.where(IMAGES > 0.5, float("inf"), IMAGES), "inf"),
    ],
)
def test_images_out_of_range_are_refused_with_the_range_and_a_cause(x, cause):
    with pytest.raises(InputError, match=cause):
        check_images(x)


def test_the_message_names_the_range_seen():
    with pytest.raises(InputError, match=r"spans \[-0\.5, 0\.5\]"):
        check_images(IMAGES - 0.5)


def test_half_precision_has_its_own_tolerance():
    assert float(check_images((IMAGES * 1.0005).half()).max()) == 1
    with pytest.raises(InputError):
        check_images(IMAGES * 1.0005)


@pytest.mark.parametrize(
    ("x", "what"),
    [
        ([[0.5]], "torch tensor"),
        (IMAGES[0], "four axes"),
        ((IMAGES * 255).to(torch.uint8), "divide 8-bit images by 255"),
        (IMAGES.long(), "floating point"),
        (IMAGES.to(torch.complex64), "floating point"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(x, what):
    with pytest.raises(InputError, match=what):
        check_images(x)


# ----------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_labels_come_back_as_int64(dtype):
    y = check_labels(torch.tensor([0, 2, 1], dtype=dtype), 3, 3)
    assert y.dtype == torch.int64
    assert y.tolist() == [0, 2, 1]
    assert check_labels(torch.zeros(0, dtype=dtype), 0, 3).shape == (0,)
    assert check_labels(torch.zeros(2, 5, dtype=dtype), 2, 1).shape == (2, 5)


@pytest.mark.parametrize(
    ("y", "n", "message"),
    [
        (torch.tensor([0.0, 1.0]), 2, "integer"),
        (torch.tensor([True, False]), 2, "integer"),
        ([0, 1], 2, "integer"),
        (torch.tensor([0, 1]), 3, r"3 here.*\(2,\)"),
        (torch.tensor(0), 1, "per image"),
        (torch.zeros(2, 2, 2, dtype=torch.long), 2, "per image"),
        (torch.tensor([0, 3]), 2, r"0\.\.2; found 3"),
        (torch.tensor([0, -1]), 2, r"0\.\.2; found -1"),
    ],
)
def test_wrong_labels_are_refused(y, n, message):
    with pytest.raises(InputError, match=message):
        check_labels(y, n, 3)


def test_the_message_says_which_labels():
    with pytest.raises(InputError, match="target labels must be 0 or more"):
        check_labels(torch.tensor([-1]), 1, what="target labels")


# ----------------------------------------------------------------------------------------------------- frozen


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_frozen_restores_every_flag_mode_and_buffer(mode):
    net = network()
    before, generator = state(net), torch.get_rng_state()
    with frozen(net, mode):
        assert {m.training for m in net.modules()} == {mode == "train"}
        assert not any(p.requires_grad for p in net.parameters())
        net(IMAGES)
    assert same(state(net), before)
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_frozen_restores_after_an_exception(mode):
    net = network()
    before, generator = state(net), torch.get_rng_state()
    with pytest.raises(RuntimeError, match="running_mean"), frozen(net, mode):
        net(IMAGES[:, :, :3])
    assert same(state(net), before)
    assert torch.equal(torch.get_rng_state(), generator)


def test_frozen_in_train_mode_uses_batch_statistics_and_its_own_dropout():
    net = network()
    reference = copy.deepcopy(net).eval()
    with frozen(net, "train", seed=1):
        first, again = net(IMAGES), net(IMAGES)
    with frozen(net, "train", seed=1):
        assert torch.equal(net(IMAGES), first)
    with frozen(net, "train", seed=2):
        assert not torch.equal(net(IMAGES), first)
    assert not torch.equal(first, again)
    assert not torch.allclose(first, reference(IMAGES))


def test_the_buffers_are_the_same_tensors_afterwards():
    net = network()
    buffers = list(net.buffers())
    with frozen(net, "train"):
        net(IMAGES)
    assert all(a is b for a, b in zip(buffers, net.buffers()))


def test_a_graph_made_in_train_mode_can_be_differentiated_after_the_block():
    net = network()
    x = IMAGES.clone().requires_grad_(True)
    with frozen(net, "train"):
        out = net(x)
    out.square().sum().backward()
    assert float(x.grad.abs().sum()) > 0


def test_weights_may_keep_their_gradients():
    net = network()
    with frozen(net, weights=True):
        assert [p.requires_grad for p in net.parameters()] == [False] + [True] * 7
        net(IMAGES).sum().backward()
    assert net[5].weight.grad is not None
    assert net[5].training


def test_frozen_leaves_the_gradients_of_the_weights_alone():
    net = network()
    net[5].weight.grad = torch.ones_like(net[5].weight)
    with frozen(net):
        x = IMAGES.clone().requires_grad_(True)
        net(x).sum().backward()
    assert (net[5].weight.grad == 1).all()
    assert net[5].bias.grad is None


def test_blocks_may_be_nested():
    net = network()
    before = state(net)
    with frozen(net), frozen(net, "train"):
        net(IMAGES)
    assert same(state(net), before)


def test_a_network_without_weights():
    with frozen(nn.Flatten(), "train"):
        pass


def test_reading_freezes_only_where_nothing_is_differentiated_further():
    net = network()
    with reading(net, create_graph=False):
        assert not net.training
    with reading(net, create_graph=True):
        assert net.training
        assert net[5].weight.requires_grad
    assert net.training


@pytest.mark.parametrize("shape", [(2, 0, 3, 3), (2, 1, 0, 4), (0, 1, 3, 0)])
def test_images_without_a_pixel_are_refused(shape):
    with pytest.raises(InputError, match="at least one channel and one pixel"):
        check_images(torch.zeros(shape))


@pytest.mark.parametrize("logits", [torch.zeros(2), torch.zeros(1, 2, 3), torch.zeros(3, 4)], ids=str)
def test_logits_are_one_row_per_image(logits):
    with pytest.raises(InputError, match=r"logits \(N, K\), one row per image"):
        check_logits(logits, torch.zeros(2, 1, 2, 2))
