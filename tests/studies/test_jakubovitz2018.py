"""The study of Jacobian regularisation: the plan, tables from made-up results, printed numbers, the page."""

import json
from dataclasses import replace

import pytest
import torch

from pellucid.attacks import DeepFool
from pellucid.defences import AdversarialTraining, JacobianRegularization, Sum
from pellucid.models import TutorialCNN
from pellucid.report import to_markdown
from pellucid.spec import digest
from pellucid.studies import find_study
from pellucid.studies.claims import paired_ratio
from pellucid.studies.jakubovitz2018_claims import ADVERSARIAL, NONE, Measured, after, combined, judge
from pellucid.studies.jakubovitz2018_networks import (
    CONTROL,
    HIDDEN,
    POOLED,
    fraction_networks,
    lambda_networks,
    layer_networks,
    networks,
    reseeded,
)
from pellucid.studies.jakubovitz2018_networks import PERTURBED as AT_PERTURBED
from pellucid.studies.jakubovitz2018_tables import orderings, printed, printed_tables
from pellucid.studies.page.files import markdown
from pellucid.studies.page.jakubovitz import build_report
from pellucid.tasks.boundaries import Boundaries
from pellucid.tasks.parquet import write_columns, write_predictions

from .made_up import MadeUpIo

LABELS = (
    NONE,
    CONTROL,
    ADVERSARIAL,
    *(
        f"{penalty}{kind}"
        for penalty in ("input gradient", "cross-Lipschitz", "Jacobian")
        for kind in (", regular", ", post-processing", f" + {ADVERSARIAL}")
    ),
)
RHO = dict(zip(LABELS, (0.2067, 0.207, 0.2238, 0.2343, 0.2403, 0.2349, 0.2903, 0.2999, 0.3238, 0.3289, 0.3424, 0.3629)))
RIGHT = dict(zip(LABELS, (99, 99, 99, 99.25, 99.5, 99.2, 98.5, 98.75, 98.5, 98.25, 98.5, 98.0)))
CLEAN = dict(zip(LABELS, (10.0, 10.0, 10.1, 5, 5, 5, 4, 4, 4, 2.3, 2.2, 2.1)))
PERTURBED = dict(zip(LABELS, (13.4, 13.4, 10.2, 6, 6, 6, 5, 5, 5, 4.2, 4.1, 4.0)))
IMAGES, MEASURED = 4000, 80


def spread(mean, rows=MEASURED):
    """Values around a mean, the same for all networks but for their scale."""
    return mean * torch.linspace(0.9, 1.1, rows, dtype=torch.float64)


def answers(percent):
    return torch.arange(IMAGES) < round(percent * IMAGES / 100)


def as_printed(**changed):
    numbers = {
        label: Measured(answers(RIGHT[label]), spread(RHO[label]), spread(CLEAN[label]), spread(PERTURBED[label]))
        for label in LABELS
    }
    return numbers | changed


def verdicts(numbers):
    return {claim["name"]: claim["verdict"] for claim in judge(numbers)}


class Results(MadeUpIo):
    """Per-example results of the whole study, as the paper would have them."""

    def __init__(self, folder, scale, numbers=None):
        self.folder, self.study = folder, find_study("jakubovitz2018", scale)
        tables = self.study.tables
        self.scratch = folder / digest(tables)
        self.scratch.mkdir(parents=True)
        for label, evaluation, boundary in zip(tables.labels, tables.evaluations, tables.boundaries):
            right = answers(RIGHT[label]).long()[None, None]
            write_predictions(self._file(evaluation, "predictions.parquet"), right, torch.ones(IMAGES).long(), (0.0,))
            share = spread(RHO[label], MEASURED + 1)
            share[-1] = torch.nan
            columns = {"share": share, "before": torch.zeros(MEASURED + 1), "after": torch.ones(MEASURED + 1)}
            columns["after"][:3] = 0
            norms = {"jacobian_clean": CLEAN, "jacobian_perturbed": PERTURBED}
            columns |= {name: spread(means[label], MEASURED + 1) for name, means in norms.items()}
            write_columns(self._file(boundary, "boundaries.parquet"), columns)
        if numbers is None:
            tables.run(self)
        else:
            self._json(tables, "tables.json", numbers)
        self.numbers = json.loads((self.scratch / "tables.json").read_text())


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return Results(tmp_path_factory.mktemp("jakubovitz"), "small")


# ---------------------------------------------------------------------------------------------------- the plan


@pytest.mark.parametrize("scale", ["smoke", "small", "paper"])
def test_post_processing_starts_from_the_undefended_network_and_all_see_as_many_images(scale):
    trained = networks(scale)
    assert tuple(trained) == LABELS
    whole = trained[NONE].steps + trained[CONTROL].steps
    for label, task in trained.items():
        later = "post-processing" in label or "+" in label or label == CONTROL
        assert (task.init == trained[NONE]) if later else (task.init is None)
        assert task.steps + (task.init.steps if task.init else 0) == (trained[NONE].steps if label == NONE else whole)
        assert (task.batch_size, task.data, task.images) == (
            trained[NONE].batch_size,
            trained[NONE].data,
            trained[NONE].images,
        )


def test_combinations_are_the_penalty_and_images_of_fgsm_in_the_batch():
    trained = networks("small")
    for penalty in ("input gradient", "cross-Lipschitz", "Jacobian"):
        both = trained[f"{penalty} + {ADVERSARIAL}"].defence
        assert isinstance(both, Sum)
        assert both.defences == (trained[ADVERSARIAL].defence, trained[f"{penalty}, post-processing"].defence)
    first = trained[ADVERSARIAL].defence
    assert isinstance(first, AdversarialTraining)
    assert (first.batches, first.share, first.attack.labels) == ("mixed", 0.5, "true")


def test_the_papers_scale_is_the_papers():
    trained = networks("paper")
    defence = trained["Jacobian, post-processing"].defence
    assert (trained[NONE].steps, trained["Jacobian, post-processing"].steps) == (20001, 4500)
    assert (trained[NONE].batch_size, trained[NONE].optimiser.lr, trained[NONE].images) == (500, 1e-4, None)
    assert trained[NONE].model == TutorialCNN()
    assert (defence.weight, defence.normalisation, defence.examples, defence.projections) == (0.1, "mean", 1.0, None)
    measured = find_study("jakubovitz2018", "paper").tables.boundaries
    assert all(isinstance(task, Boundaries) and task.attack == DeepFool() and task.images == 10000 for task in measured)


def test_the_small_scale_fits_into_three_quarters_of_an_hour_on_one_core():
    """Milliseconds an image of a core, as they were measured when the scale was chosen."""
    cost = {"standard": 1.3, "adversarial_training": 1.8, "double_backprop": 3.1}
    cost |= {"jacobian_regularization": 2.6, "cross_lipschitz": 2.6}

    def of(defence):
        name = type(defence)._registered_as[1]
        return sum(of(part) for part in defence.defences) if name == "sum" else cost[name]

    seconds = sum(t.steps * t.batch_size * of(t.defence) / 1000 for t in networks("small").values())
    tables = find_study("jakubovitz2018", "small").tables
    seconds += sum(5 + 0.066 * task.images for task in tables.boundaries)
    assert seconds < 45 * 60


@pytest.mark.parametrize("made", [layer_networks, fraction_networks, lambda_networks])
def test_sweeps_change_one_thing_of_post_processing(made):
    swept, trained = made("small"), networks("small")
    assert len({digest(task) for task in swept.values()}) == len(swept) >= 3
    assert all(task.init == trained[NONE] for task in swept.values())
    assert any(task == trained[label] for task in swept.values() for label in (after("Jacobian"), combined("Jacobian")))


def test_other_seeds_change_the_seed_of_every_phase():
    for name, (first, *others) in reseeded("small").items():
        assert first == networks("small")[name]
        for task in others:
            assert task.seed != first.seed
            assert task.init is None or task.init.seed == task.seed
            assert replace(task, seed=first.seed, init=first.init) == first


def test_the_layers_of_the_sweep_are_the_networks():
    network = TutorialCNN(filters=(2, 3), hidden=12).build(1, (28, 28), 10)
    x, y = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    swept = layer_networks("small")
    layers = {name: task.defence.layer for name, task in swept.items()}
    assert layers == {"logits": "logits", HIDDEN: "dense.2", POOLED: "convolutions.5", AT_PERTURBED: "logits"}
    for task in swept.values():
        assert isinstance(task.defence, JacobianRegularization)
        assert float(replace(task.defence, examples=1.0)(network, x, y)["jacobian_penalty"].detach()) > 0
    assert network.get_submodule("dense.2")(torch.zeros(1, 12)).shape == (1, 12)
    assert isinstance(network.get_submodule("dense.3"), torch.nn.Dropout)  # the layer before the last is read before it


# ------------------------------------------------------------------------------------------------- the numbers


def test_every_number_of_the_paper_is_there():
    tables = printed_tables()
    accuracies = [v["accuracy"] for t in ("Table 2", "Table 3", "Table 4") for v in tables[t].values() if v["accuracy"]]
    assert accuracies == [
        0.9908, 0.9925, 0.9944, 0.9891, 0.9835, 0.9844, 0.98, 0.8888, 0.8849, 0.8891, 0.8849, 0.8916, 0.8849,
    ]  # fmt: skip
    assert [v["rho_adv"] for t in ("Table 2", "Table 3", "Table 4") for v in tables[t].values()] == [
        0.2067, 0.2343, 0.2403, 0.2903, 0.2999, 0.3289, 0.3424,
        0.2067, 0.2238, 0.2343, 0.2349, 0.2903, 0.3238, 0.3424, 0.3629,
        0.0121, 0.0123, 0.0143, 0.0217, 0.0208, 0.0404, 0.0342, 0.0603,
    ]  # fmt: skip
    assert [tuple(values.values()) for values in tables["Table 1"].values()] == [
        (0.14, 0.1877), (0.141, 0.143), (0.0315, 0.055), (0.0301, 0.0545),
    ]  # fmt: skip
    assert set(printed()) == set(LABELS) - {CONTROL}
    for table in ("Table 1", "Table 2", "Table 3"):  # what two tables print of one network agrees
        for label, values in tables[table].items():
            assert all(printed()[label][k] == v for k, v in values.items() if v is not None)


def test_tables_are_those_of_the_stored_results(results):
    rows = {row["network"]: row for row in results.numbers["rows"]}
    assert tuple(rows) == LABELS
    none, ours = rows[NONE], rows["Jacobian, post-processing"]
    assert none["accuracy"]["value"] == pytest.approx(0.99)
    assert none["accuracy"]["low"] < 0.99 < none["accuracy"]["high"]
    assert (none["images"], none["measured"], none["black"], none["unreached"]) == (IMAGES, MEASURED + 1, 1, 3)
    every = torch.linspace(0.9, 1.1, MEASURED + 1, dtype=torch.float64)[:-1].mean()  # the black image has no share
    assert ours["rho_adv"]["value"] == pytest.approx(0.3424 * float(every))
    assert ours["perturbed_over_clean"]["value"] == pytest.approx(4.1 / 2.2)
    assert ours["jacobian_clean_over_undefended"]["value"] == pytest.approx(0.22)
    assert ours["printed"]["jacobian_clean_over_undefended"] == pytest.approx(0.0315 / 0.14)
    assert ours["printed"]["perturbed_over_clean"] == pytest.approx(0.055 / 0.0315)
    assert rows[CONTROL]["printed"] == {}


def test_a_ratio_of_means_is_not_the_mean_of_ratios():
    a, b = torch.tensor([1.0, 8.0, 3.0]), torch.tensor([1.0, 2.0, 3.0])
    found = paired_ratio(a, b)
    assert found.value == pytest.approx(2.0)
    assert found.low < 2 < found.high
    generator = torch.Generator().manual_seed(0)
    b = 1 + torch.rand(4000, generator=generator)
    a = 0.7 * b + 0.1 * torch.randn(4000, generator=generator)  # delta method: sd .1 / (1.5 sqrt(4000)) = .00105
    found = paired_ratio(a, b)
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.1 / 1.5 / 4000**0.5, rel=0.1)


# -------------------------------------------------------------------------------------- orderings and the claims


def test_all_claims_hold_where_results_are_as_printed(results):
    assert set(verdicts(as_printed()).values()) == {"holds"}
    assert [claim["name"] for claim in results.numbers["claims"]] == ["L20a", "L20b", "L20c", "L21a", "L21b", "L23"]
    assert {claim["verdict"] for claim in results.numbers["claims"]} == {"holds"}


def changed(label, **values):
    old = as_printed()[label]
    return as_printed(**{label: Measured(**(vars(old) | values))})


@pytest.mark.parametrize(
    ("label", "values", "name"),
    [
        ("cross-Lipschitz, post-processing", {"share": spread(0.35)}, "L20a"),
        ("cross-Lipschitz + adversarial training", {"share": spread(0.4)}, "L20b"),
        ("Jacobian, post-processing", {"share": spread(0.4)}, "L20b"),
        ("Jacobian + adversarial training", {"right": answers(96.0)}, "L20c"),
        ("input gradient, regular", {"share": spread(0.25)}, "L21a"),
        ("Jacobian, regular", {"right": answers(99.4)}, "L21b"),
        (ADVERSARIAL, {"jacobian_perturbed": spread(14.0)}, "L23"),
        (ADVERSARIAL, {"jacobian_clean": spread(8.0)}, "L23"),
    ],
)
def test_a_claim_falls_with_the_numbers_it_is_about(label, values, name):
    found = verdicts(changed(label, **values))
    assert found[name] == "does not hold"
    assert "holds" in found.values()


def test_what_images_disagree_about_cannot_be_decided():
    noise = 0.2 * torch.randn(MEASURED, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = verdicts(changed("cross-Lipschitz, post-processing", share=spread(0.34) + noise - noise.mean()))
    assert found["L20a"] == "cannot be decided"


def test_no_claim_is_judged_where_networks_are_missing():
    numbers = as_printed()
    del numbers["Jacobian, regular"]
    assert judge(numbers) == []


def test_orderings_are_those_that_the_paper_prints(results):
    found = results.numbers["orderings"]
    count = {name: sum(pair["measure"] == name for pair in found) for name in ("accuracy", "rho_adv", "jacobian_clean")}
    assert count == {"accuracy": 7 * 6 / 2, "rho_adv": 11 * 10 / 2, "jacobian_clean": 4 * 3 / 2}
    assert all(pair["printed"] > 0 for pair in found)
    assert {pair["verdict"] for pair in found} == {"holds"}
    moved = changed("Jacobian, post-processing", share=spread(0.1))
    turned = orderings({label: replace(m, right=torch.ones(2)) for label, m in moved.items()})
    lost = {(p["above"], p["below"]) for p in turned if p["verdict"] == "does not hold"}
    assert len(lost) == 9  # it was ahead of all but one of the other ten
    assert {above for above, _ in lost} == {"Jacobian, post-processing"}


# ------------------------------------------------------------------------------------------------------ the page


def test_the_page_has_printed_values_beside_ours_and_what_is_lost(results):
    report = build_report(results, results.study)
    text = markdown(report)
    tables = {table.caption.split(":")[0]: table for section in report.sections for table in section.blocks[:1]}
    lines = to_markdown(tables["Tables 2 and 3"]).splitlines()
    row = next(line for line in lines if line.startswith("| Jacobian + adversarial training"))
    assert "98.0\u202f% [97.5–98.4] (paper: 98.0)" in row
    assert "(paper: 0.363)" in row
    assert "accuracy of the regular cross-Lipschitz row is lost" in text
    assert "(paper: 0.0603)" in text
    assert "L20a: holds" in text
    assert "of the 55 orderings of two networks that the paper prints, 55 hold, 0 are reversed" in text
    assert "1 images are black all over" in text
    assert "yardstick" not in text
    for title, reason in zip(results.study.choices[::2], results.study.choices[1::2]):
        assert f"| {title} |" in text
        assert reason.split(",")[0].split(":")[0].replace("|", "\\|") in text


def test_printed_values_are_no_yardstick_for_other_data(tmp_path, results):
    io = Results(tmp_path, "smoke", results.numbers)
    assert "no yardstick" in build_report(io, io.study).verdict[0]
