"""The decision rules of the claims on made-up numbers: each verdict is reached, for the reason that the rule names."""

import dataclasses

import pytest
import torch

from pellucid.studies.ross2018_claims import judge_claims
from pellucid.studies.ross2018_tables import Numbers

N = 400
EPSILONS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
WEAK, STRONG = "grad. reg. λ=1", "grad. reg. λ=10"
LABELS = ("normal", "adv. trained", WEAK, STRONG)


def right(shares):
    """Bool (E, N): the first so many images are right."""
    return torch.stack([torch.arange(N) < round(share * N) for share in shares])


def history(steps_to_90):
    """Validation accuracy logged every 10 steps, reaching 90 % at the given one (None: never)."""
    return [
        {"step": step, "validation_accuracy": 0.95 if steps_to_90 and step >= steps_to_90 else 0.5}
        for step in range(10, 60, 10)
    ]


def norms(level, gap):
    """log10 norms around a level at the true label, `gap` orders more at the next."""
    noise = torch.linspace(-0.2, 0.2, N, dtype=torch.float64)
    return {"true": 10 ** (level + noise), "next": 10 ** (level + gap + noise.flip(0))}


def numbers(**changes):
    """Numbers under which all four claims hold; STRONG is the selected network."""
    own = {
        "normal": (0.99, 0.7, 0.3, 0.1, 0.05, 0.04, 0.03, 0.03),
        "adv. trained": (0.99, 0.98, 0.97, 0.9, 0.4, 0.2, 0.1, 0.05),
        WEAK: (0.99, 0.9, 0.8, 0.7, 0.5, 0.3, 0.2, 0.1),
        STRONG: (0.97, 0.95, 0.9, 0.8, 0.6, 0.5, 0.4, 0.3),
    }
    fooled = dict.fromkeys(LABELS, (0.9, 0.7, 0.5, 0.3, 0.2, 0.1, 0.1, 0.1))
    found = {
        "labels": LABELS,
        "lambdas": (1.0, 10.0),
        "epsilons": EPSILONS,
        "correct": {
            "normal": {label: right(shares) for label, shares in own.items()},
            STRONG: {label: right(shares) for label, shares in fooled.items()},
        },
        "selection": {
            "normal": right((0.99, 0.5, 0.3, 0.1)),
            WEAK: right((0.99, 0.7, 0.6, 0.5)),
            STRONG: right((0.97, 0.9, 0.8, 0.7)),
        },
        "norms": {
            "normal": norms(-3, 3),
            "adv. trained": norms(-3.4, 3),
            WEAK: norms(-2, 1),
            STRONG: norms(-1, 0.5),
        },
        "history": {"normal": history(10), "adv. trained": history(10), WEAK: history(10), STRONG: history(30)},
    }
    return Numbers(**(found | changes))


def changed(maker, judge, shares):
    """The numbers with another row of accuracies."""
    correct = {m: dict(judges) for m, judges in numbers().correct.items()}
    correct[maker][judge] = right(shares)
    return numbers(correct=correct)


def verdict(found, name):
    return next(row for row in judge_claims(found) if row["name"] == name)["verdict"]


def test_all_four_are_judged_with_their_rules():
    rows = judge_claims(numbers())
    assert [(row["name"], row["verdict"]) for row in rows] == [(name, "holds") for name in ("L1", "L2", "L6", "L7")]
    for row in rows:
        assert row.keys() == {"name", "statement", "source", "rule", "verdict", "evidence"}
        assert row["source"].startswith("Ross & Doshi-Velez 2018, Figure")
        assert len(row["evidence"]) > 20


# ------------------------------------------------------------------------------------------ L1: transfer at high eps

NORMAL = (0.99, 0.7, 0.3, 0.1, 0.05, 0.04, 0.03, 0.03)


@pytest.mark.parametrize(
    ("judge", "shares", "expected"),
    [
        # adversarial training better at high eps by far; by a hair (4 of 400 images)
        ("adv. trained", (0.99, 0.98, 0.97, 0.9, 0.9, 0.9, 0.9, 0.9), "does not hold"),
        ("adv. trained", (0.99, 0.98, 0.97, 0.9, 0.4, 0.5, 0.4, 0.3), "cannot be decided"),
        # never ahead at low eps: by far on all three; on one of them equal
        ("adv. trained", (0.99, 0.5, 0.5, 0.5, 0.4, 0.2, 0.1, 0.05), "does not hold"),
        ("adv. trained", (0.99, 0.95, 0.5, 0.5, 0.4, 0.2, 0.1, 0.05), "cannot be decided"),
        # ahead at a single low eps is enough
        ("adv. trained", (0.99, 0.5, 0.5, 0.99, 0.4, 0.2, 0.1, 0.05), "holds"),
        # for the normal network its own examples are white-box, not transferred: its accuracy decides nothing
        ("normal", (0.99, 0.7, 0.3, 0.1, 0.05, 0.9, 0.9, 0.9), "holds"),
    ],
)
def test_resistance_to_transfer(judge, shares, expected):
    assert verdict(changed("normal", judge, shares), "L1") == expected


def test_one_that_fails_outweighs_one_that_is_open():
    found = changed("normal", "adv. trained", (0.99, 0.5, 0.5, 0.5, 0.4, 0.5, 0.4, 0.3))
    assert verdict(found, "L1") == "does not hold"


def test_high_eps_are_averaged():
    """Behind at 0.7, but ahead on the mean of the three."""
    assert verdict(changed("normal", STRONG, (0.97, 0.95, 0.9, 0.8, 0.6, 0.9, 0.9, 0.01)), "L1") == "holds"


def test_images_are_paired():
    """Ten more images right, none less: certain when paired, lost in the noise of two independent shares."""
    shares = (0.99, 0.98, 0.97, 0.9, 0.4, 0.475, 0.375, 0.275)
    found = changed("normal", "adv. trained", shares)
    assert verdict(found, "L1") == "holds"


# -------------------------------------------------------------------------------------------- L2: fooling everybody


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.44, "holds"), (0.47, "cannot be decided"), (0.53, "cannot be decided"), (0.56, "does not hold")],
)
@pytest.mark.parametrize("judge", LABELS)
def test_half_of_the_images_with_its_interval(judge, share, expected):
    found = changed(STRONG, judge, (0.9, 0.9, 0.9, 0.9, share, 0.1, 0.1, 0.1))
    assert verdict(found, "L2") == expected


# ---------------------------------------------------------------------------------------------------- L6: norms


@pytest.mark.parametrize(
    ("label", "level", "gap", "expected"),
    [
        ("adv. trained", -3.9, 3, "holds"),
        ("adv. trained", -4, 3, "cannot be decided"),  # a factor of ten, give or take
        ("adv. trained", -5, 3, "does not hold"),
        ("adv. trained", -1, 3, "does not hold"),
        (STRONG, -1, 0.9, "holds"),
        (STRONG, -1, 1.0, "cannot be decided"),
        (STRONG, -1, -2, "does not hold"),
        ("normal", -3, 0.5, "does not hold"),  # and then adv. trained resembles it no more at the next label
        (WEAK, -9, 7, "holds"),  # only the selected one counts
    ],
)
def test_orders_of_magnitude(label, level, gap, expected):
    found = dataclasses.replace(numbers(), norms=numbers().norms | {label: norms(level, gap)})
    assert verdict(found, "L6") == expected


def test_a_norm_of_zero_is_floored_and_not_infinite():
    zero = {"true": torch.zeros(N, dtype=torch.float64), "next": torch.ones(N, dtype=torch.float64)}
    found = numbers(norms=numbers().norms | {"normal": zero, "adv. trained": zero})
    assert verdict(found, "L6") == "holds"
    assert "+20.00" in next(row for row in judge_claims(found) if row["name"] == "L6")["evidence"]


# -------------------------------------------------------------------------------------- L7: too large a lambda


@pytest.mark.parametrize(
    ("steps", "clean", "expected"),
    [
        ((10, 30), 0.97, "holds"),
        ((10, None), 0.97, "holds"),  # never counts as last
        ((30, 10), 0.97, "does not hold"),
        ((20, 20), 0.97, "cannot be decided"),
        ((None, None), 0.97, "cannot be decided"),
        ((10, 30), 0.99, "cannot be decided"),
        ((10, 30), 1.0, "does not hold"),
    ],
)
def test_over_regularisation(steps, clean, expected):
    found = changed("normal", STRONG, (clean, 0.95, 0.9, 0.8, 0.6, 0.5, 0.4, 0.3))
    found = dataclasses.replace(found, history=found.history | {WEAK: history(steps[0]), STRONG: history(steps[1])})
    assert verdict(found, "L7") == expected


def test_one_lambda_decides_nothing():
    found = numbers(labels=("normal", "adv. trained", STRONG), lambdas=(10.0,))
    assert verdict(found, "L7") == "cannot be decided"


# ---------------------------------------------------------------------------------------------------- selection


def test_the_most_robust_on_validation_images_is_selected():
    assert numbers().selected == STRONG
    weaker = numbers().selection | {STRONG: right((0.97, 0.6, 0.5, 0.4))}
    assert numbers(selection=weaker).selected == WEAK


def test_networks_that_lost_more_than_3_percent_are_not_selected():
    """97 % of 0.99 is 0.9603: 0.9625 stays in, 0.96 does not."""
    for clean, expected in ((0.9625, STRONG), (0.96, WEAK)):
        found = numbers(selection=numbers().selection | {STRONG: right((clean, 0.9, 0.8, 0.7))})
        assert found.selected == expected


def test_where_none_is_accurate_enough_the_most_accurate_is_taken():
    low = numbers().selection | {WEAK: right((0.5, 0.1, 0.1, 0.1)), STRONG: right((0.4, 0.4, 0.4, 0.4))}
    assert numbers(selection=low).selected == WEAK


def test_verdicts_do_not_depend_on_chance():
    assert judge_claims(numbers()) == judge_claims(numbers())
