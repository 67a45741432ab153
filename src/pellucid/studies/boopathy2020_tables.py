"""The numbers of the Boopathy et al. study: accuracies beside the printed ones, costs, and the claims they decide."""

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from torch import Tensor

from pellucid.metrics import Interval, accuracy
from pellucid.spec import register
from pellucid.store import write_json
from pellucid.studies.claims import ClaimRow, Verdict, above, all_of, listed, paired_gap
from pellucid.tasks.io import Io
from pellucid.tasks.parquet import read_predictions
from pellucid.tasks.training import TaskField

Right = dict[float, Tensor]  # which images are classified right, by eps


@register("task", "boopathy2020_tables")
@dataclass(frozen=True, kw_only=True)
class Boopathy2020Tables:
    """tables.json: accuracy with interval for each method, attack and eps, the cost of training, and the claims.

    methods, networks and attacked stand side by side; autoattacked goes through the methods once for each of its eps.
    """

    scale: str
    methods: tuple[str, ...]
    networks: tuple[TaskField, ...]
    attacked: tuple[TaskField, ...]
    autoattacked: tuple[TaskField, ...] = ()

    def title(self) -> str:
        """Name the work for people."""
        return "tables"

    def run(self, io: Io) -> list[str]:
        """Compute every number of the report."""
        pgd = {method: _right(io, task) for method, task in zip(self.methods, self.attacked, strict=True)}
        auto: dict[str, Right] = {}
        for place, task in enumerate(self.autoattacked):
            auto.setdefault(self.methods[place % len(self.methods)], {}).update(_right(io, task))
        known, costs = printed(), self._costs(io)
        rows = [
            {
                "method": method,
                "attack": attack,
                "epsilon": eps,
                **accuracy_of(right)._asdict(),
                "images": len(right),
                "printed": known.get((method, eps)) if attack == "PGD" else None,
            }
            for attack, found in (("PGD", pgd), ("AutoAttack", auto))
            for method, grid in found.items()
            for eps, right in grid.items()
        ]
        spent = {row["method"]: (row["steps"], row["seconds_per_image"]) for row in costs}
        claims = judge(pgd, auto, spent)
        write_json(
            io.scratch / "tables.json", {"scale": self.scale, "rows": rows, "costs": costs, "claims": list(claims)}
        )
        return ["tables.json"]

    def _costs(self, io: Io) -> list[dict[str, Any]]:
        found = []
        for method, network in zip(self.methods, self.networks, strict=True):
            meta, history = io.result(network).meta, io.result(network).json("history.json")
            steps = history[-1]["step"]
            seen = steps * network.batch_size
            found.append(
                {
                    "method": method,
                    "steps": steps,
                    "images": seen,
                    "seconds": meta["wall_seconds"],
                    "seconds_per_image": meta["wall_seconds"] / seen,
                    "forward": meta["passes"]["forward"] / seen,
                    "backward": meta["passes"]["backward"] / seen,
                }
            )
        return found


def printed() -> dict[tuple[str, float], float]:
    """Return Table 1's accuracies by (method, eps)."""
    table = json.loads(files("pellucid.studies").joinpath("boopathy2020_table1.json").read_text())
    return {(row["method"], float(row["epsilon"])): row["accuracy"] for row in table["rows"]}


def accuracy_of(right: Tensor) -> Interval:
    """Return the share of images that are classified right, with its interval."""
    return accuracy(right.long(), right.new_ones(len(right)).long())


def judge(pgd: dict[str, Right], auto: dict[str, Right], spent: dict[str, tuple[int, float]]) -> list[ClaimRow]:
    """Return the verdicts on claims L10 to L12 of the paper; rules were written before the networks were trained."""
    return [_robust(pgd), _ahead(pgd), _insufficient(pgd, spent), _slower(spent), *_stronger(pgd, auto)]


def _robust(pgd: dict[str, Right]) -> ClaimRow:
    gaps = {method: paired_gap(pgd[method][0.3], pgd["Normal"][0.3]) for method in ("Int", "Int2")}
    return {
        "name": "L10a",
        "statement": "Int and Int2 are robust without an adversarial loss.",
        "source": "Boopathy et al. 2020, Table 1",
        "rule": "Under PGD at the training eps .3, each is more accurate than the undefended network, the paired 95 % "
        "interval of the difference above 0.",
        "verdict": all_of(above(gap) for gap in gaps.values()),
        "evidence": "Against Normal: " + listed(gaps) + ".",
    }


def _ahead(pgd: dict[str, Right]) -> ClaimRow:
    gaps = {
        f"{method} at {eps:g}": paired_gap(pgd[method][eps], pgd["Adv"][eps])
        for method in ("Int", "Int2")
        for eps in (0.35, 0.4)
    }
    return {
        "name": "L10b",
        "statement": "Beyond the training eps, Int and Int2 are ahead of adversarial training.",
        "source": "Boopathy et al. 2020, Table 1",
        "rule": "Under PGD at eps .35 and .4, each is more accurate than Adv, all four paired 95 % intervals of the "
        "difference above 0.",
        "verdict": all_of(above(gap) for gap in gaps.values()),
        "evidence": "Against Adv: " + listed(gaps) + ".",
    }


def _insufficient(pgd: dict[str, Right], spent: dict[str, tuple[int, float]]) -> ClaimRow:
    gaps = {method: paired_gap(pgd["Adv"][0.3], pgd[method][0.3]) for method in ("IG-Norm", "Int-one-class")}
    shorter = {method for method in gaps if spent[method][0] < spent["Adv"][0]}  # trained for less than Adv
    verdicts = (above(gap) if method not in shorter else _undecided(above(gap)) for method, gap in gaps.items())
    return {
        "name": "L11",
        "statement": "IG-Norm and Int-one-class are not enough.",
        "source": "Boopathy et al. 2020, Table 1 and Figure 3",
        "rule": "Under PGD at eps .3, Adv is more accurate than each, the paired 95 % intervals above 0. That a method "
        "trained for fewer batches than Adv is behind it decides nothing.",
        "verdict": all_of(verdicts),
        "evidence": "Adv ahead of it: "
        + listed(gaps)
        + ". Batches: "
        + ", ".join(f"{method} {spent[method][0]:,}" for method in ("Adv", *gaps))
        + ".",
    }


def _undecided(verdict: Verdict) -> Verdict:
    return "cannot be decided" if verdict == "holds" else verdict


def _slower(spent: dict[str, tuple[int, float]]) -> ClaimRow:
    ratios = {method: spent[method][1] / spent["Int"][1] for method in ("IG-Norm", "IG-Sum-Norm")}
    return {
        "name": "L12",
        "statement": "The IG methods are at least 4 times slower than Int at equal inner steps.",
        "source": "Boopathy et al. 2020, Figure 3",
        "rule": "Seconds of training an image, over those of Int: both ratios at least 4. One run, on a machine with "
        "other work: benchmarks/defences.py races them side by side.",
        "verdict": "holds" if min(ratios.values()) >= 4 else "does not hold",
        "evidence": ", ".join(f"{method} {ratio:.1f} times" for method, ratio in ratios.items()) + ".",
    }


def _stronger(pgd: dict[str, Right], auto: dict[str, Right]) -> list[ClaimRow]:
    """Ask what the paper did not: is the order still the same under AutoAttack?"""
    if not auto or any(0.3 not in grid for grid in auto.values()):
        return []
    gaps = {method: paired_gap(auto["Adv"][0.3], auto[method][0.3]) for method in ("Int", "Int2")}
    lost = {method: paired_gap(pgd[method][0.3], auto[method][0.3]) for method in ("Adv", "TRADES", "Int", "Int2")}
    return [
        {
            "name": "under AutoAttack",
            "statement": "Int and Int2 are as robust as adversarial training also under AutoAttack at eps .3.",
            "source": "ours: the paper has PGD only",
            "rule": "No paired 95 % interval of Adv minus it is above 0, and every one ends below +10 points.",
            "verdict": all_of(
                "does not hold" if gap.low > 0 else "holds" if gap.high < 0.1 else "cannot be decided"
                for gap in gaps.values()
            ),
            "evidence": "Adv ahead of it: " + listed(gaps) + ". PGD overstates it by: " + listed(lost) + ".",
        }
    ]


def _right(io: Io, task: Any) -> Right:
    predictions, labels, epsilons = read_predictions(io.result(task).folder / "predictions.parquet")
    return {round(eps, 6): predictions[0, number] == labels for number, eps in enumerate(epsilons)}
