"""The study as a description, and the paper's printed numbers."""

import json
import os
from pathlib import Path

import pytest

from pellucid.defences import AdversarialTraining, DoubleBackprop, Standard
from pellucid.errors import SpecError
from pellucid.spec import digest, from_dict, name_of, to_dict
from pellucid.studies import SCALES, find_study
from pellucid.studies.ross2018_tables import PRINTED
from pellucid.tasks.graph import order


@pytest.mark.parametrize("scale", SCALES)
def test_the_study_survives_json(scale):
    study = find_study("ross2018", scale)
    again = from_dict(json.loads(json.dumps(to_dict(study))))
    assert again == study
    assert digest(again) == digest(study)


@pytest.mark.parametrize(("scale", "lambdas"), [("smoke", 1), ("small", 3), ("paper", 13)])
def test_networks_and_tables_belong_together(scale, lambdas):
    tables = find_study("ross2018", scale).tables
    assert len(tables.labels) == len(tables.networks) == len(tables.transfers) == len(tables.norms) == 2 + lambdas
    assert [type(task.defence) for task in tables.networks[:3]] == [Standard, AdversarialTraining, DoubleBackprop]
    assert tuple(task.defence.weight for task in tables.networks[2:]) == tables.lambdas
    assert list(tables.lambdas) == sorted(tables.lambdas)
    for label, transfer in zip(tables.labels, tables.transfers):
        assert transfer.network == tables.networks[tables.labels.index(label)]
        assert set(transfer.judges) == set(tables.networks) - {transfer.network}
        assert transfer.part == "test"
    assert tables.selection.part == "validation"  # lambda is never chosen on test images
    assert tables.selection.network == tables.networks[0]
    assert tables.selection.judges == tables.networks[2:]
    assert len(tables.explained) == len(tables.explained_labels)


def test_the_papers_own_settings():
    tables = find_study("ross2018", "paper").tables
    for task in tables.networks:
        assert (name_of(task.data), name_of(task.model)) == ("mnist", "ross_cnn")
        assert (task.steps, task.batch_size) == (15000, 256)
        assert (task.optimiser.lr, task.optimiser.eps, task.optimiser.eps_hat) == (2e-4, 1e-4, True)
    attack = tables.networks[1].defence.attack
    assert (name_of(attack), attack.eps, attack.labels) == ("fgsm", 0.3, "predicted")
    assert tables.lambdas[0] == pytest.approx(100 / 512)
    assert tables.lambdas[-1] == pytest.approx(1e5 / 512)
    assert any(weight == pytest.approx(56234.13 / 512) for weight in tables.lambdas)
    assert tables.transfers[0].epsilons == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


def test_a_task_that_two_sections_need_is_one_task():
    study = find_study("ross2018", "smoke")
    tasks = order(study)
    assert len({digest(task) for task in tasks}) == len(tasks) == 21
    assert tasks[-1] == study


@pytest.mark.parametrize(
    ("name", "scale", "said"), [("x", "smoke", "known: ross2018"), ("ross2018", "x", "known: smoke")]
)
def test_unknown_ones_are_refused(name, scale, said):
    with pytest.raises(SpecError, match=said):
        find_study(name, scale)


def test_the_printed_numbers_are_whole_images_of_256():
    for judges in PRINTED["transfer"].values():
        for row in judges.values():
            assert list(map(float, row)) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
            assert all((value * PRINTED["images"]).is_integer() for value in row.values())


OURS = {"normal": "normal", "advtrain": "adv. trained", "doubleback": "grad. reg."}


def test_the_printed_numbers_are_those_of_the_reference_tables():
    place = os.environ.get("PELLUCID_SPEC")
    if not place or not Path(place, "reference_tables.json").is_file():
        pytest.skip("PELLUCID_SPEC names no folder with reference_tables.json")
    notebooks = json.loads(Path(place, "reference_tables.json").read_text())["authors_notebooks"]
    compared = 0
    for grid in notebooks["transfer_grids"]:
        maker, judge = (
            next((ours for key, ours in OURS.items() if grid[field].startswith(key)), None)
            for field in ("examples_made_for", "evaluated_model")
        )
        if grid["dataset"] == "MNIST" and grid["attack"] == "FGSM" and maker and judge:
            assert PRINTED["transfer"][maker][judge] == grid["accuracy_by_epsilon"]
            assert PRINTED["images"] == grid["n_test"]
            compared += 1
    assert compared == 9
    clean = notebooks["clean_accuracy"]["MNIST"]
    found = {ours: next(v for k, v in clean.items() if k.startswith(key)) for key, ours in OURS.items()}
    assert PRINTED["clean"] == found
    assert PRINTED["clean_images"] == clean["n_test"]
