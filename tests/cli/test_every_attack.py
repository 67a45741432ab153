"""`pellucid attack` and `pellucid evaluate --attack` reach every registered attack, by fields in text alone."""

import dataclasses

import pytest

from pellucid.spec import entries

from .conftest import SMALL

# What has no default, and what would take minutes.
WORDS = {
    "eps": "eps=0.1",
    "step_size": "step_size=0.05",
    "interpreter": "interpreter=cam",
    "attacks": "attacks=fgsm eps=0.05, pgd eps=0.1 steps=2",
    "inner": "inner=pgd eps=0.1 steps=2",
    "steps": "steps=2",
    "adam_steps": "adam_steps=2",
    "search_steps": "search_steps=2",
    "queries": "queries=5",
    "times": "times=2",
    "passes": "passes=1",
    "fit_images": "fit_images=4",
    "targets": "targets=2",
    "updates": "updates=2",
}
COSTLY = set(WORDS) - {"eps", "step_size", "interpreter", "attacks", "inner"}


def words(cls):
    for field in dataclasses.fields(cls):
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed or field.name in COSTLY:
            yield WORDS[field.name]


@pytest.mark.parametrize(("name", "cls"), [pytest.param(name, cls, id=name) for name, cls in entries("attack")])
def test_attack_and_evaluate_take_it(say, trained, name, cls):
    given = (trained, *SMALL, "--attack", name, *words(cls), "--images", "3", "--json")
    found = say("attack", *given).json()
    assert found["images"] == 3
    assert found["sheet"].endswith("attack.png")
    measured = say("evaluate", *given).json()
    assert 0 <= measured["accuracy"][0]["value"] <= 1
    assert measured["passes"]["attack"]["forward"][0] + measured["passes"]["evaluation"]["forward"][0] > 0


def test_an_inner_attack_is_spelled_in_words_or_by_fields(say, trained):
    given = (trained, *SMALL, "--attack", "restarts", "times=2", "--images", "2", "--json")
    in_words = say("evaluate", *given, "inner=pgd eps=0.1 steps=2").json()
    by_fields = say("evaluate", *given, "inner=pgd", "inner.eps=0.1", "inner.steps=2").json()
    assert in_words["digest"] == by_fields["digest"]


def test_teaching_is_a_cost_of_its_own(say, trained):
    learner = ("universal_perturbation", "eps=0.1", "fit_images=4", "passes=1", "inner=fgsm eps=0.1")
    measured = say("evaluate", trained, *SMALL, "--attack", *learner, "--images", "3", "--json").json()
    taught, judged = measured["passes"]["teaching"], measured["passes"]["evaluation"]["forward"]
    assert taught["forward"] > 0
    assert (
        taught["forward"] + sum(judged) + sum(measured["passes"]["attack"]["forward"])
        == (measured["meta"]["passes"]["forward"])
    )
