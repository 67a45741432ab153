"""The claims of Ross & Doshi-Velez 2018 that FGSM transfer and gradient norms can decide, with their rules.

The rules were written before the accuracies and norms they judge were measured. Differences between two networks are
paired: both judge the same images. An interval that contains the deciding value means "cannot be decided".
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pellucid.metrics import Interval, bootstrap_mean, wilson
from pellucid.studies.claims import ClaimRow, Verdict, above, all_of, listed, paired_gap, points

if TYPE_CHECKING:
    from pellucid.studies.ross2018_tables import Numbers


def judge_claims(numbers: "Numbers") -> list[ClaimRow]:
    """Return the verdicts on claims L1, L2, L6 and L7 of the checklist."""
    return [_transfer_resistance(numbers), _fools_all(numbers), _norms(numbers), _over_regularises(numbers)]


def _at(numbers: "Numbers", maker: str, judge: str, *epsilons: float) -> Tensor:
    rows = [index for index, eps in enumerate(numbers.epsilons) if any(abs(eps - e) < 1e-9 for e in epsilons)]
    return numbers.correct[maker][judge][rows]


def _transfer_resistance(numbers: "Numbers") -> ClaimRow:
    best, high = numbers.selected, (0.5, 0.6, 0.7)
    lead = paired_gap(_at(numbers, "normal", best, *high), _at(numbers, "normal", "adv. trained", *high))
    small = (0.1, 0.2, 0.3)
    low = {  # one of three is enough, so each interval is wider (Bonferroni)
        eps: paired_gap(
            _at(numbers, "normal", "adv. trained", eps), _at(numbers, "normal", best, eps), 1 - 0.05 / len(small)
        )
        for eps in small
    }
    sometimes: Verdict = "holds" if any(g.low > 0 for g in low.values()) else "cannot be decided"
    if all(g.high < 0 for g in low.values()):
        sometimes = "does not hold"
    return {
        "name": "L1",
        "statement": "Gradient-regularised networks resist transferred FGSM best at high eps; adversarial training is "
        "sometimes better at eps up to 0.3.",
        "source": "Ross & Doshi-Velez 2018, Figure 1",
        "rule": "On examples made for the normal network: accuracy of the selected gradient-regularised network minus "
        "that of the adversarially trained one, mean over eps .5, .6, .7, has an interval above 0; and at one of eps "
        ".1, .2, .3 adversarial training is ahead with an interval above 0 (98.3 %, since there are three).",
        "verdict": all_of([above(lead), sometimes]),
        "evidence": f"Selected: {best}. High eps, against adv. trained: {points(lead)}. "
        f"Adversarial training ahead at {listed(low, form='eps {}: {}')}.",
    }


def _fools_all(numbers: "Numbers") -> ClaimRow:
    best = numbers.selected
    judged = {}
    for judge in numbers.labels:
        right = _at(numbers, best, judge, 0.4)[0]
        judged[judge] = wilson(int(right.sum()), len(right))
    verdicts: list[Verdict] = [
        "holds" if share.high < 0.5 else "does not hold" if share.low >= 0.5 else "cannot be decided"
        for share in judged.values()
    ]
    return {
        "name": "L2",
        "statement": "Examples made for gradient-regularised networks fool all networks.",
        "source": "Ross & Doshi-Velez 2018, Figures 1 and 10",
        "rule": "On FGSM examples with eps .4 (Figure 10's) made for the selected gradient-regularised network, every "
        "network is right on fewer than half of the images, interval included.",
        "verdict": all_of(verdicts),
        "evidence": f"Made for {best}; accuracy of "
        + ", ".join(f"{k} {100 * s.value:.1f} % [{100 * s.low:.1f}, {100 * s.high:.1f}]" for k, s in judged.items())
        + ".",
    }


def _norms(numbers: "Numbers") -> ClaimRow:
    logs = {label: {k: v.clamp_min(1e-20).log10() for k, v in kinds.items()} for label, kinds in numbers.norms.items()}
    best = numbers.selected
    alike = {k: bootstrap_mean(logs["adv. trained"][k] - logs["normal"][k], resamples=2000) for k in ("true", "next")}
    spread = {
        label: bootstrap_mean(logs[label]["next"] - logs[label]["true"], resamples=2000) for label in ("normal", best)
    }
    within = [_within_one_order(g) for g in (*alike.values(), spread[best])]
    return {
        "name": "L6",
        "statement": "Gradient norms of adversarially trained networks resemble the normal network's; those of "
        "gradient-regularised networks are of one order for FGSM and TGSM.",
        "source": "Ross & Doshi-Velez 2018, Figures 4 and 8",
        "rule": "Mean log10 ratio of norms over images: adv. trained to normal within 1 (true and next label); next to "
        "true label of the selected gradient-regularised network within 1. (The normal network's, for comparison, is "
        "in the evidence.)",
        "verdict": all_of(within),
        "evidence": "log10 ratios: adv. trained / normal "
        + ", ".join(f"{k} {_plain(g)}" for k, g in alike.items())
        + "; next / true "
        + ", ".join(f"{k} {_plain(g)}" for k, g in spread.items()) + ".",
    }  # fmt: skip


def _within_one_order(g: Interval) -> Verdict:
    if g.low > -1 and g.high < 1:
        return "holds"
    return "does not hold" if g.low > 1 or g.high < -1 else "cannot be decided"


def _plain(interval: Interval) -> str:
    return f"{interval.value:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"


def _over_regularises(numbers: "Numbers") -> ClaimRow:
    ordered = numbers.regularised
    row: ClaimRow = {
        "name": "L7",
        "statement": "A lambda that is too large over-regularises; convergence is slower with larger lambda.",
        "source": "Ross & Doshi-Velez 2018, Figure 7",
        "rule": "Clean test accuracy of the smallest minus that of the largest lambda has an interval above 0; and the "
        "largest lambda reaches 90 % validation accuracy more than one log interval after the smallest (never: last).",
        "verdict": "cannot be decided",
        "evidence": f"Only {len(ordered)} lambda at this scale; at least two are needed.",
    }
    if len(ordered) < 2:
        return row
    clean = {label: _at(numbers, "normal", label, 0.0)[0] for label in ordered}
    loss = paired_gap(clean[ordered[0]], clean[ordered[-1]])
    reached = [_first_step(numbers.history[label], 0.9) for label in ordered]
    interval = numbers.history[ordered[0]][0]["step"]
    delay = 0.0 if reached[0] == reached[-1] else reached[-1] - reached[0]  # two that never do are alike
    slower: Verdict = "holds" if delay > interval else "does not hold" if delay < -interval else "cannot be decided"
    steps = ", ".join(f"{label}: {'never' if s == torch.inf else int(s)}" for label, s in zip(ordered, reached))
    row["verdict"] = all_of([above(loss), slower])
    row["evidence"] = f"Smallest against largest lambda, clean: {points(loss)}. Steps to 90 %: {steps}."
    return row


def _first_step(history: list[dict[str, float]], accuracy: float) -> float:
    return next((row["step"] for row in history if row["validation_accuracy"] >= accuracy), torch.inf)
