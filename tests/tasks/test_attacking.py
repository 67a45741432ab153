"""Attacks that learn, attacks in stages, and what an evaluation writes about them."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
import torch

from pellucid.attacks import FGSM, PGD, AutoAttack, Taught, UniversalPerturbation
from pellucid.errors import InputError
from pellucid.models import load_classifier
from pellucid.rng import Stream, derive
from pellucid.tasks import Evaluate, run
from pellucid.tasks.attacking import summary

from .conftest import DATA, FAST, SMALL, Journal, Killed

LEARNER = UniversalPerturbation(eps=0.3, fit_images=40, passes=1, inner=PGD(eps=0.3, steps=2))


@pytest.fixture
def ready(filled, store):
    shutil.copytree(filled.root, store.root)
    return store


def test_a_learner_is_taught_on_training_images_and_changes_all_test_images_alike(ready):
    task = Evaluate(network=SMALL, data=DATA, attack=LEARNER, epsilons=(0.0, 0.1, 0.3), chunk=10)
    result = run(task, ready, FAST)
    network = load_classifier(ready.folder(SMALL))
    train, rows = DATA.load("train"), torch.arange(40)
    taught_by = Stream(derive(0, "fit"), rows)
    state = LEARNER.fit(network, train.images(rows), train.labels[rows], rng=taught_by)
    x = DATA.load("test").images(slice(None))
    expected = network(LEARNER.apply(x, state)).argmax(1)
    table = pq.read_table(result.folder / "predictions.parquet").to_pydict()
    clean = network(x).argmax(1)
    labels = DATA.load("test").labels
    for index, eps, prediction in zip(table["index"], table["epsilon"], table["prediction"]):
        if eps == 0.3 and bool(clean[index] == labels[index]) and prediction == int(labels[index]):
            assert prediction == int(expected[index])  # who still stands at the largest eps stands against v
    assert set(result.meta["data"]) == {"train", "test"}
    again = Evaluate(network=SMALL, data=DATA, attack=LEARNER, epsilons=(0.3,), stop_when_fooled=False)
    table = pq.read_table(run(again, ready, FAST).folder / "predictions.parquet").to_pydict()
    assert table["prediction"] == expected.tolist()


def test_what_was_not_learned_is_not_applied():
    taught = Taught(LEARNER, {0.3: {"perturbation": torch.zeros(1, 2, 2)}})
    assert taught.with_eps(0.3).eps == 0.3
    with pytest.raises(InputError, match=r"nothing was learned at eps 0\.2"):
        taught.with_eps(0.2)


def test_stages_survive_a_kill_and_their_notes_and_passes_are_written(ready, monkeypatch):
    stages = AutoAttack(eps=0.02, attacks=(FGSM(eps=0.02), PGD(eps=0.02, steps=5)))
    task = Evaluate(network=SMALL, data=DATA, attack=stages, epsilons=(0.002, 0.02), chunk=25)
    whole = run(task, ready, FAST)
    files = {name: (whole.folder / name).read_bytes() for name in whole.meta["files"]}
    cost = whole.meta["passes"]
    shutil.rmtree(whole.folder)

    calls = []
    original = PGD.__call__

    def dies(self, *args, **more):
        calls.append(len(args[1]))
        if len(calls) == 2:
            raise Killed
        return original(self, *args, **more)

    monkeypatch.setattr(PGD, "__call__", dies)
    with pytest.raises(Killed):
        run(task, ready, FAST)
    assert len(list(ready.scratch(task).glob("*--eps-1.stage-0*"))) == 1
    result = run(task, ready, FAST, Journal())
    assert len(calls) == 3  # the stages that had ended were not run again
    assert {name: (result.folder / name).read_bytes() for name in files} == files
    assert result.meta["passes"] == cost
    columns = pq.read_table(result.folder / "sizes.parquet").to_pydict()
    assert set(columns["fooled_by"]) <= {-2, -1, 0, 1}
    said = result.json("summary.json")
    spent, judged = said["passes"]["attack"], said["passes"]["evaluation"]
    assert sum(spent["forward"]) + sum(judged["forward"]) == cost["forward"]
    assert sum(spent["backward"]) == cost["backward"] > 0


def test_warnings_are_counted_by_image_and_explained():
    flags = {"zero_gradient": torch.tensor([[True, False, False], [True, True, False]])}
    notes = flags | {"fooled_by": torch.zeros(2, 3, dtype=torch.int64), "randomised": torch.zeros(2, 3).bool()}
    said = summary((0.1, 0.2), torch.tensor([[5, 4, 3], [2, 1, 3]]), notes)
    (warning,) = said["warnings"]
    assert (warning["check"], warning["images"], warning["of"]) == ("zero_gradient", 2, 3)
    assert "blind" in warning["meaning"]
    assert said["passes"] == {"attack": {"forward": [5, 2], "backward": [4, 1]}, "evaluation": {"forward": [3, 3]}}
    assert json.loads(json.dumps(said)) == said
