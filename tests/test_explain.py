import pytest
import torch
from scipy.stats import kendalltau

from pellucid.attacks import PGD
from pellucid.explain import explain_pairs
from pellucid.interpreters import CAM, Gradient
from pellucid.models import SmallCNN
from pellucid.rng import Stream, global_seed
from pellucid.store import write_tensors

INTERPRETERS = (Gradient(score="cross_entropy"), CAM())
ATTACK = PGD(eps=0.1, steps=3)


@pytest.fixture
def network():
    with global_seed(0):
        return SmallCNN(filters=(3, 4, 5)).build(1, (12, 12), 4)


@pytest.fixture
def images(generator):
    return torch.rand(6, 1, 12, 12, generator=generator)


LABELS = torch.tensor([0, 1, 2, 3, 0, 1])


def test_contents_are_those_of_attack_and_interpreters_called_by_hand(network, images):
    found = explain_pairs(network, images, LABELS, ATTACK, INTERPRETERS, Stream(2))
    adversarial = ATTACK(network, images, LABELS, rng=Stream(2))
    assert found.keys() == {
        "clean", "adversarial", "probabilities_clean", "probabilities_adversarial",
        "maps_0_clean", "maps_0_adversarial", "tau_0", "maps_1_clean", "maps_1_adversarial", "tau_1",
    }  # fmt: skip
    assert torch.equal(found["clean"], images)
    assert torch.equal(found["adversarial"], adversarial)
    network.eval()
    for state, x in (("clean", images), ("adversarial", adversarial)):
        assert torch.allclose(found[f"probabilities_{state}"], network(x).softmax(1).detach())
        for number, interpreter in enumerate(INTERPRETERS):
            assert torch.allclose(found[f"maps_{number}_{state}"], interpreter(network, x, LABELS))
    assert found["maps_0_clean"].shape == images.shape
    assert found["maps_1_clean"].shape == (6, 3, 3)
    assert not any(value.requires_grad for value in found.values())


def test_tau_is_kendalls_between_the_raw_maps(network, images):
    found = explain_pairs(network, images, LABELS, ATTACK, INTERPRETERS, Stream(2))
    for number in range(2):
        before, after = found[f"maps_{number}_clean"], found[f"maps_{number}_adversarial"]
        expected = [kendalltau(a.flatten(), b.flatten()).statistic for a, b in zip(before, after)]
        assert found[f"tau_{number}"].tolist() == pytest.approx(expected, abs=1e-6)
        assert found[f"tau_{number}"].max() < 1


def test_the_attack_runs_all_its_steps_also_on_images_that_are_wrong_already(network, images):
    network.eval()
    wrong = (network(images).argmax(1) + 1) % 4
    found = explain_pairs(network, images, wrong, ATTACK, (), Stream(2))
    assert ((found["adversarial"] - images).abs().flatten(1).amax(1) > 0.02).all()


def test_without_an_attack_the_pair_is_one_and_the_same(network, images, tmp_path):
    found = explain_pairs(network, images, LABELS, None, INTERPRETERS[:1], Stream(2))
    assert torch.equal(found["adversarial"], images)
    assert torch.equal(found["maps_0_clean"], found["maps_0_adversarial"])
    assert found["tau_0"].tolist() == pytest.approx([1.0] * 6)
    write_tensors(tmp_path / "maps.safetensors", found)  # which refuses tensors that share memory


def test_tau_of_a_constant_map_is_not_a_number(network, images):
    with torch.no_grad():
        network.head.weight.zero_()
    found = explain_pairs(network, images, LABELS, None, (CAM(),), Stream(2))
    assert found["tau_0"].isnan().all()


def test_the_network_is_left_as_it_was_found(network, images):
    network.train()
    explain_pairs(network, images, LABELS, ATTACK, INTERPRETERS, Stream(2))
    assert all(module.training for module in network.modules())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
