import logging

import pytest
import torch
from scipy.stats import kendalltau
from torch import nn

from pellucid.attacks import PGD, UniversalPerturbation
from pellucid.errors import InputError, SpecError
from pellucid.explain import Explanation, deciding, explain, explain_pairs, targets_of, titles
from pellucid.interpreters import CAM, Gradient, SmoothGrad
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
TARGETS = torch.stack([LABELS, (LABELS + 1) % 4], 1)


def test_contents_are_those_of_attack_and_interpreters_called_by_hand(network, images):
    found = explain_pairs(network, images, TARGETS, ATTACK, INTERPRETERS, Stream(2), LABELS)
    adversarial = ATTACK(network, images, LABELS, rng=Stream(2))
    assert found.keys() == {
        "clean", "adversarial", "probabilities_clean", "probabilities_adversarial", "targets",
        "maps_0_clean", "maps_0_adversarial", "tau_0", "maps_1_clean", "maps_1_adversarial", "tau_1",
    }  # fmt: skip
    assert torch.equal(found["clean"], images)
    assert torch.equal(found["adversarial"], adversarial)
    network.eval()
    for state, x in (("clean", images), ("adversarial", adversarial)):
        assert torch.allclose(found[f"probabilities_{state}"], network(x).softmax(1).detach())
        for number, interpreter in enumerate(INTERPRETERS):
            for place in range(2):  # one class at a time
                expected = interpreter(network, x, TARGETS[:, place])
                assert torch.allclose(found[f"maps_{number}_{state}"][:, place], expected, atol=1e-6)
    assert found["maps_0_clean"].shape == (6, 2, 1, 12, 12)
    assert found["maps_1_clean"].shape == (6, 2, 3, 3)
    assert not any(value.requires_grad for value in found.values())


def test_tau_is_kendalls_between_the_raw_maps(network, images):
    found = explain_pairs(network, images, TARGETS, ATTACK, INTERPRETERS, Stream(2), LABELS)
    for number in range(2):
        before, after = (found[f"maps_{number}_{state}"].flatten(0, 1) for state in ("clean", "adversarial"))
        expected = [kendalltau(a.flatten(), b.flatten()).statistic for a, b in zip(before, after)]
        assert found[f"tau_{number}"].shape == (6, 2)
        assert found[f"tau_{number}"].flatten().tolist() == pytest.approx(expected, abs=1e-6)
        assert found[f"tau_{number}"].max() < 1


def test_the_attack_runs_all_its_steps_also_on_images_that_are_wrong_already(network, images):
    network.eval()
    wrong = (network(images).argmax(1) + 1) % 4
    found = explain_pairs(network, images, wrong[:, None], ATTACK, (), Stream(2), wrong)
    assert ((found["adversarial"] - images).abs().flatten(1).amax(1) > 0.02).all()


def test_without_labels_the_attack_moves_away_from_the_predicted_class(network, images):
    guess = network.eval()(images).argmax(1)
    found = explain_pairs(network, images, TARGETS, ATTACK, (), Stream(2))
    assert torch.equal(found["adversarial"], ATTACK(network, images, guess, rng=Stream(2)))
    assert not torch.equal(found["adversarial"], ATTACK(network, images, (guess + 1) % 4, rng=Stream(2)))


def test_without_an_attack_there_is_no_pair(network, images, tmp_path):
    found = explain_pairs(network, images, TARGETS, None, INTERPRETERS[:1], Stream(2))
    assert found.keys() == {"clean", "targets", "probabilities_clean", "maps_0_clean"}
    write_tensors(tmp_path / "maps.safetensors", found)  # which refuses tensors that share memory


def test_tau_of_a_constant_map_is_not_a_number(network, images):
    with torch.no_grad():
        network.head.weight.zero_()
    found = explain_pairs(network, images, TARGETS, ATTACK, (CAM(),), Stream(2))
    assert found["tau_0"].isnan().all()


def test_the_network_is_left_as_it_was_found(network, images):
    network.train()
    explain_pairs(network, images, TARGETS, ATTACK, INTERPRETERS, Stream(2), LABELS)
    assert all(module.training for module in network.modules())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


# ----------------------------------------------------------------------------------------------------- classes

SCORES = torch.tensor([[0.1, 0.6, 0.3, 0.0], [0.4, 0.1, 0.2, 0.3]])
NAMES = ("cat", "dog", "3", "0")


@pytest.mark.parametrize(
    ("word", "expected"),
    [("predicted", [1, 0]), ("runner_up", [2, 3]), ("least_likely", [3, 1]), ("true", [2, 0]), ("dog", [1, 1]),
     ("1", [1, 1]), (1, [1, 1]), ("3", [2, 2]), (0, [3, 3])],
)  # fmt: skip
def test_classes_by_rule_name_or_number(word, expected):
    """A name that is also a number is a name."""
    assert targets_of(SCORES, (word,), torch.tensor([2, 0]), NAMES).tolist() == [[row] for row in expected]


@pytest.mark.parametrize("word", ["mouse", "4", "-1", "²", ""])
def test_classes_that_are_not_there(word):
    with pytest.raises(InputError, match=r"there is no class .*predicted.*cat, dog"):
        targets_of(SCORES, (word,), None, NAMES)
    with pytest.raises(InputError, match="numbers from 0 to 3"):
        targets_of(SCORES, (word,))


def test_true_needs_labels_and_a_runner_up_two_classes():
    with pytest.raises(InputError, match="explain 'predicted' instead"):
        targets_of(SCORES, ("true",))
    with pytest.raises(InputError, match=r"labels must be 0\.\.3; found 4"):
        targets_of(SCORES, ("true",), torch.tensor([4, 0]))
    with pytest.raises(InputError, match="no runner-up"):
        targets_of(SCORES[:, :1], ("runner_up",))
    with pytest.raises(InputError, match="at least one class"):
        targets_of(SCORES, ())


# ----------------------------------------------------------------------------------------------------- explain


def test_in_one_call(network, images):
    words = ("predicted", "runner_up", 3)
    found = explain(
        network, images, ("gradient score=log_probability", CAM()), classes=words, attack=ATTACK, labels=LABELS
    )
    assert isinstance(found, Explanation)
    by_hand = targets_of(network.eval()(images).detach(), words)
    assert torch.equal(found.targets, by_hand)
    assert torch.equal(found.targets[:, 2], torch.full((6,), 3))
    pairs = explain_pairs(
        network, images, by_hand, ATTACK, (Gradient(score="log_probability"), CAM()), Stream(0), LABELS
    )
    assert list(found.maps) == ["gradient", "cam"]
    for number, name in enumerate(found.maps):
        assert torch.equal(found.maps[name], pairs[f"maps_{number}_clean"])
        assert torch.equal(found.maps_adversarial[name], pairs[f"maps_{number}_adversarial"])
        assert torch.equal(found.tau[name], pairs[f"tau_{number}"])
    assert torch.equal(found.adversarial, pairs["adversarial"])
    assert torch.equal(found.kept, found.probabilities.argmax(1) == found.probabilities_adversarial.argmax(1))
    assert found.names == ("0", "1", "2", "3")
    assert found.classes == ("predicted", "runner_up", "3")


@pytest.mark.parametrize("attack", [None, ATTACK, UniversalPerturbation(eps=0.1, passes=1, together=6)])
def test_batches_change_nothing(network, images, attack):
    """Not the random numbers of SmoothGrad and of the attack, and not what an attack learns from all images."""
    smooth = SmoothGrad(inner=Gradient(), samples=3)
    one, other = (explain(network, images, (smooth,), attack=attack, batch_size=size) for size in (2, 64))
    torch.testing.assert_close(one.maps["smooth_grad"], other.maps["smooth_grad"])
    if attack is not None:
        torch.testing.assert_close(one.adversarial, other.adversarial)
        torch.testing.assert_close(one.tau["smooth_grad"], other.tau["smooth_grad"])
    assert (one.adversarial is None) == (attack is None)


def test_no_image_and_one_image(network, images):
    none = explain(network, images[:0], ("gradient", "cam"), classes=("predicted", 1), attack=ATTACK)
    assert none.maps["cam"].shape == (0, 2, 3, 3)
    assert none.tau["cam"].shape == none.targets.shape == (0, 2)
    one = explain(network, images[:1])
    assert one.maps["gradient"].shape == (1, 1, 1, 12, 12)
    assert one.kept is None
    assert one.maps_adversarial == one.tau == {}


def test_any_module_is_adapted(images):
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)).eval()
    found = explain(module, images, names=("no", "yes"), classes=("yes",))
    assert torch.equal(found.targets, torch.ones(6, 1, dtype=torch.int64))
    assert torch.allclose(found.probabilities, module(images).softmax(1).detach())


def test_what_an_interpreter_refuses_is_refused_before_the_attack(images):
    class Forbidden:
        def __call__(self, *_, **__):
            raise AssertionError("the attack began")

    module = nn.Sequential(nn.Flatten(), nn.Linear(144, 2)).eval()
    for wrong, error, said in (
        ({"interpreters": ("cam",)}, InputError, "CAM needs a network that declares a linear head"),
        ({"interpreters": ("gradient", "camm")}, SpecError, "no interpreter called 'camm'; known: "),
        ({"interpreters": ("gradient", "gradient")}, SpecError, "'?gradient'? is named twice"),
        ({"interpreters": (3,)}, SpecError, "one of these is needed"),
        ({"classes": ("mouse",)}, InputError, "no class 'mouse'"),
        ({"classes": ("true",)}, InputError, "explain 'predicted' instead"),
        ({"names": ("a", "b", "c")}, InputError, "3 names were given for the 2 classes"),
        ({"labels": torch.zeros(5, dtype=torch.int64)}, InputError, "labels must"),
        ({"batch_size": 0}, InputError, "batch_size must be at least 1"),
    ):
        with pytest.raises(error, match=said):
            explain(module, images, **{"attack": Forbidden(), **wrong})


def test_names_of_interpreters_tell_them_apart():
    assert titles((Gradient(), CAM())) == ("gradient", "cam")
    assert titles((Gradient(), Gradient(score="certainty"))) == ("gradient", "gradient score=certainty")


def test_decisions_are_heard_once_and_the_logger_is_left_as_it_was():
    logger = logging.getLogger("pellucid.interpreters")
    before = (logger.level, list(logger.handlers))
    with deciding() as heard:
        for layer in (4, 4, 5):
            logging.getLogger("pellucid.interpreters.grad_cam").info("layer %d", layer)
        logger.debug("not a decision")
    assert heard == ["layer 4", "layer 5"]
    logger.info("later")
    assert heard == ["layer 4", "layer 5"]
    assert (logger.level, list(logger.handlers)) == before


def test_classes_are_chosen_by_logits_which_do_not_underflow():
    """Probabilities of a distilled network are 0 for all classes but one."""
    import torch
    from torch import nn

    from pellucid.explain import explain

    class Sure(nn.Module):
        def forward(self, x):
            return torch.tensor([400.0, 100.0, -300.0, 200.0]) + x.flatten(1).sum(1, keepdim=True)

    found = explain(Sure(), torch.rand(2, 1, 2, 2), classes=("predicted", "runner_up", "least_likely"))
    assert found.targets.tolist() == [[0, 3, 2]] * 2


def test_one_word_is_one_interpreter_one_class_and_an_attack():
    import torch

    from pellucid.explain import explain
    from pellucid.models import SmallCNN

    network, x = SmallCNN().build(1, (28, 28), 10), torch.rand(2, 1, 28, 28)
    found = explain(network, x, "cam", classes="runner_up", attack="pgd eps=0.1 steps=2")
    assert list(found.maps) == ["cam"]
    assert found.targets.shape == (2, 1)
    assert 0 < float((found.adversarial - x).abs().max()) <= 0.1 + 1e-6
