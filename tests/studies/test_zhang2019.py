"""The study of shape and texture: the plan, printed numbers, claims on made-up results, the page."""

import json
from dataclasses import replace

import pytest
import torch

from pellucid.attacks import FGSM, PGD
from pellucid.data import CropAndFlip
from pellucid.defences import AdversarialTraining
from pellucid.metrics import bootstrap_mean
from pellucid.report import to_markdown
from pellucid.spec import digest
from pellucid.store import write_tensors
from pellucid.studies import find_study
from pellucid.studies.page.files import markdown
from pellucid.studies.page.zhang import build_report
from pellucid.studies.zhang2019 import SCALES, networks, transforms
from pellucid.studies.zhang2019_claims import ADVERSARIAL, NORMAL, UNDERFIT, Measured, judge, linearised
from pellucid.studies.zhang2019_tables import printed, printed_tables
from pellucid.tasks.parquet import write_columns, write_predictions

from .made_up import MadeUpIo

PAPER = (
    "Normal", "Underfit", "PGD-linf: 8", "PGD-linf: 4", "PGD-linf: 2", "PGD-linf: 1", "PGD-l2: 12", "PGD-l2: 8",
    "PGD-l2: 4", "FGSM: 8", "FGSM: 4",
)  # fmt: skip
N = 2000
LEVELS = tuple(transforms(SCALES["small"]))
MAP_LEVELS = ("untouched", "saturation 8")


# ---------------------------------------------------------------------------------------------------- the plan


def test_the_papers_scale_has_all_eleven_networks():
    trained = {method: task for (_, method), task in networks("paper").items()}
    assert tuple(trained)[: len(PAPER)] == PAPER
    assert set(trained) == {*PAPER, "Int", "DoubleBackprop"}
    attacks = {name: task.defence.attack for name, task in trained.items() if ": " in name}
    assert all(isinstance(trained[name].defence, AdversarialTraining) for name in attacks)
    assert {trained[name].defence.batches for name in attacks} == {"alternate"}
    of_255 = {
        name: (round(255 * a.eps, 6), round(255 * a.step_size, 6)) for name, a in attacks.items() if "linf" in name
    }
    assert of_255 == {
        "PGD-linf: 8": (8, 4), "PGD-linf: 4": (4, 2), "PGD-linf: 2": (2, 1), "PGD-linf: 1": (1, 1),
    }  # fmt: skip
    l2 = {name: (a.eps, round(255 * a.step_size, 6)) for name, a in attacks.items() if "l2" in name}
    assert l2 == {"PGD-l2: 12": (1.2, 6), "PGD-l2: 8": (0.8, 4), "PGD-l2: 4": (0.4, 2)}
    assert {a.steps for a in attacks.values() if isinstance(a, PGD)} == {20}
    assert not any(a.random_start for a in attacks.values() if isinstance(a, PGD))
    assert {a.direction for name, a in attacks.items() if "l2" in name} == {"sign"}
    assert attacks["FGSM: 8"] == FGSM(eps=8 / 255)
    assert {task.augmentation for task in trained.values()} == {CropAndFlip()}


@pytest.mark.parametrize("scale", ["smoke", "small", "paper"])
def test_underfit_is_the_undefended_training_until_it_is_as_accurate(scale):
    found = networks(scale)
    for architecture in {architecture for architecture, _ in found}:
        normal, underfit = found[architecture, NORMAL], found[architecture, UNDERFIT]
        assert replace(underfit, stop=None, log_every=normal.log_every) == normal
        assert underfit.stop.like == found[architecture, ADVERSARIAL]


def test_the_small_scale_fits_into_a_hundred_minutes_of_two_cores():
    """Milliseconds an image of one core, as they were measured when the scale was chosen."""
    cost = {
        "Small": {NORMAL: 0.42, UNDERFIT: 0.42, ADVERSARIAL: 1.3, "Int": 2.6, "DoubleBackprop": 0.92},
        "ResNet-8": {NORMAL: 0.75, UNDERFIT: 0.75, ADVERSARIAL: 2.1, "Int": 4.5, "DoubleBackprop": 2.7},
    }
    trained = networks("small")
    seconds = sum(task.epochs * 45 * cost[architecture][method] for (architecture, method), task in trained.items())
    assert max(task.epochs for task in trained.values()) <= 15
    evaluation = 150 * len(trained)  # transformed images, PGD, maps
    assert seconds + evaluation < 2 * 100 * 60


def test_the_measuring_attack_and_the_levels_are_the_papers():
    tables = find_study("zhang2019", "small").tables
    attack = tables.attacked[0].attack
    assert (round(255 * attack.eps, 6), round(255 * attack.step_size, 6), attack.steps) == (8, 2, 40)
    printed_levels = {
        level for row in printed_tables()["Table 6, CIFAR-10, saturated"]["rows"].values() for level in row
    }
    assert printed_levels <= set(tables.levels)
    assert {"shuffle 2", "shuffle 4", "shuffle 8"} <= set(tables.levels)
    maps = tables.mapped[0].interpreter
    assert (maps.samples, maps.noise_level) == (100, 0.1)


def test_every_printed_table_is_there():
    found = printed_tables()
    assert [sum(len(row) for row in table["rows"].values()) for table in found.values()] == [
        22, 22, 22, 11, 11, 11, 11, 9, 88, 88, 88, 33, 33,
    ]  # fmt: skip
    assert printed("Normal", "clean") == 0.9452
    assert printed("PGD-linf: 8", "robustness") == 0.4481
    assert printed("PGD-linf: 8", "saturation 1024") == 0.6464
    assert printed("Int", "clean") is printed("Normal", "shuffle 2") is None


# -------------------------------------------------------------------------------------------------- the claims


def right(share):
    """Images that are classified right, the first ones, so that a smaller set lies in a larger one."""
    return torch.arange(N) < round(share * N)


def spread(mean):
    return mean + torch.linspace(-0.05, 0.05, 100, dtype=torch.float64)


def network(clean, robust, on_correct, sparsity=0.5, contours=0.1):
    """Made up from clean accuracy, robustness and accuracy on correct at every level or those that are named."""
    shares = {level: next((v for k, v in on_correct.items() if level.startswith(k)), 0.5) for level in LEVELS}
    return Measured(
        right={"untouched": right(clean)} | {level: right(clean * share) for level, share in shares.items()},
        robust=right(robust),
        sparsity=dict.fromkeys(MAP_LEVELS, spread(sparsity)),
        contours=dict.fromkeys(MAP_LEVELS, spread(contours)),
    )


NETWORKS = {
    NORMAL: network(0.9, 0.0, {"saturation 8": 0.7, "saturation 16": 0.48, "shuffle 2": 0.8, "shuffle 4": 0.6,
                               "low": 0.2, "high": 0.4}),
    UNDERFIT: network(0.8, 0.0, {}),
    ADVERSARIAL: network(0.8, 0.4, {"saturation 8": 0.75, "saturation 16": 0.7, "saturation 64": 0.6,
                                    "saturation 1024": 0.6, "shuffle 2": 0.7, "shuffle 4": 0.5, "low": 0.7,
                                    "high": 0.1}, 0.6, 0.2),
}  # fmt: skip


def verdicts(**changed):
    numbers = {"A": NETWORKS | changed, "B": NETWORKS}
    return {claim["name"]: claim["verdict"] for claim in judge(numbers)}


def test_a_paper_like_world_bears_out_every_claim():
    found = verdicts()
    assert set(found) == {"L15a", "L15b", "L16a", "L16b", "L16c", "L16d", "L17a", "L17b", "L18a", "L18b"}
    assert set(found.values()) == {"holds"}


@pytest.mark.parametrize(
    ("method", "changed", "falls"),
    [
        (ADVERSARIAL, network(0.8, 0.4, {"saturation": 0.1}, 0.6, 0.2), {"L16a", "L16d", "L17a"}),
        (ADVERSARIAL, network(0.8, 0.4, {"shuffle": 0.9}, 0.6, 0.2), {"L16b", "L16c"}),
        (ADVERSARIAL, network(0.95, 0.4, {}, 0.6, 0.2), {"L17b"}),
        (ADVERSARIAL, network(0.8, 0.4, {"low": 0.1}, 0.6, 0.2), {"L18a"}),
        (ADVERSARIAL, network(0.8, 0.4, {"high": 0.9}, 0.6, 0.2), {"L18b"}),
        (ADVERSARIAL, network(0.8, 0.4, {}, 0.4, 0.2), {"L15a"}),
        (ADVERSARIAL, network(0.8, 0.4, {}, 0.6, 0.0), {"L15b"}),
        (UNDERFIT, network(0.8, 0.0, {"shuffle 8": 0.6}), {"L16c"}),
    ],
)
def test_a_claim_falls_where_one_architecture_denies_it(method, changed, falls):
    found = verdicts(**{method: changed})
    assert {name for name in falls if found[name] != "does not hold"} == set()


def test_networks_alike_decide_nothing():
    found = verdicts(**{ADVERSARIAL: NETWORKS[NORMAL]})
    assert found["L16a"] == found["L15a"] == found["L18a"] == "cannot be decided"
    assert found["L17a"] == "holds"  # of B alone: in A no network is more robust than another


def test_constant_maps_are_left_out():
    flat = NETWORKS[ADVERSARIAL]
    torn = {
        level: values.clone().index_fill_(0, torch.tensor([0]), torch.nan) for level, values in flat.contours.items()
    }
    assert verdicts(**{ADVERSARIAL: replace(flat, contours=torn)})["L15b"] == "holds"


def test_nothing_is_judged_without_the_networks_that_are_compared():
    assert judge({}) == []
    assert judge({"A": {NORMAL: NETWORKS[NORMAL]}}) == []


def test_linearised_values_have_the_mean_and_the_spread_of_accuracy_on_correct():
    """The spread against that of the ratio itself over resampled images."""
    draw = torch.Generator().manual_seed(0)
    clean = torch.rand(400, generator=draw) < 0.6
    level = (torch.rand(400, generator=draw) < 0.3) | (clean & (torch.rand(400, generator=draw) < 0.2))
    ours = Measured(right={"untouched": clean, "x": level}, robust=clean, sparsity={}, contours={})
    values = linearised(ours, "x")
    ratio = int((clean & level).sum()) / int(clean.sum())
    assert float(values.mean()) == pytest.approx(ratio, abs=1e-12)
    rows = torch.randint(400, (4000, 400), generator=draw)
    ratios = (clean & level)[rows].sum(1) / clean[rows].sum(1)
    assert float(ratios.std()) == pytest.approx(float(values.std()) / 400**0.5, rel=0.05)
    assert bootstrap_mean(values).low == pytest.approx(float(ratios.quantile(0.025)), abs=0.01)


# ----------------------------------------------------------------------------------------------------- the page


class Results(MadeUpIo):
    """Per-example results of the whole study at the smoke scale, nobody's."""

    def __init__(self, folder):
        self.folder, self.study = folder, find_study("zhang2019", "smoke")
        tables, draw = self.study.tables, torch.Generator().manual_seed(0)
        self.scratch = folder / digest(tables)
        self.scratch.mkdir(parents=True)
        labels = torch.arange(60) % 10
        for network, transformed, attacked, mapped in zip(
            tables.networks, tables.transformed, tables.attacked, tables.mapped
        ):
            self._json(network, "history.json", [{"step": 40}])
            self._json(network, "card.json", {"training": {"schedule": {"kept": 40, "stopped": None}}})
            levels = 1 + len(tables.levels)
            spoilt = torch.rand(levels, 60, generator=draw) < torch.arange(levels)[:, None] / (2 * levels)
            write_columns(
                self._file(transformed, "transformed.parquet"),
                {
                    "index": torch.arange(60).repeat(levels),
                    "label": labels.repeat(levels),
                    "transform": torch.arange(levels).repeat_interleave(60),
                    "predicted": torch.where(spoilt, (labels + 1) % 10, labels).flatten(),
                    "probability": torch.rand(levels * 60, generator=draw),
                },
            )
            write_predictions(self._file(attacked, "predictions.parquet"), labels[None, None], labels, (0.1,))
            versions = 1 + len(tables.map_levels)
            measures = ("probability", "sparsity", "contours", "similarity", "distance")
            write_columns(
                self._file(mapped, "sensitivity.parquet"),
                {"label": labels[:8].repeat(versions), "transform": torch.arange(versions).repeat_interleave(8)}
                | {name: torch.rand(8 * versions, generator=draw) for name in measures},
            )
            write_tensors(
                self._file(mapped, "maps.safetensors"),
                {
                    "images": torch.rand(versions, 6, 1, 28, 28, generator=draw),
                    "maps": torch.rand(versions, 6, 28, 28, generator=draw),
                    "probabilities": torch.rand(versions, 6, generator=draw),
                    "labels": labels[:6],
                },
            )
        tables.run(self)
        self.numbers = json.loads((self.scratch / "tables.json").read_text())


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return Results(tmp_path_factory.mktemp("zhang"))


def test_the_tables_have_a_row_for_every_network_and_level(results):
    found, tables = results.numbers, results.study.tables
    assert len(found["rows"]) == len(tables.networks) * (1 + len(tables.levels))
    clean = [row for row in found["rows"] if row["level"] == "untouched"]
    assert {(row["accuracy"]["value"], row["on_correct"]["value"], row["correct"]) for row in clean} == {(1.0, 1.0, 60)}
    last = [row for row in found["rows"] if row["level"] == tables.levels[-1]]
    assert all(row["on_correct"]["value"] == row["accuracy"]["value"] < 0.8 for row in last)
    assert {row["robustness"]["value"] for row in found["networks"]} == {1.0}


def test_the_page_shows_printed_numbers_strips_and_maps(results):
    report = build_report(results, results.study)
    text = markdown(report)
    assert "so it is no yardstick" in report.verdict[0]
    saturation = next(section for section in report.sections if section.title == "Saturation")
    assert [cell.printed for cell in saturation.blocks[0].rows[0][1:]] == [
        printed(NORMAL, f"saturation {p:g}") for p in (0.25, 0.5, 1, 4, 8, 16, 64, 1024)
    ]
    looks = next(section for section in report.sections if section.title == "What the networks look at")
    assert [type(block).__name__ for block in looks.blocks] == ["Table"] * 3 + ["Gallery"] * 6
    assert len(looks.blocks[3].rows) == 1 + 5  # the image, and the maps of every method
    for claim in results.numbers["claims"]:
        assert claim["name"] in text
    assert "mean of ratios of batches of 32" in to_markdown(saturation.blocks[0]) + text
