"""Explain: classes, images without labels, decisions, and what is refused before anything long."""

import logging
import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image

from pellucid.attacks import PGD, UniversalPerturbation
from pellucid.data.pictures import Pictures
from pellucid.errors import DataError, InputError, SpecError
from pellucid.explain import targets_of
from pellucid.interpreters import CAM, Gradient
from pellucid.models import load_classifier
from pellucid.rng import Stream, derive
from pellucid.spec import digest
from pellucid.tasks import Evaluate, Explain, InputGradients, run
from pellucid.tasks.explaining import explanation

from .conftest import DATA, EXPLAINED, FAST, SMALL, Journal, Killed

TEST = DATA.load("test")
WORDS = ("true", "predicted", "runner_up", "7")


@pytest.fixture
def ready(filled, store):
    shutil.copytree(filled.root, store.root)
    return store


@pytest.fixture
def pictures(tmp_path):
    """Three digits as files."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for row in range(3):
        Image.fromarray(TEST.pixels[row, 0].numpy()).save(folder / f"digit{row}.png")
    return Pictures(path=str(folder))


def test_several_classes_an_image(ready):
    task = replace(EXPLAINED, classes=WORDS)
    found = explanation(task, run(task, ready, FAST))
    network, x, y = load_classifier(ready.folder(SMALL)), TEST.images(slice(12)), TEST.labels[:12]
    assert torch.equal(found.targets, targets_of(network(x).detach(), WORDS, y, TEST.classes))
    assert torch.equal(found.targets[:, 0], y)
    assert set(found.targets[:, 3].tolist()) == {7}
    for place in range(4):
        maps = CAM()(network, found.adversarial, found.targets[:, place])
        assert torch.allclose(found.maps_adversarial["cam"][:, place], maps, atol=1e-6)
    assert found.tau["gradient"].shape == (12, 4)
    assert found.classes == WORDS
    assert found.names == TEST.classes
    assert torch.equal(found.labels, y)


def test_one_class_among_several_is_explained_as_it_is_alone(ready):
    alone = run(EXPLAINED, ready, FAST).tensors("maps.safetensors")
    among = run(replace(EXPLAINED, classes=("predicted", "true")), ready, FAST).tensors("maps.safetensors")
    assert torch.allclose(among["maps_0_clean"][:, 1], alone["maps_0_clean"][:, 0], atol=1e-6)
    assert torch.equal(among["adversarial"], alone["adversarial"])
    assert torch.allclose(among["tau_1"][:, 1], alone["tau_1"][:, 0], atol=1e-6)


def test_classes_are_words_in_any_spelling():
    assert Explain(network=SMALL, data=DATA, interpreters="gradient,cam", classes="true, 3").classes == ("true", "3")
    assert Explain(network=SMALL, data=DATA, interpreters=(Gradient(),), classes=(3,)).classes == ("3",)
    assert digest(replace(EXPLAINED, classes=("predicted",))) != digest(EXPLAINED)
    for wrong in ((), "", ("true", "true"), (None,), 3):
        with pytest.raises(SpecError, match=r"task explain\.classes"):
            replace(EXPLAINED, classes=wrong)
    with pytest.raises(SpecError, match="is named twice"):
        replace(EXPLAINED, interpreters=("cam", "cam"))


def test_images_without_labels(ready, pictures):
    task = replace(EXPLAINED, data=pictures, classes=("predicted", "7"))
    result = run(task, ready, FAST)
    found = explanation(task, result)
    assert found.labels is None
    assert "labels" not in result.tensors("maps.safetensors")
    assert torch.equal(found.images, TEST.images(slice(3)))
    network = load_classifier(ready.folder(SMALL))
    rng = Stream(derive(0, "explain"), torch.arange(3))
    away = EXPLAINED.attack(network, found.images, network(found.images).argmax(1), rng=rng)
    assert torch.allclose(found.adversarial, away, atol=1e-6)
    assert result.json("explained.json")["images"] == ["digit0.png", "digit1.png", "digit2.png"]


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({}, DataError, "has no labels, so no true class: explain the class predicted instead"),
        ({"classes": ("predicted", "8x")}, InputError, "there is no class '8x'"),
        ({"classes": ("7",), "attack": UniversalPerturbation(eps=0.3)}, DataError, "learns from labelled images"),
    ],
)  # fmt: skip
def test_refused_before_the_attack(ready, pictures, change, error, said):
    journal = Journal()
    with pytest.raises(error, match=said):
        run(replace(EXPLAINED, data=pictures, **change), ready, FAST, journal)
    assert not [line for line in journal.lines if isinstance(line[0], int)]  # nothing was attacked


def test_without_labels_nothing_is_measured(ready, pictures):
    for task in (Evaluate(network=SMALL, data=pictures), InputGradients(network=SMALL, data=pictures)):
        with pytest.raises(DataError, match="has no labels to compare predictions with"):
            run(task, ready, FAST)


def test_an_interpreter_that_refuses_the_network_does_so_before_the_attack(filled, store):
    """RossCNN has a hidden layer before its logits: no class activation maps."""
    from .conftest import ROSS

    shutil.copytree(filled.root, store.root)
    journal = Journal()
    with pytest.raises(InputError, match="declares a linear head"):
        run(replace(EXPLAINED, network=ROSS), store, FAST, journal)
    assert not [line for line in journal.lines if isinstance(line[0], int)]


def test_decisions_are_kept_also_where_another_process_ends_the_work(ready, monkeypatch):
    silent = CAM.maps

    def chatty(self, *args, **options):
        logging.getLogger("pellucid.interpreters").info("cam looks at the last layer")
        return silent(self, *args, **options)

    monkeypatch.setattr(CAM, "maps", chatty)
    with pytest.raises(Killed):
        run(replace(EXPLAINED, seed=9), ready, FAST, Journal(die_at=(10, 12)))
    monkeypatch.undo()
    said = run(replace(EXPLAINED, seed=9), ready, FAST).json("explained.json")
    assert said["decisions"] == ["cam looks at the last layer"]


def test_pictures_that_were_exchanged_are_not_taken_for_those_described(pictures):
    described = replace(pictures, sha256=pictures.load("test").sha256)
    assert described.load("test").names == ("digit0.png", "digit1.png", "digit2.png")
    Image.fromarray(TEST.pixels[5, 0].numpy()).save(f"{pictures.path}/digit1.png")
    with pytest.raises(DataError, match="are not those that were described"):
        described.load("test")


def test_the_time_it_may_take(ready):
    from pellucid.tasks.graph import rehearse

    assert (
        rehearse(replace(EXPLAINED, classes=("predicted", "runner_up"), attack=PGD(eps=0.1, steps=1)), ready).seconds
        > 0
    )


def test_a_reader_is_told_of_other_class_names_and_of_pictures_left_out():
    from dataclasses import replace

    from pellucid.data import Digits
    from pellucid.tasks.explaining import remarks

    split = Digits().load("test")
    assert remarks(split, split.classes, 5) == []
    (said,) = remarks(split, tuple("ABCDEFGHIJ"), 5)
    assert "named as the network's (A, B, C, ...), not as those of digits (0, 1, 2, ...)" in said
    assert remarks(replace(split, labelled=False), split.classes, 16) == ["the first 16 of 400 pictures are explained"]
