"""The claims of Jakubovitz & Giryes 2018 that accuracy, rho_adv and Jacobian norms can decide, with their rules.

The rules were written before the networks were trained. All differences are paired: both networks see the same images.
The intervals of a claim hold together at 95 % (Bonferroni: each of m at 1 - .05/m).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from pellucid.metrics import Interval
from pellucid.studies.claims import ClaimRow, above, all_of, below, listed, paired_gap, paired_ratio, plain, points

NONE, ADVERSARIAL = "no defence", "adversarial training"
PENALTIES = ("input gradient", "cross-Lipschitz", "Jacobian")
SMALL_LOSS = 0.02  # of accuracy; the paper prints up to .0108
SAME_SIZE = 0.05  # of a Jacobian's mean norm; the paper prints .007


@dataclass(frozen=True)
class Measured:
    """What was measured of one network, image by image."""

    right: Tensor  # bool (M,)
    share: Tensor  # (N,), of images that are not black all over
    jacobian_clean: Tensor  # (N,)
    jacobian_perturbed: Tensor  # (N,)


Numbers = Mapping[str, Measured]


def regular(penalty: str) -> str:
    """Name the network that is trained with a penalty from the start."""
    return f"{penalty}, regular"


def after(penalty: str) -> str:
    """Name the undefended network that is trained on with a penalty."""
    return f"{penalty}, post-processing"


def combined(penalty: str) -> str:
    """Name the undefended network that is trained on with a penalty and adversarial images."""
    return f"{penalty} + {ADVERSARIAL}"


def judge(numbers: Numbers) -> list[ClaimRow]:
    """Return the verdicts on claims L20, L21 and L23 of the checklist; none where networks are missing."""
    needed = {NONE, ADVERSARIAL, *(name(p) for p in PENALTIES for name in (regular, after, combined))}
    if not needed <= set(numbers):
        return []
    return [_largest(numbers), _larger_with(numbers), _small_loss(numbers), *_post_processing(numbers), _norms(numbers)]


def _largest(numbers: Numbers) -> ClaimRow:
    best = after("Jacobian")
    others = (NONE, ADVERSARIAL, *(name(penalty) for penalty in PENALTIES[:2] for name in (regular, after)))
    gaps = _gaps(((other, numbers[best].share, numbers[other].share) for other in others), len(others))
    return {
        "name": "L20a",
        "statement": "Of single defences, Jacobian regularisation gives the largest rho_adv.",
        "source": "Jakubovitz & Giryes 2018, Tables 2 and 3",
        "rule": "rho_adv of the undefended network trained on with it (post-processing) minus that of every network "
        "with no defence, adversarial training, input-gradient or cross-Lipschitz regularisation: all intervals "
        "above 0. One below 0: does not hold.",
        "verdict": all_of(above(gap) for gap in gaps.values()),
        "evidence": f"{best} is ahead of {listed(gaps, plain)}.",
    }


def _larger_with(numbers: Numbers) -> ClaimRow:
    best, others = combined("Jacobian"), (after("Jacobian"), ADVERSARIAL, *(combined(p) for p in PENALTIES[:2]))
    gaps = _gaps(((other, numbers[best].share, numbers[other].share) for other in others), len(others))
    return {
        "name": "L20b",
        "statement": "With adversarial training besides, Jacobian regularisation gives a larger rho_adv still, and the "
        "largest of all combinations.",
        "source": "Jakubovitz & Giryes 2018, Table 3",
        "rule": "rho_adv of the combination minus that of Jacobian regularisation alone (post-processing), of "
        "adversarial training alone, and of both other combinations: all intervals above 0. One below 0: does not "
        "hold.",
        "verdict": all_of(above(gap) for gap in gaps.values()),
        "evidence": f"{best} is ahead of {listed(gaps, plain)}.",
    }


def _small_loss(numbers: Numbers) -> ClaimRow:
    names = (after("Jacobian"), combined("Jacobian"))
    losses = _gaps(((name, numbers[NONE].right, numbers[name].right) for name in names), len(names))
    return {
        "name": "L20c",
        "statement": "Jacobian regularisation changes accuracy little.",
        "source": "Jakubovitz & Giryes 2018, Tables 2 and 3 (99.08 % becomes 98.44 %, and 98.00 % with both)",
        "rule": "Accuracy without a defence minus that with it (post-processing), alone and with adversarial training: "
        f"both intervals below {100 * SMALL_LOSS:g} points. One above that: does not hold.",
        "verdict": all_of(below(loss, SMALL_LOSS) for loss in losses.values()),
        "evidence": f"Lost with {listed(losses, points)}.",
    }


def _post_processing(numbers: Numbers) -> list[ClaimRow]:
    claims: list[ClaimRow] = []
    for letter, field, title, said in (("a", "share", "rho_adv", plain), ("b", "right", "accuracy", points)):
        triples = ((p, getattr(numbers[after(p)], field), getattr(numbers[regular(p)], field)) for p in PENALTIES)
        gaps = _gaps(triples, len(PENALTIES))
        claims.append(
            {
                "name": f"L21{letter}",
                "statement": f"A penalty gives a better {title} as post-processing than in training from the start.",
                "source": "Jakubovitz & Giryes 2018, Table 2",
                "rule": f"{title} of the network trained on with it minus that of the network trained with it from the "
                "start, in as many steps altogether, for each of three penalties: all intervals above 0. One below 0: "
                "does not hold.",
                "verdict": all_of(above(gap) for gap in gaps.values()),
                "evidence": f"Post-processing is ahead by: {listed(gaps, said)}.",
            }
        )
    return claims


def _norms(numbers: Numbers) -> ClaimRow:
    ours, none = numbers[ADVERSARIAL], numbers[NONE]
    confidence = 1 - 0.05 / 2
    clean = paired_ratio(ours.jacobian_clean, none.jacobian_clean, confidence)
    perturbed = paired_ratio(ours.jacobian_perturbed, none.jacobian_perturbed, confidence)
    lowered = below(perturbed, 1.0)
    kept = above(clean, 1 - SAME_SIZE)
    return {
        "name": "L23",
        "statement": "Adversarial training lowers the norm of the Jacobian at perturbed inputs only.",
        "source": "Jakubovitz & Giryes 2018, Table 1",
        "rule": "Mean norm over that of the undefended network, each at inputs perturbed for itself: the interval of "
        f"the ratio below 1; and at the clean inputs the interval above {1 - SAME_SIZE:g}. One on the other side: does "
        "not hold.",
        "verdict": all_of((lowered, kept)),
        "evidence": f"Ratio at perturbed inputs {plain(perturbed, False)} (printed .762), at clean ones "
        f"{plain(clean, False)} (printed 1.007).",
    }


def _gaps(triples: Iterable[tuple[str, Tensor, Tensor]], count: int) -> dict[str, Interval]:
    return {name: paired_gap(a, b, 1 - 0.05 / count) for name, a, b in triples}
