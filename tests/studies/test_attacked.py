"""Studies that measure networks under attacks: numbers, readings, page; and every attack has a place in the gallery."""

import dataclasses

import pytest

from pellucid.attacks import FGSM, PGD, AutoAttack
from pellucid.data import Digits
from pellucid.models import SmallCNN
from pellucid.optimisers import Adam
from pellucid.spec import entries
from pellucid.store import Store
from pellucid.studies import STUDIES, find_study
from pellucid.studies.attacked_report import AttackedReport
from pellucid.studies.attacked_tables import AttackedTables, by_measurement
from pellucid.studies.gallery import specimen
from pellucid.tasks import Evaluate, Explain, Options, Train, run
from pellucid.tasks.graph import order

DATA = Digits(train=200, validation=20, test=20)
NET = Train(data=DATA, model=SmallCNN(filters=(4, 6, 8)), optimiser=Adam(lr=5e-3), steps=120, batch_size=20)
EPSILONS = (0.0, 0.05, 0.1)
STAGES = AutoAttack(eps=0.1, attacks=(FGSM(eps=0.1), PGD(eps=0.1, steps=3)))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("attacked"))
    measured = tuple(
        Evaluate(network=NET, data=DATA, attack=attack, epsilons=EPSILONS, images=images)
        for attack, images in ((FGSM(eps=0.1), 20), (STAGES, 12))
    )
    tables = AttackedTables(
        scale="test",
        networks=("net", "net"),
        attacks=("FGSM", "AutoAttack"),
        evaluations=measured,
        printed=(0.5, -1.0),
    )
    shown = tuple(Explain(network=NET, data=DATA, attack=task.attack, interpreters=(), images=1) for task in measured)
    report = AttackedReport(heading="Title", about="About.", tables=tables, pictures=shown, choices=("this", "reason"))
    return store, tables, run(report, store, Options(device="cpu", threads=1))


def test_numbers_are_those_of_the_stored_predictions(made):
    store, tables, _ = made
    found = store.open(tables).json("tables.json")
    groups = by_measurement(found["rows"])
    assert list(groups) == [("net", "FGSM"), ("net", "AutoAttack")]
    weak, strong = groups.values()
    assert [row["epsilon"] for row in weak] == list(EPSILONS)
    assert [row["images"] for row in (*weak, *strong)] == [20] * 3 + [12] * 3
    assert all(row["low"] <= row["value"] <= row["high"] for row in weak)
    assert weak[0]["linf"] == 0 < weak[2]["linf"] <= 0.1 + 1e-6
    assert weak[1]["forward"] > 0 == weak[2]["forward"]  # one gradient for every eps
    assert [row["printed"] for row in weak] == [None, None, 0.5]
    reading, printed = found["readings"]
    assert "FGSM against AutoAttack on the same 12 images: at eps 0.05" in reading
    assert printed.startswith("Beside the printed accuracy: FGSM ")
    assert printed.endswith(" (50.0%).")


def test_the_page_says_it_all(made):
    _, _, result = made
    page = (result.folder / "report.html").read_text()
    for words in ("Title", "About.", "Accuracy under attack", "What it looks like", "An image leaves once", "reason"):
        assert words in page
    assert set(result.meta["files"]) == {"report.html", "tables.md", "figures/curves.png", "figures/gallery.png"}


@pytest.mark.parametrize("name", list(STUDIES))
@pytest.mark.parametrize("scale", ["smoke", "small", "paper"])
def test_every_study_can_be_described_at_every_scale(name, scale):
    assert len(order(find_study(name, scale))) > 10


@pytest.mark.parametrize("natural", [False, True])
@pytest.mark.parametrize(("name", "cls"), [pytest.param(name, cls, id=name) for name, cls in entries("attack")])
def test_every_attack_has_a_place_in_the_gallery(name, cls, natural):
    shown = specimen(name, cls, natural)
    assert dataclasses.is_dataclass(shown)
    assert isinstance(shown, cls)
