import copy
import dataclasses

import pytest
import torch
from torch import nn

from pellucid.attacks import FGSM, PGD
from pellucid.errors import InputError, SpecError
from pellucid.maths import counted
from pellucid.metrics import accuracy, accuracy_curve, predict, transfer_matrix, transfer_predictions, wilson
from pellucid.metrics.robustness import adversarial_grid
from pellucid.rng import Stream


@pytest.fixture
def images(generator):
    return torch.rand(20, 1, 3, 4, generator=generator, dtype=torch.float64) * 0.6 + 0.2


class Remembering:
    """Stands for an attack without the field eps."""

    def __call__(self, model, x, y, **_):
        return x


class Doubling(Remembering):
    """Changes images, whatever eps might be."""

    def __call__(self, model, x, y, **_):
        return (2 * x).clamp(0, 1)


def test_predict_is_the_argmax_in_eval_mode_and_leaves_the_network_alone(images):
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.BatchNorm1d(12)).double().train()
    network[2].running_mean.copy_(images.flatten(1).mean(0))
    before = copy.deepcopy(network.state_dict())
    expected = (images.flatten(1) - images.flatten(1).mean(0)).argmax(1)
    assert torch.equal(predict(network, images, batch_size=7), expected)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert network.training
    assert network[1].training


def test_predict_of_no_image():
    assert predict(nn.Flatten(), torch.zeros(0, 1, 2, 2)).shape == (0,)


def test_accuracy_is_a_share_with_its_interval():
    assert accuracy(torch.tensor([0, 1, 2, 0]), torch.tensor([0, 1, 2, 1])) == wilson(3, 4)
    with pytest.raises(InputError, match="predictions"):
        accuracy(torch.zeros(3, dtype=torch.long), torch.zeros(4, dtype=torch.long))
    with pytest.raises(InputError, match="predictions"):  # a matrix would be averaged by mistake
        accuracy(torch.zeros(2, 4, dtype=torch.long), torch.zeros(2, 4, dtype=torch.long))


def worst_case_margin(network, images, labels, eps):
    """Largest z_1 - z_0 in the eps ball (no pixel reaches the box), signed so that positive means fooled."""
    difference = network.weight[1] - network.weight[0]
    sign = torch.where(labels == 0, 1.0, -1.0)
    plain = images.flatten(1) @ difference + network.bias[1] - network.bias[0]
    return (sign * plain + eps * difference.abs().sum()).detach()


@pytest.mark.parametrize("attack", [FGSM(eps=0.0), PGD(eps=0.0, steps=5)])
def test_curve_of_a_linear_network_is_the_analytic_one(linear, images, attack):
    network = linear(classes=2)
    labels = predict(network, images)
    labels[3] = 1 - labels[3]  # misclassified clean: an error at every eps
    epsilons = [0.0, 0.01, 0.03, 0.08, 0.15]
    predictions = accuracy_curve(network, images, labels, attack, epsilons, batch_size=8)
    expected = torch.stack([worst_case_margin(network, images, labels, eps) < 0 for eps in epsilons])
    assert torch.equal(predictions == labels, expected)
    shares = [accuracy(row, labels).value for row in predictions]
    assert shares[0] == 0.95
    assert len(set(shares)) >= 4  # the data do separate the epsilons


def test_curve_does_not_depend_on_the_batch_size(linear, images):
    network = linear(classes=4)
    labels = predict(network, images)
    attack = PGD(norm="l2", eps=0.0, steps=2, step_size=0.02)
    runs = [accuracy_curve(network, images, labels, attack, [0.05, 0.2], Stream(5), size) for size in (3, 20)]
    assert torch.equal(*runs)


def test_curve_skips_eps_zero_and_pays_only_for_those_still_standing(linear, images):
    network = linear(classes=2)
    labels = 1 - predict(network, images)  # everyone is fooled from the start
    with counted() as passes:
        accuracy_curve(network, images, labels, PGD(eps=0.0, steps=50), [0.0], batch_size=20)
    assert (passes.forward, passes.backward) == (20, 0)
    with counted() as passes:
        accuracy_curve(network, images, labels, PGD(eps=0.0, steps=50, random_start=False), [0.1], batch_size=20)
    assert (passes.forward, passes.backward) == (20, 0)  # who is wrong before the attack is not attacked


class Recorded:
    """An attack without memory of its own that notes whom it was given."""

    def __init__(self, attack, seen):
        self.attack, self.seen = attack, seen

    def with_eps(self, eps):
        return Recorded(dataclasses.replace(self.attack, eps=eps), self.seen)

    def __call__(self, model, x, y, **more):
        self.seen.append(len(x))
        return self.attack(model, x, y, **more)


@pytest.mark.parametrize("attack", [FGSM(eps=0.0), PGD(eps=0.0, steps=4), PGD(eps=0.0, steps=4, norm="l2")])
def test_whom_a_smaller_eps_fooled_is_not_attacked_again_and_no_accuracy_is_higher_than_in_separate_runs(
    linear, images, attack
):
    network = linear(classes=4)
    labels = predict(network, images)
    labels[5] = (labels[5] + 1) % 4
    epsilons, stream = [0.0, 0.01, 0.05, 0.1, 0.3], Stream(6)
    together = accuracy_curve(network, images, labels, attack, epsilons, stream) == labels
    alone = torch.cat([accuracy_curve(network, images, labels, attack, [eps], stream) for eps in epsilons]) == labels
    assert (together <= alone).all()
    assert (together[1:] <= together[:-1]).all()  # who has fallen stays down
    assert 0.95 > together[2].float().mean() > together[-1].float().mean()
    seen = []
    grid = adversarial_grid(
        network, images, labels, Recorded(attack, seen), epsilons, rng=stream, stop_when_fooled=True
    )
    standing = [int((found.predictions == labels).sum()) for found in grid]
    assert seen == [n for n in standing[:-1] if n]


def test_one_gradient_serves_every_eps_of_fgsm(linear, images):
    network, epsilons = linear(classes=4), [0.0, 0.05, 0.1, 0.2]
    labels = predict(network, images)
    found = list(adversarial_grid(network, images, labels, FGSM(eps=0.0), epsilons))
    for eps, (x, *_) in zip(epsilons, found):
        assert torch.equal(x, FGSM(eps=eps)(network, images, labels))
    assert [(part.passes.forward, part.passes.backward) for part in found] == [(0, 0), (20, 20), (0, 0), (0, 0)]


def test_the_grid_leaves_images_alone_that_are_wrong_before_the_attack(linear, images):
    """A random start must not mend them; without the flag everybody is attacked."""
    network = linear(classes=3)
    labels = predict(network, images)
    labels[::2] = (labels[::2] + 1) % 3
    attack, seen = PGD(eps=0.1, steps=2), Stream(4)
    ((left, *_),) = adversarial_grid(network, images, labels, attack, [0.1], rng=seen, stop_when_fooled=True)
    assert torch.equal(left[::2], images[::2])
    assert (left[1::2] != images[1::2]).flatten(1).any(1).all()
    alone = attack(network, images[1::2], labels[1::2], rng=seen.take(torch.arange(1, 20, 2)), stop_when_fooled=True)
    assert torch.equal(left[1::2], alone)  # numbers belong to the place in the batch
    ((full, *_),) = adversarial_grid(network, images, labels, attack, [0.1], rng=seen)
    assert (full != images).flatten(1).any(1).all()


def test_a_grid_without_epsilons_is_the_attack_as_described(linear, images):
    network, labels = linear(classes=3), torch.zeros(20, dtype=torch.long)
    ((found, *_),) = adversarial_grid(network, images, labels, FGSM(eps=0.07), None)
    assert torch.equal(found, FGSM(eps=0.07)(network, images, labels))
    ((same, *_),) = adversarial_grid(network, images, labels, Doubling(), None)
    assert torch.equal(same, Doubling()(network, images, labels))
    with pytest.raises(SpecError, match="no eps to vary"):
        next(adversarial_grid(network, images, labels, Doubling(), [0.1]))


def test_curve_refuses_unordered_epsilons_and_attacks_without_eps(linear, images):
    network, labels = linear(), torch.zeros(20, dtype=torch.long)
    for epsilons in ([0.2, 0.1], [0.1, 0.1]):
        with pytest.raises(InputError, match="ascend"):
            accuracy_curve(network, images, labels, FGSM(eps=0.0), epsilons)
    for measure in (accuracy_curve, lambda network, *rest: transfer_predictions([network], [network], *rest)):
        with counted() as passes, pytest.raises(SpecError, match="attack Remembering has no eps to vary"):
            measure(network, images, labels, Remembering(), [0.1])
        assert passes.forward == 0
    with pytest.raises(InputError, match="batch_size"):
        accuracy_curve(network, images, labels, FGSM(eps=0.0), [0.1], batch_size=0)


def test_transfer_grid_holds_every_judge_on_every_makers_examples(linear, images):
    networks = [linear(classes=3, seed=seed) for seed in (0, 1, 2)]
    labels = predict(networks[0], images)
    attack, epsilons = PGD(eps=0.0, steps=3), [0.0, 0.05, 0.2]
    grid = transfer_predictions(networks[:2], networks, images, labels, attack, epsilons, Stream(3), batch_size=6)
    assert grid.shape == (2, 3, 3, 20)
    for m, maker in enumerate(networks[:2]):
        for e, eps in enumerate(epsilons):
            x_adv = dataclasses.replace(attack, eps=eps)(maker, images, labels, rng=Stream(3))
            for j, judge in enumerate(networks):
                assert torch.equal(grid[m, j, e], predict(judge, x_adv))
    assert not torch.equal(grid[0, 2], grid[1, 2])


def test_transferred_examples_are_not_cut_short_where_the_maker_is_fooled_early(linear, images):
    maker, judge = linear(classes=2, seed=0), linear(classes=2, seed=0)
    labels = 1 - predict(maker, images)  # an attack that stops when fooled would not move at all
    with counted() as passes:
        transfer_predictions([maker], [judge], images, labels, PGD(eps=0.0, steps=4), [0.1])
    assert passes.backward == 4 * 20


def test_transfer_matrix_is_the_accuracy_of_each_cell(generator):
    predictions = torch.randint(0, 3, (2, 3, 4, 10), generator=generator)
    labels = torch.randint(0, 3, (10,), generator=generator)
    matrix = transfer_matrix(predictions, labels)
    for m, j, e in ((0, 2, 3), (1, 0, 0)):
        assert matrix[m][j][e] == wilson(int((predictions[m, j, e] == labels).sum()), 10)
    with pytest.raises(InputError, match="makers"):
        transfer_matrix(predictions[0], labels)
    with pytest.raises(InputError, match="makers"):
        transfer_matrix(predictions, labels[:5])
