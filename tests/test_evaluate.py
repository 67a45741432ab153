import pytest
import torch

from pellucid.attacks import FGSM, PGD
from pellucid.evaluate import make_and_judge
from pellucid.maths.passes import counted
from pellucid.metrics import predict
from pellucid.models import Classifier
from pellucid.rng import Stream

EPSILONS = (0.0, 0.05, 0.2)
SHAPE = (1, 3, 4)


@pytest.fixture
def networks(linear):
    return [linear(seed=seed, dtype=torch.float32) for seed in range(3)]


@pytest.fixture
def images(generator):
    return torch.rand(30, *SHAPE, generator=generator)


@pytest.fixture
def labels(networks, images):
    """Right for the first network on two of three images."""
    y = predict(networks[0], images)
    y[::3] = (y[::3] + 1) % 3
    return y


def judged(networks, x, y, attack=FGSM(eps=0.1), epsilons=EPSILONS, judges=2):  # noqa: B008
    return make_and_judge(networks[0], networks[1 : 1 + judges], x, y, attack, epsilons, Stream(3), judges == 0)


def test_shapes_and_types(networks, images, labels):
    found = judged(networks, images, labels)
    assert found["predictions"].shape == (3, 3, 30)
    assert found["predictions"].dtype == torch.int16
    assert found["linf"].shape == found["l2"].shape == found["unstable"].shape == (3, 30)
    assert not found["unstable"].any()


def test_at_eps_0_everybody_predicts_as_on_clean_images(networks, images, labels):
    found = judged(networks, images, labels)
    for number, network in enumerate(networks):
        assert torch.equal(found["predictions"][number, 0].long(), predict(network, images))
    assert found["linf"][0].max() == found["l2"][0].max() == 0


def test_without_an_attack_images_are_clean(networks, images, labels):
    found = judged(networks, images, labels, attack=None, epsilons=(0.0,))
    assert torch.equal(found["predictions"][1, 0].long(), predict(networks[1], images))


def test_judges_keep_their_order_and_see_the_makers_examples(networks, images, labels):
    found = judged(networks, images, labels)
    changed = FGSM(eps=0.2)(networks[0], images, labels, rng=Stream(3))
    assert not torch.equal(changed, images)
    for number, network in enumerate(networks):
        assert torch.equal(found["predictions"][number, 2].long(), predict(network, changed))
    turned = judged([networks[0], networks[2], networks[1]], images, labels)
    assert torch.equal(turned["predictions"][[0, 2, 1]], found["predictions"])
    assert not torch.equal(found["predictions"][1], found["predictions"][2])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_sizes_are_those_found_in_the_images_and_never_above_eps(networks, images, labels, norm):
    attack = PGD(norm=norm, eps=0.1, steps=4)
    found = judged(networks, images, labels, attack=attack)
    for place, eps in enumerate(EPSILONS):
        assert found[norm][place].max() <= eps + 1e-6
    assert found[norm][2].max() > 0.19
    changed = PGD(norm=norm, eps=0.2, steps=4, step_size=attack.step_size)(networks[0], images, labels, rng=Stream(3))
    assert torch.allclose(found["linf"][2], (changed - images).flatten(1).abs().amax(1))
    assert torch.allclose(found["l2"][2], (changed - images).flatten(1).norm(dim=1))


def test_the_attack_lowers_the_makers_accuracy(networks, images, labels):
    right = (judged(networks, images, labels)["predictions"][0] == labels).float().mean(1)
    assert right[0] == pytest.approx(2 / 3)
    assert right[2] < right[0] - 0.2


def test_transfer_runs_all_steps_and_white_box_lets_the_fooled_leave(networks, images, labels):
    attack = PGD(eps=0.1, steps=10, random_start=False)

    def backward(judges):
        with counted() as passes:
            found = judged(networks, images, labels, attack, (0.1,), judges)
        return passes.backward, found

    full, transfer = backward(2)
    early, white_box = backward(0)
    assert full == 10 * 30
    assert 0 < early < full - 10 * 9  # the ten images that are wrong from the start cost nothing
    assert white_box["linf"].min() == 0
    assert transfer["linf"].min() > 0.09


class Fickle(Classifier):
    """Predicts 0 in a whole batch of ten and 1 in a smaller one for images with a dark corner."""

    def features(self, x):
        return x

    def classify(self, f):
        dark = f[:, 0, 0, 0] < 0.5
        first = ~dark | (len(f) == 10)
        return torch.stack([first.float(), (~first).float()], 1)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("white_box", [True, False])
def test_a_prediction_that_depends_on_the_batch_is_marked_and_counts_as_wrong_in_the_white_box(
    images, label, white_box
):
    x = images[:10].clone()
    x[:, 0, 0, 0] = torch.linspace(0, 1, 10)
    y = torch.full((10,), label)
    found = make_and_judge(Fickle(), [], x, y, None, (0.0,), Stream(0), white_box)
    dark = x[:, 0, 0, 0] < 0.5
    assert torch.equal(found["unstable"][0], dark)
    assert (found["predictions"][0, 0][~dark] == 0).all()
    expected = 1 - label if white_box else 0  # otherwise as in the whole batch
    assert (found["predictions"][0, 0][dark] == expected).all()
