"""pellucid explain: pictures and data sets, several interpreters and classes, checkpoints and code."""

import re
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from pellucid.data import Digits
from pellucid.interpreters import CAM, Gradient, SmoothGrad
from pellucid.models import load_classifier
from pellucid.rng import Stream, derive

from .conftest import SMALL

PNG = b"\x89PNG"
TEST = Digits(train=60, validation=20, test=20).load("test")
CODE = """
import torch
from torch import nn
def tiny():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 7))
def grey():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
def unseeded():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
"""


@pytest.fixture
def picture(place):
    Image.fromarray(TEST.pixels[0, 0].numpy()).save(place / "digit.png")
    return "digit.png"


@pytest.fixture
def folder(place):
    (place / "pictures").mkdir()
    for row in range(3):
        Image.fromarray(TEST.pixels[row, 0].numpy()).save(place / "pictures" / f"digit{row}.png")
    return "pictures"


@pytest.fixture
def code(place):
    (place / "clinets.py").write_text(CODE)
    yield place
    sys.modules.pop("clinets", None)


def colour(place, size=(40, 30)):
    Image.effect_noise(size, 80).convert("RGB").save(place / "photo.png")
    return "photo.png"


@pytest.mark.parametrize("interpreter", ["gradient", "cam"])
def test_a_data_set(say, trained, place, interpreter):
    words = ("explain", trained, *SMALL, "--interpreter", interpreter, "--images", "4", "--out", "made", "--quiet")
    told = say(*words, "--json").json()
    assert told["images"] == 4
    assert told["classes"] == ["true"]
    assert "tau" not in told
    assert [row["true"] for row in told["predictions"]] == [str(int(y)) for y in TEST.labels[:4]]
    attacked = say(*words, "--attack", "pgd", "attack.eps=0.05", "attack.steps=2", "--json").json()
    assert attacked["tau"][interpreter]["true"].keys() == {"value", "low", "high", "images", "undefined"}
    assert 0 <= attacked["kept"] <= 4
    assert (place / "made" / "explain.png").read_bytes().startswith(PNG)
    maps = load_file(place / "made" / "explain.safetensors")
    assert maps["maps_0_clean"].shape[:2] == maps["tau_0"].shape == (4, 1)
    assert say(*words).out.splitlines()[-1] == str(place / "made" / "explain.png")


def test_several_interpreters_and_classes(say, trained, place):
    told = say(
        "explain", trained, *SMALL, "--interpreters", "smooth_grad inner=gradient samples=3, cam, gradient",
        "--classes", "predicted,runner_up,3", "--images", "2", "gradient.score=certainty",
        "smooth_grad.noise_level=0.2",
        "--attack", "fgsm", "attack.eps=0.1", "--json", "--quiet",
    ).json()  # fmt: skip
    assert told["interpreters"] == ["smooth_grad", "cam", "gradient"]
    assert told["classes"] == ["predicted", "runner_up", "3"]
    found = load_file(told["arrays"])
    network, rng = load_classifier(trained), Stream(derive(0, "explain"), torch.arange(2)).child("map")
    smooth = SmoothGrad(inner=Gradient(), samples=3, noise_level=0.2)
    for number, interpreter in enumerate((smooth, CAM(), Gradient(score="certainty"))):
        expected = interpreter(network, found["clean"], found["targets"], rng=rng)
        assert torch.allclose(found[f"maps_{number}_clean"], expected, atol=1e-6)
        assert found[f"tau_{number}"].shape == (2, 3)
    order = network(found["clean"]).sort(1, descending=True).indices
    assert torch.equal(found["targets"], torch.stack([order[:, 0], order[:, 1], torch.tensor([3, 3])], 1))
    assert told["predictions"][0]["explained"] == [str(int(k)) for k in found["targets"][0]]
    page = (place / "explain" / "explain.html").read_text()
    assert page.count("<img ") == 2 * 2 * (2 + 9) + 2 * 3  # two states, two parts with the image; and what changed
    assert "smooth grad: runner-up" in page
    assert not re.search(r"(src|href)=.(https?:|//)", page)  # it needs no other file


def test_one_picture(say, trained, place, picture):
    told = say("explain", trained, picture, "--json", "--quiet").json()
    assert told["classes"] == ["predicted"]
    assert told["interpreters"] == ["gradient", "integrated_gradients", "grad_cam", "cam"]
    (row,) = told["predictions"]
    assert row["image"] == "digit.png"
    scores = load_classifier(trained)(TEST.images(slice(1))).softmax(1)[0]
    assert row["predicted"]["class"] == str(int(scores.argmax()))
    assert row["predicted"]["probability"] == pytest.approx(float(scores.max()), abs=1e-6)
    assert "true" not in row
    spoken = say("explain", trained, picture, "--quiet")
    assert f"digit.png: {row['predicted']['class']} {scores.max():.1%}" in spoken.out
    assert "digit.png" in (place / "explain" / "explain.html").read_text()


def test_a_folder_of_pictures_under_attack(say, trained, folder):
    words = ("explain", trained, folder, "--attack", "pgd", "attack.eps=0.2", "attack.steps=3", "--quiet")
    told = say(*words, "--json").json()
    assert [row["image"] for row in told["predictions"]] == ["digit0.png", "digit1.png", "digit2.png"]
    found = load_file(told["arrays"])
    assert torch.equal(found["clean"], TEST.images(slice(3)))
    guess = torch.arange(3), found["probabilities_clean"].argmax(1)
    assert (found["probabilities_adversarial"][guess] < found["probabilities_clean"][guess]).all()
    assert set(told["tau"]) == {"gradient", "integrated_gradients", "grad_cam", "cam"}
    spoken = say(*words)
    assert "images kept their prediction" in spoken.out
    assert "under attack" in spoken.out


def test_pictures_come_in_the_networks_own_size_and_channels(say, trained, place):
    found = load_file(say("explain", trained, colour(place), "--json", "--quiet").json()["arrays"])
    assert found["clean"].shape == (1, 1, 28, 28)


def test_a_picture_that_was_exchanged_is_explained_anew(say, trained, place, picture):
    words = ("explain", trained, picture, "--interpreter", "cam", "--json", "--quiet")
    before = load_file(say(*words).json()["arrays"])["clean"]
    assert torch.equal(before, TEST.images(slice(1)))
    Image.fromarray(TEST.pixels[1, 0].numpy()).save(picture)
    assert torch.equal(load_file(say(*words).json()["arrays"])["clean"], TEST.images(slice(1, 2)))


def test_an_imported_network_and_a_photograph(say, code, place):
    photo = colour(place)
    words = ("explain", "clinets:tiny", photo, "model.mean=0.4,0.5,0.6", "model.std=0.5", "--json", "--quiet")
    plain = say(*words).json()
    assert plain["interpreters"] == ["gradient", "integrated_gradients", "grad_cam"]  # CAM needs a head
    assert load_file(plain["arrays"])["clean"].shape == (1, 3, 30, 40)  # as the picture is
    with_head = say(*words, "model.feature_layer=1", "model.head=4", "--size", "16,20").json()
    assert with_head["interpreters"][-1] == "cam"
    found = load_file(with_head["arrays"])
    assert found["clean"].shape == (1, 3, 16, 20)
    module = sys.modules["clinets"].tiny().eval()
    x = (found["clean"] - torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1)) / 0.5
    assert torch.allclose(found["probabilities_clean"], module(x).softmax(1), atol=1e-6)


def test_evaluate_and_attack_take_imported_networks(say, code, trained):
    told = say("evaluate", "clinets:grey", trained, *SMALL, "model.mean=0.5", "--json", "--quiet").json()
    assert [row["network"] for row in told["accuracy"]] == ["clinets:grey", str(trained)]
    module = sys.modules["clinets"].grey().eval()
    right = (module(TEST.images() - 0.5).argmax(1) == TEST.labels).float().mean()
    assert told["accuracy"][0]["value"] == pytest.approx(float(right))
    attacked = say("attack", "clinets:grey", *SMALL, "--attack", "fgsm", "eps=0.1", "--json", "--quiet").json()
    assert attacked["accuracy"].keys() == {"clean", "adversarial"}


def test_decisions_are_said(say, code, place):
    words = ("explain", "clinets:grey", *SMALL, "--images", "3", "--interpreter", "grad_cam", "--quiet")
    decisions = say(*words, "--json").json()["decisions"]
    spoken = say(*words)
    assert [line for line in spoken.out.splitlines() if line.startswith("decided: ")] == [
        f"decided: {decision}" for decision in decisions
    ]
    page = (place / "explain" / "explain.html").read_text()
    assert page.count("Decided: ") == len(decisions)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("net", "nowhere.png"), "there is neither a file nor a folder 'nowhere.png'"),
        (("net", "clinets.py"), "is not called like an image"),
        (("net", "digit.png", "--classes", "true"), "has no labels, so no true class: explain the class predicted"),
        (("net", "digit.png", "--size", "8,8"), "the network was made for images (1, 28, 28) of 10 classes"),
        (("net", "digit.png", "--size", "8"), "data pictures.size"),
        (("net", "digit.png", "data.depth=3"), "data pictures has no field 'depth'"),
        (("net", "digit.png", "--attack", "fgsm"), "attack fgsm needs eps"),
        (("clinets:grey", "digit.png", "--interpreters", "gradient,cam"), "CAM needs a network that declares"),
        (("clinets:unseeded", "digit.png", "--interpreter", "gradient"), "load them, or seed them (torch.manual_seed)"),
        (("clinets:grey", "digit.png", "model.head=5"), "the module has no layer '5'; it has 0"),
        (("clinets:grey", "digit.png", "model.depth=5"), "takes mean, std, feature_layer and head, not 'depth'"),
        (("clinets:nothing", "digit.png"), "clinets:nothing cannot be imported (AttributeError"),
        (("clinets:tiny", "digit.png"), "the network takes no images (1, 28, 28), as "),
        (("clinets:tiny", "--data", "digits"), "the network takes no images (1, 28, 28), as digits has"),
        (("clinets:tiny", "digit.png", "--interpreter", "gradient"), "or with other channels (--size 224,224"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)  # fmt: skip
def test_refused(refused, trained, code, picture, words, said):
    network = trained if words[0] == "net" else words[0]
    assert said in refused("explain", network, *words[1:])
