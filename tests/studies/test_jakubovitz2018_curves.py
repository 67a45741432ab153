"""Figures 1 and 2 of Jakubovitz & Giryes: the rules on both sides, and the chapters of a run on tiny networks."""

from dataclasses import replace

import pytest
import torch

from pellucid.data import Digits
from pellucid.defences import Standard
from pellucid.metrics import accuracy
from pellucid.models import TutorialCNN
from pellucid.store import Store
from pellucid.studies import find_study
from pellucid.studies.jakubovitz2018_curves import GRADIENT, JACOBIAN, OTHERS, Jakubovitz2018Curves, behind, best
from pellucid.studies.jakubovitz2018_measured import autoattack, fgsm, jsma
from pellucid.studies.jakubovitz2018_networks import _train
from pellucid.studies.jakubovitz2018_scales import SCALES
from pellucid.studies.page.jakubovitz_curves import sections
from pellucid.tasks import Options, run
from pellucid.tasks.io import Io
from pellucid.tasks.parquet import read_predictions


def made_up(ours, others, gradient=None):
    """Networks that are right on so many of 200 images, at two sizes."""

    def right(count):
        return (torch.arange(200) < count).expand(2, -1)

    return {JACOBIAN: right(ours), **dict.fromkeys(OTHERS, right(others))} | (
        {} if gradient is None else {GRADIENT: right(gradient)}
    )


@pytest.mark.parametrize(
    ("right", "verdict"),
    [
        (made_up(150, 100), "holds"),
        (made_up(150, 100, gradient=180), "does not hold"),
        (made_up(150, 100, gradient=150), "cannot be decided"),
    ],
)
def test_the_best_is_ahead_of_every_other(right, verdict):
    found = best("L22a", "FGSM", right, "MNIST")
    assert found["verdict"] == verdict
    assert bool(found["power"]) == (verdict == "cannot be decided")


@pytest.mark.parametrize(("gradient", "verdict"), [(180, "holds"), (120, "does not hold"), (150, "cannot be decided")])
def test_behind_the_input_gradient_on_mnist(gradient, verdict):
    assert behind("L22b", made_up(150, 0, gradient=gradient))["verdict"] == verdict


@pytest.mark.parametrize("scale", ["smoke", "small", "paper"])
def test_both_data_sets_are_attacked_as_the_paper_does(scale):
    mnist, cifar = find_study("jakubovitz2018", scale).chapters[:2]
    assert (mnist.name, cifar.name, mnist.ahead, cifar.ahead) == ("MNIST", "CIFAR-10", False, True)
    assert len(mnist.jsma) == len(mnist.jsma_labels) * len(mnist.thetas)
    assert {task.attack.pixels for task in (*mnist.jsma, *cifar.jsma)} == {"single"}
    if scale == "paper":
        assert {task.attack.steps for task in mnist.jsma} == {80}
        assert {task.attack.steps for task in cifar.jsma} == {200}


def test_numbers_are_those_of_the_stored_predictions(tmp_path):
    half = replace(
        SCALES["smoke"].mnist,
        data=Digits(train=100, validation=20, test=40),
        model=TutorialCNN(filters=(2, 3), hidden=8),
        fgsm_images=12,
        jsma_images=4,
        jsma_steps=2,
        autoattack=(4, 2, 1, 2),
    )
    network = _train(half, Standard(), 5)
    labels = (*OTHERS, JACOBIAN)
    chapter = Jakubovitz2018Curves(
        name="MNIST",
        instead="tiny",
        fgsm_labels=labels,
        fgsm=fgsm(half, [network] * len(labels)),
        jsma_labels=labels,
        thetas=half.jsma,
        jsma=jsma(half, [network] * len(labels)),
        autoattack_labels=labels[:1],
        autoattacked=autoattack(half, [network]),
        claims=("L22a", "L22b"),
        ahead=False,
    )
    store = Store(tmp_path / "store")
    found = run(chapter, store, Options(device="cpu", threads=1)).json("chapter.json")
    predicted, y, epsilons = read_predictions(store.open(chapter.fgsm[0]).folder / "predictions.parquet")
    rows = [row for row in found["rows"] if (row["network"], row["attack"]) == (labels[0], "FGSM")]
    assert [row["size"] for row in rows] == list(epsilons)
    for row, guesses in zip(rows, predicted[0], strict=True):
        assert row["value"] == pytest.approx(accuracy(guesses, y).value)
    assert sum(row["attack"] == "JSMA" for row in found["rows"]) == len(labels) * len(half.jsma)
    assert {claim["verdict"] for claim in found["claims"]} == {"cannot be decided"}  # one network against itself
    (section,) = sections(Io(chapter, store), chapter, found)
    assert [block.caption[:8] for block in section.blocks[:2]] == ["Figure 1", "Figure 2"]
