"""The study of maps under attack: numbers from stored maps, what is kept beside each, and the page."""

import pytest

from pellucid.attacks import AAI
from pellucid.data import Digits
from pellucid.interpreters import CAM, Gradient
from pellucid.metrics import kendall_tau
from pellucid.models import SmallCNN
from pellucid.optimisers import Adam
from pellucid.store import Store
from pellucid.studies import find_study
from pellucid.studies.stability import printed
from pellucid.studies.stability_report import StabilityReport
from pellucid.studies.stability_tables import StabilityTables
from pellucid.tasks import Explain, Options, Train, run

DATA = Digits(train=200, validation=20, test=20)
NET = Train(data=DATA, model=SmallCNN(filters=(4, 6, 8)), optimiser=Adam(lr=5e-3), steps=60, batch_size=20)
EPSILONS = (0.05, 0.3)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("stability"))
    explained = tuple(
        Explain(
            network=NET,
            data=DATA,
            attack=AAI(interpreter=CAM(), eps=eps, steps=8, step_size=0.05),
            interpreters=(CAM(),),
            images=12,
        )
        for eps in EPSILONS
    )
    tables = StabilityTables(
        scale="test", networks=("net, Small",) * 2, epsilons=EPSILONS, explained=explained, printed=(0.9, -2.0)
    )
    gradients = (Explain(network=NET, data=DATA, interpreters=(Gradient(score="certainty"),), images=3),)
    report = StabilityReport(tables=tables, labels=("net, Small",), gradients=gradients, choices=("this", "reason"))
    return store, tables, run(report, store, Options(device="cpu", threads=1))


def test_tau_is_that_of_the_stored_maps_over_images_whose_prediction_stayed(made):
    store, tables, _ = made
    rows = store.open(tables).json("tables.json")["rows"]
    for row, task in zip(rows, tables.explained):
        maps = store.open(task).tensors("maps.safetensors")
        stayed = maps["probabilities_clean"].argmax(1) == maps["probabilities_adversarial"].argmax(1)
        tau = kendall_tau(maps["maps_0_clean"][:, 0], maps["maps_0_adversarial"][:, 0])
        assert row["kept"] == int(stayed.sum())
        assert row["images"] == 12
        assert row["all_images"]["value"] == pytest.approx(float(tau.mean()))
        if row["kept"]:
            assert row["value"] == pytest.approx(float(tau[stayed].mean()))
    assert rows[0]["value"] > rows[1]["all_images"]["value"], "a larger eps moves maps further"
    assert [row["printed"] for row in rows] == [0.9, None]


def test_the_page_shows_the_number_kept_beside_every_tau(made):
    store, tables, result = made
    page = (result.folder / "report.html").read_text()
    for words in ("net, Small", "kept", "paper 0.9", "reason", "Input gradients"):
        assert words in page
    markdown = (result.folder / "tables.md").read_text()
    for row in store.open(tables).json("tables.json")["rows"]:
        assert f"| {row['kept']} |" in markdown
    assert {"figures/gallery.png", "figures/curves.png"} <= set(result.meta["files"])


def test_the_small_study_attacks_maps_as_the_paper_does():
    study = find_study("stability", "small")
    first = study.tables.explained[0].attack
    assert (first.steps, first.step_size, first.top_k, first.random_start) == (200, 0.01, 8, True)
    assert all(task.images == 200 for task in study.tables.explained)
    assert printed()["normal, Small", 0.1] == 0.797
    assert any(value == 0.797 for value in study.tables.printed)
