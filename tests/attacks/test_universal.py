import pytest
import torch

from pellucid.attacks import DeepFool, UniversalPerturbation
from pellucid.errors import InputError
from pellucid.maths import counted
from pellucid.maths.balls import project
from pellucid.metrics import predict
from pellucid.rng import Stream


@pytest.fixture
def images(generator):
    return 0.3 + 0.4 * torch.rand(16, 1, 3, 4, generator=generator, dtype=torch.float64)


def zeros(n=16):
    return torch.zeros(n, dtype=torch.long)


def reference(network, x, order, eps, norm, passes, wanted):
    """Algorithm 1 of the paper, image by image, in the orders given; DeepFool on one image is the inner attack."""
    v, own = torch.zeros_like(x[0]), predict(network, x)
    for number in range(passes):
        for i in order[number]:
            here = (x[i] + v).clamp(0, 1)[None]
            if predict(network, here) == own[i]:
                there = DeepFool(steps=10)(network, here, own[i : i + 1])
                if predict(network, there) != own[i]:
                    v = project(norm, (v + there[0] - here[0])[None], eps)[0]
        if float((predict(network, (x + v).clamp(0, 1)) != own).double().mean()) >= wanted:
            break
    return v


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.3)])
def test_is_the_algorithm_of_the_paper(linear, images, norm, eps):
    network, attack = linear(classes=4), UniversalPerturbation(eps=eps, norm=norm, passes=3, wanted=1.0)
    rng = Stream(5)
    order = [rng.child("order", n).uniform(images, ()).argsort(stable=True).tolist() for n in range(3)]
    assert order[0] != order[1] != list(range(16))
    expected = reference(network, images, order, eps, norm, 3, 1.0)
    learned = attack.fit(network, images, zeros(), rng=rng)
    assert learned.keys() == {"perturbation"}
    torch.testing.assert_close(learned["perturbation"], expected, rtol=0, atol=1e-12)
    assert not torch.equal(learned["perturbation"], attack.fit(network, images, zeros(), rng=Stream(6))["perturbation"])


def test_one_perturbation_changes_most_labels_also_of_other_images(linear, generator):
    network = linear(classes=2, pixels=48)
    x = 0.3 + 0.4 * torch.rand(400, 3, 4, 4, generator=generator, dtype=torch.float64)
    one_class = x[predict(network, x) == 0]  # for these, one direction is right for all
    half = len(one_class) // 2
    attack = UniversalPerturbation(eps=0.1, wanted=0.9)
    learned = attack.fit(network, one_class[:half], zeros(half))
    fooled = predict(network, attack.apply(one_class[half:], learned)) != 0
    assert float(fooled.double().mean()) > 0.75
    signs = torch.randint(0, 2, x.shape[1:], generator=generator, dtype=torch.float64) * 2 - 1
    by_noise = predict(network, (one_class[half:] + 0.1 * signs).clamp(0, 1)) != 0
    assert float(by_noise.double().mean()) < 0.5


def test_it_stops_once_enough_labels_changed(linear, images):
    network = linear(classes=2)
    one_class = images[predict(network, images) == 0]
    n = len(one_class)

    def cost(eps, passes):
        with counted() as spent:
            UniversalPerturbation(eps=eps, wanted=0.5, passes=passes).fit(network, one_class, zeros(n))
        return spent.forward

    assert cost(0.3, 4) == cost(0.3, 1), "one pass was enough"
    assert cost(1e-9, 4) - n == 4 * (cost(1e-9, 1) - n), "all passes are made where no label changes"


def test_the_cost_of_a_pass_is_as_documented(linear, images):
    network = linear(classes=2)
    attack = UniversalPerturbation(eps=1e-9, passes=1, wanted=1.0)
    with counted() as passes:
        attack.fit(network, images, zeros())
    # N at the start and N at the end; N checks; as M = N, a DeepFool of two forwards, one backward and a check for all
    assert (passes.forward, passes.backward) == (16 + 2 * 16 + 16 + 2 * 16, 16)


@pytest.mark.parametrize("together", [4, 16])
def test_several_images_at_a_time(linear, images, together):
    network = linear(classes=2)
    one_class = images[predict(network, images) == 0]
    attack = UniversalPerturbation(eps=0.1, together=together, wanted=0.9)
    found = attack(network, one_class, zeros(len(one_class)))
    assert float((found - one_class).abs().max()) <= 0.1 + 1e-12
    assert float((predict(network, found) != 0).double().mean()) > 0.75


def test_for_white_box_accuracy_what_is_misclassified_stays(linear, images):
    network = linear(classes=3)
    y = predict(network, images)
    y[::2] = (y[::2] + 1) % 3
    found = UniversalPerturbation(eps=0.2)(network, images, y, stop_when_fooled=True)
    assert torch.equal(found[::2], images[::2])
    assert not torch.equal(found[1::2], images[1::2])


def test_what_makes_no_sense_is_refused(linear, images):
    network, attack = linear(), UniversalPerturbation(eps=0.1, passes=1)
    learned = attack.fit(network, images[:4], zeros(4))
    with pytest.raises(InputError, match=r"learned for images \(1, 3, 4\); these are \(1, 4, 3\)"):
        attack.apply(images.transpose(2, 3), learned)
    with pytest.raises(InputError, match="takes no target"):
        attack(network, images, zeros(), target=zeros())
    with pytest.raises(InputError, match="cannot maximise"):
        attack.maximise(lambda x, rows: x.flatten(1).sum(1), images)
    with pytest.raises(InputError, match=r"labels must be 0\.\.2; found 3"):
        attack.fit(network, images, zeros() + 3)
