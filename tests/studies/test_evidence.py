"""The study of evidence: maps scored on the letter's mask, with the map that asks nobody beside them."""

import dataclasses

import pytest
import torch

from pellucid.data import Digits, Glyphs
from pellucid.errors import DataError
from pellucid.interpreters import CAM, GradCAM
from pellucid.metrics import average_precision, mass_on_object, pointing_game
from pellucid.models import SmallCNN, load_classifier
from pellucid.optimisers import Adam
from pellucid.spec import names
from pellucid.store import Store
from pellucid.studies import find_study
from pellucid.studies.evidence_report import EvidenceReport
from pellucid.studies.evidence_tables import NOBODY, EvidenceTables
from pellucid.tasks import Explain, Options, Train, run
from pellucid.tasks.locating import Evidence, contrast
from pellucid.tasks.parquet import read_columns

DATA = Glyphs(train=120, validation=20, test=30)
NET = Train(data=DATA, model=SmallCNN(filters=(4, 6, 8)), optimiser=Adam(lr=5e-3), steps=40, batch_size=20)
METHODS = (CAM(), GradCAM())
MEASURED = Evidence(network=NET, data=DATA, interpreters=METHODS, images=24, chunk=10)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("evidence"))
    tables = EvidenceTables(scale="test", networks=("net",), interpreters=("cam", "grad_cam"), measured=(MEASURED,))
    shown = (Explain(network=NET, data=DATA, interpreters=METHODS, images=2),)
    report = EvidenceReport(tables=tables, pictures=shown, choices=("this", "reason"))
    return store, tables, run(report, store, Options(device="cpu", threads=1))


def test_scores_are_those_of_the_maps(made):
    store, _, _ = made
    found = read_columns(store.open(MEASURED).folder / "evidence.parquet")
    network, split = load_classifier(store.open(NET).folder), DATA.load("test")
    x, y, mask = split.images(slice(24)), split.labels[:24], split.masks[:24]
    for number, maps in ((-1, contrast(x)), (0, CAM()(network, x, y)), (1, GradCAM()(network, x, y))):
        rows = found["interpreter"] == number
        order = found["index"][rows].argsort()
        assert torch.equal(found["index"][rows][order], torch.arange(24))
        for name, expected in (
            ("mass", mass_on_object(maps, mask)),
            ("pointing", pointing_game(maps, mask).double()),
            ("precision", average_precision(maps, mask)),
        ):
            torch.testing.assert_close(found[name][rows][order], expected, equal_nan=True, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found["chance"][rows][order], mask.double().mean((1, 2)))


def test_tables_name_the_best_map_and_the_one_that_asks_nobody(made):
    store, tables, result = made
    found = store.open(tables).json("tables.json")
    assert [row["interpreter"] for row in found["rows"]] == [NOBODY, "cam", "grad_cam"]
    assert found["rows"][0]["images"] == 24
    best = max(found["rows"][1:], key=lambda row: row["precision"]["value"])["interpreter"]
    assert found["readings"][0].startswith(f"net: {best} finds the letter best")
    page = (result.folder / "report.html").read_text()
    for words in (NOBODY, "mass on the letter", "Do maps point at the evidence?", "reason"):
        assert words in page


def test_data_without_masks_are_refused(tmp_path):
    digits = Digits(train=60, validation=20, test=20)
    network = dataclasses.replace(NET, data=digits, steps=2)
    task = Evidence(network=network, data=digits, interpreters=(CAM(),), images=4)
    with pytest.raises(DataError, match="does not say where its objects are"):
        run(task, Store(tmp_path), Options(device="cpu", threads=1))


def test_the_study_scores_every_registered_interpreter():
    measured = find_study("evidence", "small").tables.measured
    assert len(measured) == 3
    for task in measured:
        assert {type(method)._registered_as[1] for method in task.interpreters} == set(names("interpreter"))
