"""Networks that code makes: what they are known by, and when code runs."""

import sys

import pytest
import torch

from pellucid.attacks import FGSM
from pellucid.errors import CheckpointError, DataError, InputError, SpecError
from pellucid.interpreters import CAM, Gradient
from pellucid.spec import digest, from_dict, to_dict
from pellucid.tasks import Evaluate, Explain, ImportedNetwork, Train, run
from pellucid.tasks.explaining import explanation
from pellucid.tasks.imported import _named, is_reference
from pellucid.tasks.parquet import read_predictions

from .conftest import DATA, FAST, ROSS

TEST = DATA.load("test")
CODE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 5, stride=2), nn.ReLU())
        self.fc = nn.Linear(4, classes)
    def forward(self, x):
        return self.fc(self.body(x).mean((2, 3)))

def seeded():
    torch.manual_seed(3)
    return Net()

def other():
    torch.manual_seed(4)
    return Net()

def three():
    torch.manual_seed(3)
    return Net(3)

class Named(Net):
    class config:
        id2label = {number: f"digit {number}" for number in range(10)}
    def __init__(self):
        torch.manual_seed(3)
        super().__init__()

def unseeded():
    return Net()

def needs(argument):
    return Net()

def broken():
    raise RuntimeError("no weights here")

def text():
    return "a network"

instance = seeded()
"""


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A module in the current folder, which is importable there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mynets.py").write_text(CODE)
    before = list(sys.path)
    yield tmp_path
    assert sys.path == before
    sys.modules.pop("mynets", None)
    _named.clear()


@pytest.mark.parametrize("reference", ["mynets:seeded", "mynets:instance", "mynets:Named"])
def test_a_function_a_module_or_a_class(code, store, reference):
    task = Explain(
        network=ImportedNetwork.of(reference, feature_layer="body", head="fc", mean="0.5"),
        data=DATA,
        interpreters=(Gradient(), CAM()),
        attack=FGSM(eps=0.1),
        images=5,
        classes=("predicted",),
    )
    found = explanation(task, run(task, store, FAST))
    torch.manual_seed(3)
    module = sys.modules["mynets"].Net().eval()
    expected = module(TEST.images(slice(5)) - 0.5).softmax(1)
    assert torch.allclose(found.probabilities, expected.detach(), atol=1e-6)
    assert found.maps["cam"].shape[:2] == (5, 1)
    names = tuple(f"digit {number}" for number in range(10)) if "Named" in reference else TEST.classes
    assert found.names == names


def test_evaluate_with_an_imported_judge(code, store):
    task = Evaluate(
        network=ImportedNetwork.of("mynets:seeded"), judges=(ImportedNetwork.of("mynets:other"),), data=DATA, images=9
    )
    predictions, _, _ = read_predictions(run(task, store, FAST).folder / "predictions.parquet")
    for judge, seed in enumerate((3, 4)):
        torch.manual_seed(seed)
        module = sys.modules["mynets"].Net().eval()
        assert torch.equal(predictions[judge, 0], module(TEST.images(slice(9))).argmax(1))


def test_known_by_weights_structure_source_and_options(code):
    one = ImportedNetwork.of("mynets:seeded")
    assert one == ImportedNetwork.of("mynets:seeded")
    found = {one.sha256, ImportedNetwork.of("mynets:other").sha256, ImportedNetwork.of("mynets:instance").sha256}
    assert len(found) == 3
    assert digest(ImportedNetwork.of("mynets:seeded", mean=0.5)) != digest(one)
    assert ImportedNetwork.of("mynets:seeded", std=(0.5,)) == ImportedNetwork.of("mynets:seeded", std="0.5")
    (code / "mynets.py").write_text(CODE.replace("self.body(x)", "-self.body(x)"))
    assert ImportedNetwork.of("mynets:seeded").sha256 != one.sha256


def test_a_buffer_counts(code):
    ImportedNetwork.of("mynets:instance")
    module = sys.modules["mynets"].instance
    module.register_buffer("scale", torch.ones(()), persistent=False)
    before = ImportedNetwork.of("mynets:instance")
    module.scale.fill_(2)
    assert ImportedNetwork.of("mynets:instance").sha256 != before.sha256


def test_random_weights_that_nobody_seeded_are_refused(code, store):
    task = Explain(network=ImportedNetwork.of("mynets:unseeded"), data=DATA, interpreters=(Gradient(),), images=2)
    with pytest.raises(CheckpointError, match=r"so load them, or seed them \(torch\.manual_seed\)"):
        run(task, store, FAST)
    assert not store.root.exists()


def test_a_description_alone_runs_no_code(code, store):
    """What lies on a disk may name code; it runs only if somebody names it in this process."""
    described = to_dict(ImportedNetwork.of("mynets:seeded"))
    _named.clear()
    sys.modules.pop("mynets")
    task = from_dict(described, "task")
    assert task == from_dict(task and described)
    with pytest.raises(SpecError, match="runs only where it is named"):
        run(Explain(network=task, data=DATA, interpreters=(Gradient(),)), store, FAST)
    with pytest.raises(SpecError, match="runs only where it is named"):
        run(Train(data=DATA, model=ROSS.model, steps=1, init=task), store, FAST)
    assert "mynets" not in sys.modules


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("mynets:broken", r"mynets:broken cannot be imported \(RuntimeError: no weights here\)"),
        ("mynets:nothing", r"cannot be imported \(AttributeError: .*nothing"),
        ("mynets:needs", r"cannot be imported \(TypeError: .*argument"),
        ("nowhere_at_all:net", "No module named 'nowhere_at_all'"),
        ("mynets:text", "must be a torch module, or return one when called; it is 'a network'"),
        ("mynets", "write package.module:attribute"),
        ("my nets:net", "write package.module:attribute"),
        ("../mynets:net", "write package.module:attribute"),
    ],
)
def test_what_is_no_network(code, reference, said):
    with pytest.raises(SpecError, match=said):
        ImportedNetwork.of(reference)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"head": "fcc"}, "the module has no layer 'fcc'; it has body"),
        ({"mean": "much"}, "'much' is not a number"),
        ({"std": "0"}, "std must be positive"),
        ({"sha256": "0"}, "takes mean, std, feature_layer and head, not 'sha256'"),
    ],
)
def test_options_that_cannot_be(code, options, said):
    with pytest.raises((SpecError, InputError), match=said):
        ImportedNetwork.of("mynets:seeded", **options)


def test_other_classes_than_the_data_have(code, store):
    with pytest.raises(DataError, match=r"made for 3 classes; digits has images \(1, 28, 28\) of 10 classes"):
        run(Evaluate(network=ImportedNetwork.of("mynets:three"), data=DATA), store, FAST)


def test_what_a_reference_is():
    assert is_reference("torch.nn:Identity")
    assert is_reference("a.b_1:c.d")
    for word in ("net", "a:", ":b", "a:b:c", "C:\\net", "./a:b", "a/b:c", "a:1", "a b:c", "a:b "):
        assert not is_reference(word)


def test_a_classifier_takes_no_options(code):
    (code / "mynets.py").write_text(
        "from pellucid.models import SmallCNN\nfrom pellucid.rng import global_seed\n"
        "def net():\n    with global_seed(0):\n        return SmallCNN().build(1, (28, 28), 10)\n"
    )
    assert ImportedNetwork.of("mynets:net").mean == (0.0,)
    with pytest.raises(InputError, match="owns its normalisation"):
        ImportedNetwork.of("mynets:net", mean=0.5)
