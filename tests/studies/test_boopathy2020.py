"""The Boopathy et al. study: what it trains and measures, what its claims say of made-up results, and its page."""

import json
from pathlib import Path

import pytest
import torch

from pellucid.attacks import PGD, AutoAttack
from pellucid.defences import TRADES, AdversarialTraining, IGNorm, IGSumNorm, InterpretabilityAware, Standard
from pellucid.protocols import Context
from pellucid.spec import digest
from pellucid.studies import find_study
from pellucid.studies.boopathy2020 import EPSILONS, METHODS, defences, networks
from pellucid.studies.boopathy2020 import SCALES as OWN
from pellucid.studies.boopathy2020_tables import accuracy_of, judge, printed
from pellucid.studies.page.boopathy import build_report
from pellucid.studies.page.files import markdown
from pellucid.tasks.parquet import write_predictions

from .made_up import MadeUpIo

N = 200


# ---------------------------------------------------------------------------------------------------- the plan


@pytest.mark.parametrize("scale", ["smoke", "small", "paper"])
def test_every_method_is_what_its_name_says(scale):
    found = defences(OWN[scale])
    assert tuple(found) == METHODS
    kinds = [Standard, AdversarialTraining, TRADES, IGNorm, IGSumNorm, *[InterpretabilityAware] * 5]
    assert [type(defence) for defence in found.values()] == kinds
    assert found["Adv"].share == 1
    assert found["TRADES"].weight == 1
    assert found["IG-Norm"].normalisation == found["IG-Sum-Norm"].normalisation == "code"
    assert (found["IG-Norm"].points, found["IG-Norm"].attack_points, found["IG-Sum-Norm"].weight) == (5, 5, 1)
    how = {name: (d.classes, d.inner, d.adversarial) for name, d in found.items() if name.startswith("Int")}
    assert how == {
        "Int-one-class": ("one", "discrepancy", False),
        "Int": ("all", "discrepancy", False),
        "Int-Adv": ("all", "discrepancy", True),
        "Int2": ("all", "cross_entropy", False),
        "Int2-Adv": ("all", "cross_entropy", True),
    }
    assert {(d.weight, d.form) for name, d in found.items() if name.startswith("Int")} == {(0.01, "code")}
    attacks = {d.attack for d in found.values() if hasattr(d, "attack")}
    ramps = {d.eps for d in found.values() if hasattr(d, "attack")}
    assert len(attacks) == len(ramps) == 1
    (ramp,) = ramps
    assert (ramp(Context(progress=0.0)), ramp(Context(progress=1.0, step=10**6))) == (0.0, 0.3)


def test_the_papers_scale_is_the_papers():
    trained, study = networks("paper"), find_study("boopathy2020", "paper").tables
    assert {(t.epochs, t.batch_size, t.optimiser.lr, t.images, t.precision) for t in trained.values()} == {
        (100, 50, 1e-4, None, "float32")
    }
    assert trained["Int"].defence.attack == PGD(eps=0.3, steps=40, step_size=0.01)
    ramp = trained["Int"].defence.eps
    assert [ramp(Context(step=step)) for step in (0, 2000, 6000, 10000)] == pytest.approx([0, 0, 0.15, 0.3])
    for task in study.attacked:
        assert task.attack == PGD(eps=0.4, steps=200, step_size=0.01, random_start=False)
        assert (task.epsilons, task.stop_when_fooled, task.data.images, task.data.seed) == (EPSILONS, False, 200, 99)
    assert {task.attack for task in study.autoattacked} == {AutoAttack(eps=eps) for eps in EPSILONS[1:]}
    assert len(study.autoattacked) == 60


def test_every_printed_number_is_there():
    known = printed()
    assert len(known) == 70
    assert {method for method, _ in known} == set(METHODS)
    assert known["Int2-Adv", 0.4] == 0.62
    assert known["Adv", 0.35] == 0.01
    assert known["Normal", 0.05] == 0.53


# -------------------------------------------------------------------------------------------------- the claims

PAPER = {
    "Normal": (0.0, 0.0, 0.0),
    "Adv": (0.89, 0.01, 0.0),
    "TRADES": (0.885, 0.0, 0.0),
    "IG-Norm": (0.005, 0.0, 0.0),
    "IG-Sum-Norm": (0.88, 0.115, 0.0),
    "Int-one-class": (0.125, 0.115, 0.08),
    "Int": (0.79, 0.18, 0.14),
    "Int-Adv": (0.855, 0.355, 0.175),
    "Int2": (0.845, 0.555, 0.385),
    "Int2-Adv": (0.84, 0.655, 0.62),
}
SPENT = dict.fromkeys(METHODS, (3200, 1.0)) | {"IG-Norm": (3200, 4.5), "IG-Sum-Norm": (3200, 4.0)}


def right(share):
    return torch.arange(N) < round(share * N)


def grid(table):
    return {method: dict(zip((0.3, 0.35, 0.4), map(right, shares))) for method, shares in table.items()}


def verdicts(table, auto=None, spent=SPENT):
    found = {} if auto is None else {method: {0.3: right(share)} for method, share in auto.items()}
    return {claim["name"]: claim["verdict"] for claim in judge(grid(table), found, spent)}


def test_the_papers_own_numbers_bear_out_its_claims():
    assert verdicts(PAPER) == dict.fromkeys(("L10a", "L10b", "L11", "L12"), "holds")


@pytest.mark.parametrize(
    ("changed", "claim", "verdict"),
    [
        ({"Normal": (0.95, 0.0, 0.0)}, "L10a", "does not hold"),
        ({"Int": (0.01, 0.18, 0.14)}, "L10a", "cannot be decided"),
        ({"Adv": (0.96, 0.8, 0.0)}, "L10b", "does not hold"),
        ({"Int": (0.79, 0.18, 0.0)}, "L10b", "cannot be decided"),  # exactly as often right as Adv
        ({"Int": (0.79, 0.02, 0.14)}, "L10b", "cannot be decided"),
        ({"IG-Norm": (0.95, 0.0, 0.0)}, "L11", "does not hold"),
        ({"Int-one-class": (0.885, 0.0, 0.0)}, "L11", "cannot be decided"),
    ],
)
def test_a_claim_falls_with_its_numbers(changed, claim, verdict):
    assert verdicts(PAPER | changed)[claim] == verdict


def test_what_is_too_cheap_does_not_hold():
    assert verdicts(PAPER, spent=SPENT | {"IG-Sum-Norm": (3200, 3.9)})["L12"] == "does not hold"


def test_who_trained_for_less_is_not_called_insufficient():
    short = SPENT | {"IG-Norm": (320, 4.5)}
    assert verdicts(PAPER, spent=short)["L11"] == "cannot be decided"
    ahead = PAPER | {"IG-Norm": (0.95, 0.0, 0.0)}
    assert verdicts(ahead, spent=short)["L11"] == "does not hold"  # ahead in spite of it


@pytest.mark.parametrize(
    ("shares", "verdict"),
    [((0.8, 0.8, 0.8), "holds"), ((0.8, 0.5, 0.8), "does not hold"), ((0.8, 0.9, 0.95), "holds")],
)
def test_autoattack_is_asked_whether_the_order_stays(shares, verdict):
    auto = dict.fromkeys(METHODS, 0.5) | dict(zip(("Adv", "Int", "Int2"), shares))
    assert verdicts(PAPER, auto)["under AutoAttack"] == verdict


def test_accuracy_of_counts():
    assert accuracy_of(right(0.25)).value == 0.25


# ----------------------------------------------------------------------------------------------------- the page


class Results(MadeUpIo):
    """Predictions and histories of the whole study, as the paper would have them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.study = folder, find_study("boopathy2020", "small")
        tables, known = self.study.tables, printed()
        self.scratch = folder / digest(tables)
        self.scratch.mkdir(parents=True)
        for method, network, evaluation in zip(tables.methods, tables.networks, tables.attacked):
            self._json(network, "history.json", [{"step": 100}])
            self._write(evaluation, [known[method, eps] for eps in EPSILONS])
        for place, evaluation in enumerate(tables.autoattacked):
            self._write(evaluation, [PAPER[tables.methods[place % len(METHODS)]][0] / 2])
        tables.run(self)

    def _write(self, task, shares):
        predictions = torch.stack([right(share).long() for share in shares])[None]
        write_predictions(self._file(task, "predictions.parquet"), predictions, torch.ones(N).long(), task.epsilons)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return Results(tmp_path_factory.mktemp("boopathy"))


def test_tables_hold_accuracies_costs_and_claims(results):
    found = json.loads((results.scratch / "tables.json").read_text())
    row = next(r for r in found["rows"] if (r["method"], r["attack"], r["epsilon"]) == ("Int2", "PGD", 0.4))
    assert (row["value"], row["printed"], row["images"]) == (0.385, 0.385, 200)
    assert row["low"] < 0.385 < row["high"]
    auto = [r for r in found["rows"] if r["attack"] == "AutoAttack"]
    assert {r["epsilon"] for r in auto} == {0.3}
    assert {r["printed"] for r in auto} == {None}
    assert [r["method"] for r in auto] == list(METHODS)
    assert found["costs"][0] == {
        "method": "Normal", "steps": 100, "images": 5000, "seconds": 93.0, "seconds_per_image": 93 / 5000,
        "forward": 0.2, "backward": 0.4,
    }  # fmt: skip
    assert {claim["name"] for claim in found["claims"]} == {"L10a", "L10b", "L11", "L12", "under AutoAttack"}


def test_the_page_shows_every_method_under_both_attacks_with_the_printed_values(results):
    report = build_report(results, results.study)
    text = markdown(report)
    for method in METHODS:
        assert text.count(f"| {method} |") >= 3  # PGD, AutoAttack, cost
    assert "exchanged" in text
    assert "bfloat16" in text
    assert len(report.settings) == 30
    assert [block.caption for block in report.sections[0].blocks][1:] == [
        "Accuracy under 200-step PGD, 200 images",
        "Accuracy under AutoAttack, 200 images",
    ]
