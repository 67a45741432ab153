"""Figures 1 to 3 of Ross & Doshi-Velez: the rules on both sides, the printed curves, and who is judged by whom."""

import pytest
import torch

from pellucid.studies import find_study
from pellucid.studies.ross2018_networks import ADVERSARIAL, BOTH, DISTILLED, LABEL_PENALTY, NORMAL
from pellucid.studies.ross2018_transfers import highest, no_better, printed, vanishing


def grid(**right):
    """Eight sizes, 200 images, of which every judge is right on so many, whoever made them."""
    judges = {name: (torch.arange(200) < count).expand(8, -1) for name, count in right.items()}
    return dict.fromkeys(right, judges)


def norms(true, following):
    return {"true": torch.full((50,), true).double(), "next": torch.full((50,), following).double()}


@pytest.mark.parametrize(
    ("data", "true", "following", "verdict"),
    [
        ("MNIST", 0.0, 1e3, "holds"),
        ("MNIST", 1e-3, 1e3, "does not hold"),
        ("MNIST", 0.0, 1e-3, "does not hold"),
        ("SVHN", 1e-3, 1e3, "holds"),
        ("SVHN", 0.0, 1e3, "does not hold"),
    ],
)
def test_gradients_of_distilled_networks(data, true, following, verdict):
    assert vanishing(data, norms(true, following), norms(1e-2, 1.0))["verdict"] == verdict


@pytest.mark.parametrize(("distilled", "verdict"), [(60, "holds"), (140, "does not hold"), (104, "cannot be decided")])
def test_distillation_is_no_better_than_nothing(distilled, verdict):
    found = no_better("MNIST", grid(**{NORMAL: 100, DISTILLED: distilled, ADVERSARIAL: 0, LABEL_PENALTY: 0}))
    assert found["verdict"] == verdict


@pytest.mark.parametrize(("both", "verdict"), [(150, "holds"), (50, "does not hold"), (100, "cannot be decided")])
def test_both_defences_are_the_highest(both, verdict):
    assert highest("SVHN", grid(**{NORMAL: 20, ADVERSARIAL: 100, BOTH: both}))["verdict"] == verdict


def test_the_notebooks_curves_are_there():
    assert printed("MNIST")["FGSM", "normal", "normal"][:3] == [0.99609375, 0.7265625, 0.27734375]
    assert {len(printed(data)) for data in ("MNIST", "SVHN", "notMNIST")} == {50}


@pytest.mark.parametrize("scale", ["small", "paper"])
def test_three_data_sets_and_both_defences_on_svhn(scale):
    chapters = find_study("ross2018", scale).chapters
    assert [chapter.name for chapter in chapters] == ["MNIST", "SVHN", "notMNIST"]
    assert [BOTH in chapter.labels for chapter in chapters] == [False, True, False]
    for chapter in chapters:
        for maker, task in zip(chapter.labels, chapter.fgsm, strict=True):
            assert len(task.judges) == len(chapter.labels) - 1
            assert task.network not in task.judges, maker
