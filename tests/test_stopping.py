import math

import pytest

from pellucid.data import Digits
from pellucid.errors import SpecError
from pellucid.models import SmallCNN
from pellucid.stopping import Patience, Stop, SuddenOverfitting, TargetAccuracy, better, metric_score
from pellucid.tasks import Train

NAN = math.nan


def history(metric: str, *values: float) -> list[dict[str, float]]:
    return [{"step": 100.0 * (place + 1), metric: value} for place, value in enumerate(values)]


def stopped_at(rule: Stop, logs: list[dict[str, float]]) -> int | None:
    """The number of the log, from 1, after which a run that asks at every log ends."""
    return next((n for n in range(len(logs) + 1) if rule.reason(logs[:n])), None)


def kept(rule: Stop, logs: list[dict[str, float]]) -> int:
    """The number of the log, from 1, whose network is kept of those up to the stop."""
    scores = [rule.score(figures) for figures in logs[: stopped_at(rule, logs)]]
    return 1 + scores.index(max(scores))


@pytest.mark.parametrize(
    ("values", "stop", "keep"),
    [
        ((0.3, 0.7, 0.79, 0.95, 0.99), 4, 3),  # 0.79 is nearer to 0.8 than 0.95
        ((0.3, 0.7, 0.83, 0.8), 3, 3),
        ((0.3, 0.8, 0.99), 2, 2),
        ((0.3, 0.6, 0.5), None, 2),
        ((), None, None),
    ],
)
def test_target_accuracy(values, stop, keep):
    rule, logs = TargetAccuracy(accuracy=0.8), history("validation_accuracy", *values)
    assert stopped_at(rule, logs) == stop
    assert keep is None or kept(rule, logs) == keep


@pytest.mark.parametrize("given", [{}, {"accuracy": 0.5, "like": Train(data=Digits(), model=SmallCNN(), steps=1)}])
def test_a_target_is_named_once(given):
    with pytest.raises(SpecError, match="needs accuracy, or a training to be like, and not both"):
        TargetAccuracy(**given)


def test_a_target_that_is_still_to_be_read_decides_nothing():
    rule = TargetAccuracy(like=Train(data=Digits(), model=SmallCNN(), steps=1))
    with pytest.raises(SpecError, match="the training task finds out"):
        rule.reason(history("validation_accuracy", 0.5))


def test_a_run_that_goes_on_after_its_target_is_told_to_stop_again():
    logs = history("validation_accuracy", 0.9, 0.5)
    assert "0.9" in (TargetAccuracy(accuracy=0.8).reason(logs) or "")


@pytest.mark.parametrize(
    ("fields", "values", "stop", "keep"),
    [
        ({"logs": 2}, (5, 4, 3, 4, 2, 3, 3, 1), 7, 5),
        ({"logs": 2}, (5, 4, 3, 2, 1), None, 5),
        ({"logs": 2}, (1, 1, 1), 3, 1),  # as good is not better
        ({"logs": 1}, (5, 4, 4.5), 3, 2),
        ({"logs": 3}, (1, 2, 3), None, 1),
        ({"logs": 2, "tolerance": 0.5}, (5, 4.8, 4.6, 1), 3, 3),  # the best is kept, however little better
        ({"logs": 3, "tolerance": 0.5}, (5, 4.8, 4.6, 4.4, 4.3, 4.2, 4.1), 7, 7),  # small steps add up
        ({"logs": 2, "better": "higher"}, (1, 2, 3, 2, 2), 5, 3),
        ({"logs": 2, "metric": "validation_accuracy"}, (0.1, 0.5, 0.4, 0.5, 0.9), 4, 2),
        ({"logs": 2, "metric": "validation_accuracy", "better": "lower"}, (0.5, 0.1, 0.4, 0.5), 4, 2),
        ({"logs": 2}, (5, NAN, NAN, 1), 3, 1),
        ({"logs": 2}, (NAN, NAN), 2, 1),
    ],
)
def test_patience(fields, values, stop, keep):
    rule = Patience(**fields)
    logs = history(rule.metric, *values)
    assert stopped_at(rule, logs) == stop
    assert kept(rule, logs) == keep


def test_patience_says_since_when():
    rule = Patience(logs=2)
    assert (
        rule.reason(history("validation_cross_entropy", 0.5, 0.25, 0.3, 0.4))
        == "validation_cross_entropy has not become better in 2 logs, since 0.25 at step 200"
    )
    assert "since the beginning" in (rule.reason(history("validation_cross_entropy", NAN, NAN)) or "")


@pytest.mark.parametrize(
    ("values", "stop", "keep"),
    [
        ((0.3, 0.4, 0.45, 0.02, 0.5), 4, 3),
        ((0.3, 0.5, 0.4, 0.35, 0.31, 0.29), 6, 2),  # slowly: never 0.2 from one log to the next
        ((0.3, 0.8, 0.6), 3, 2),  # a fall by exactly 0.2, but for rounding
        ((0.3, 0.7, 0.5), 3, 2),
        ((0.3, 0.5, 0.31, 0.5, 0.6, 0.45), None, 5),
        ((0.1, 0.0, 0.0), None, 1),
    ],
)
def test_sudden_overfitting(values, stop, keep):
    rule, logs = SuddenOverfitting(), history("attacked_training_accuracy", *values)
    assert stopped_at(rule, logs) == stop
    assert kept(rule, logs) == keep


def test_sudden_overfitting_says_what_fell():
    logs = history("attacked_accuracy", 0.45, 0.1)
    said = SuddenOverfitting(metric="attacked_accuracy").reason(logs)
    assert said == "attacked_accuracy fell from 0.45 at step 100 to 0.1 at step 200"


@pytest.mark.parametrize(
    ("metric", "sign"),
    [
        ("validation_accuracy", 1),
        ("attacked_training_accuracy", 1),
        ("validation_cross_entropy", -1),
        ("validation_squared_gradient", -1),
        ("cross_entropy", -1),
        ("double_backprop", -1),
    ],
)
def test_the_sign_goes_by_the_name(metric, sign):
    assert metric_score(metric, {metric: 0.25}) == sign * 0.25
    assert metric_score(metric, {metric: NAN}) == -math.inf
    assert (better(metric) == "higher") == (sign == 1)


@pytest.mark.parametrize(
    "rule",
    [TargetAccuracy(accuracy=0.5, metric="attacked_accuracy"), Patience(metric="loss"), SuddenOverfitting()],
    ids=str,
)
def test_a_figure_that_is_not_logged_is_refused_with_those_there_are(rule):
    logs = [{"step": 100.0, "cross_entropy": 0.3, "validation_accuracy": 0.5}]
    for ask in (lambda: rule.reason(logs), lambda: rule.score(logs[0])):
        with pytest.raises(SpecError, match=r"cross_entropy, validation_accuracy") as refusal:
            ask()
        assert rule.metric in str(refusal.value)
        assert ("watch" in str(refusal.value)) == rule.metric.startswith("attacked")
    with pytest.raises(SpecError, match="none"):
        rule.score({})


@pytest.mark.parametrize(
    "make", [lambda m: TargetAccuracy(accuracy=0.5, metric=m), lambda m: SuddenOverfitting(metric=m)]
)
def test_rules_about_accuracy_refuse_losses(make):
    with pytest.raises(SpecError, match="accuracy"):
        make("validation_cross_entropy")
