"""The training task: what of its description reaches the loop, what it refuses, and the teachers it names."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from pellucid.attacks import FGSM, PGD
from pellucid.averaging import EMA, SWA
from pellucid.data import CropAndFlip, Digits
from pellucid.defences import (
    Distillation,
    DoubleBackprop,
    InterpretabilityAware,
    Phases,
    SemiSupervised,
    Standard,
    Sum,
)
from pellucid.errors import CheckpointError, DataError, SpecError
from pellucid.models import PerImage, load_classifier
from pellucid.optimisers import Adam
from pellucid.rng import derive, global_seed
from pellucid.spec import digest, from_dict, to_dict
from pellucid.stopping import Patience, TargetAccuracy
from pellucid.tasks import Checkpoint, run
from pellucid.tasks.graph import order, plan, rehearse
from pellucid.tasks.training import kept_row
from pellucid.train import Recipe, fit

from .conftest import DATA, FAST, SMALL, Journal, Killed

TASK = replace(SMALL, epochs=None, steps=6, log_every=2)
MAPS = SemiSupervised(inner=InterpretabilityAware(attack=PGD(eps=0.1, steps=2)), labelled=0.5)
DISTILLED = replace(TASK, defence=Distillation(temperature=5))


def weights(result):
    return load_file(result.folder / "model.safetensors")


def same(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(value, found[key]) for key, value in expected.items())


def by_hand(task, train, start=None, **recipe):
    """Train in the loop what the task describes; return the weights and the history."""
    with global_seed(derive(task.seed, "init")):
        network = task.model.build(1, (28, 28), 10)
    if start is not None:
        network.load_state_dict(start)
    done = fit(
        network,
        task.defence,
        task.optimiser,
        train,
        DATA.load("validation"),
        steps=task.steps,
        batch_size=task.batch_size,
        seed=derive(task.seed, "fit"),
        log_every=task.log_every,
        recipe=Recipe(**recipe),
    )
    return network.state_dict(), done.history


def loading(monkeypatch, change):
    """Have Digits load training parts that are changed; validation and test parts stay."""
    load = Digits.load
    monkeypatch.setattr(
        Digits, "load", lambda self, part: change(self, load(self, part)) if part == "train" else load(self, part)
    )


# --------------------------------------------------------------------------- what is described is what is done


@pytest.mark.parametrize(
    "given",
    [
        {"augmentation": CropAndFlip(padding=2)},
        {"average": EMA(decay=0.5)},
        {"average": SWA(begin=0.5, every=1)},
        {"precision": "bfloat16"},
        {"accumulate": 3},
        {"watch": FGSM(eps=0.1)},
        {"stop": TargetAccuracy(accuracy=0.05)},
        {"keep": "validation_squared_gradient"},
    ],
    ids=lambda given: next(iter(given)),
)
def test_every_field_reaches_the_loop_and_makes_another_task(store, given):
    task = replace(TASK, **given)
    result = run(task, store, FAST)
    expected, history = by_hand(task, DATA.load("train"), **given)
    plain, without = by_hand(TASK, DATA.load("train"))
    assert same(weights(result), expected)
    assert json.loads((result.folder / "history.json").read_text()) == history
    assert not same(expected, plain) or history != without
    assert digest(task) != digest(TASK)
    assert from_dict(json.loads(json.dumps(to_dict(task)))) == task


def test_what_changes_speed_only_is_no_other_task():
    for given in ({"channels_last": True}, {"compiled": True}):
        assert digest(replace(TASK, **given)) == digest(TASK)


def test_the_layout_reaches_the_loop(store, monkeypatch):
    from pellucid.tasks import training

    heard = []
    monkeypatch.setattr(training, "fit", lambda *given, recipe, **more: heard.append(recipe) or fit(*given, **more))
    run(replace(TASK, channels_last=True, compiled=True), store, FAST)
    assert (heard[0].channels_last, heard[0].compiled) == (True, True)


def test_the_first_images_are_the_only_ones_that_are_learnt_from(store, tmp_path, monkeypatch):
    task = replace(TASK, images=25)
    result = run(task, store, FAST)
    train = DATA.load("train")
    cut = replace(train, pixels=train.pixels[:25], labels=train.labels[:25])
    assert same(weights(result), by_hand(task, cut)[0])
    assert not same(weights(result), by_hand(task, train)[0])

    def spoilt(first):
        def change(spec, split):
            rest = torch.arange(len(split)) >= first
            pixels = torch.where(rest[:, None, None, None], 255 - split.pixels, split.pixels)
            return replace(split, pixels=pixels, labels=torch.where(rest, (split.labels + 1) % 10, split.labels))

        return change

    for first, expected in ((25, True), (24, False)):
        with monkeypatch.context() as patch:
            loading(patch, spoilt(first))
            again = run(task, type(store)(tmp_path / f"spoilt from {first}"), FAST)
        assert same(weights(again), weights(result)) is expected


def test_epochs_are_of_the_images_that_are_used(store):
    task = replace(SMALL, images=45, epochs=2)  # two batches of 20 an epoch
    history = json.loads((run(task, store, FAST).folder / "history.json").read_text())
    assert history[-1]["step"] == 4
    assert replace(TASK, images=60).images == 60
    assert same(weights(run(replace(TASK, images=100), store, FAST)), weights(run(TASK, store, FAST)))


def test_killed_in_the_middle_it_goes_on(store, tmp_path):
    """The whole of it through the store: an average, its best network, parts of batches, changed images."""
    task = replace(
        TASK, average=EMA(decay=0.5), keep="training_accuracy", accumulate=2, augmentation=CropAndFlip(), log_every=1
    )
    for step in (2, 5):
        with pytest.raises(Killed):
            run(task, store, FAST, Journal(die_at=(step, 6)))
    found, expected = run(task, store, FAST), run(task, type(store)(tmp_path / "other"), FAST)
    for name in ("model.safetensors", "history.json"):
        assert (found.folder / name).read_bytes() == (expected.folder / name).read_bytes()
    assert found.meta["passes"] == expected.meta["passes"]


def test_post_processing_starts_from_a_checkpoint_with_a_fresh_optimiser(filled, store, tmp_path):
    shutil.copytree(filled.folder(SMALL), tmp_path / "net")
    task = replace(TASK, steps=3, init=Checkpoint.of(tmp_path / "net"), optimiser=Adam(lr=1e-3))
    result = run(task, store, FAST)
    start = load_file(tmp_path / "net" / "model.safetensors")
    assert same(weights(result), by_hand(task, DATA.load("train"), start)[0])
    assert not same(weights(result), start)
    assert [type(node).__name__ for node in order(task)] == ["Checkpoint", "Train"]


# ------------------------------------------------------------------------------------------------------ teachers


def test_a_teacher_is_trained_first_by_the_same_schedule_at_the_same_temperature(store):
    teacher = replace(TASK, defence=Standard(temperature=5))
    assert DISTILLED.defence == Distillation(temperature=5, teacher=teacher)
    assert [step.task for step in plan(DISTILLED, store)] == [teacher, DISTILLED]
    named = replace(TASK, defence=Distillation(temperature=5, teacher=teacher))
    assert digest(named) == digest(DISTILLED)
    assert from_dict(to_dict(DISTILLED)) == DISTILLED
    other = replace(TASK, defence=Distillation(temperature=5, teacher=replace(teacher, seed=1)))
    assert digest(other) != digest(DISTILLED)
    assert order(other)[0].seed == 1


@pytest.mark.parametrize("outer", [Sum, Phases])
def test_teachers_are_named_at_any_depth(outer):
    until = {"until": (0.5,)} if outer is Phases else {"weights": (0.5, 0.5)}
    inner = outer(defences=(DoubleBackprop(weight=0.1), Distillation(temperature=7)), **until)
    task = replace(TASK, defence=inner)
    assert order(task) == [replace(TASK, defence=Standard(temperature=7)), task]


def test_the_student_learns_from_the_teacher_and_is_used_at_temperature_one(store):
    result = run(DISTILLED, store, FAST)
    teacher = load_classifier(store.folder(replace(TASK, defence=Standard(temperature=5))))
    expected, history = by_hand(DISTILLED, DATA.load("train"), networks=lambda task: teacher)
    assert same(weights(result), expected)
    student, split = load_classifier(result.folder), DATA.load("validation")
    loss = float(cross_entropy(student(split.images()), split.labels))  # without a temperature
    said = json.loads((result.folder / "history.json").read_text())
    assert said == history
    assert said[-1]["validation_cross_entropy"] == pytest.approx(loss, rel=1e-5)
    x, y = DATA.load("train").images(slice(20)), DATA.load("train").labels[:20]
    soft = Standard(temperature=5)(student, x, y)["cross_entropy"]
    assert soft.item() == pytest.approx(float(cross_entropy(student(x).detach() / 5, y)), rel=1e-5)
    assert soft.item() != pytest.approx(float(cross_entropy(student(x).detach(), y)), rel=1e-3)


# -------------------------------------------------------------------------------------- images without labels


def test_images_without_labels_are_used_and_recorded_beside_the_others(store, tmp_path, monkeypatch):
    task = replace(TASK, defence=MAPS, unlabelled=Digits(train=90), batch_size=10)
    result = run(task, store, FAST)
    without = by_hand(task, DATA.load("train"))[0]
    assert same(weights(result), by_hand(task, DATA.load("train"), unlabelled=Digits(train=90).load("train"))[0])
    assert not same(weights(result), without)
    data = result.meta["data"]
    assert {part: used["images"] for part, used in data.items()} == {"train": 60, "validation": 20, "unlabelled": 90}
    assert data["train"]["sha256"] == DATA.load("train").sha256
    assert data["unlabelled"]["sha256"] == Digits(train=90).load("train").sha256

    def change(spec, split):
        return replace(split, labels=9 - split.labels) if spec.train == 90 else split

    loading(monkeypatch, change)
    again = run(task, type(store)(tmp_path / "other labels"), FAST)
    assert same(weights(again), weights(result))


def test_images_without_labels_of_another_shape_are_refused(store, monkeypatch):
    def change(spec, split):
        return replace(split, pixels=split.pixels[..., :20, :20]) if spec.train == 90 else split

    loading(monkeypatch, change)
    with pytest.raises(DataError, match=r"are \(1, 20, 20\), those with labels \(1, 28, 28\)"):
        run(replace(TASK, defence=MAPS, unlabelled=Digits(train=90)), store, FAST)


def test_a_network_that_standardises_each_image_is_not_the_start_of_one_that_does_not(store):
    """Their weights look alike."""
    other = replace(TASK, model=PerImage(network=TASK.model), steps=1)
    for start, then in ((TASK, other), (other, TASK)):
        with pytest.raises(CheckpointError, match="standardises each image"):
            run(replace(then, init=replace(start, steps=1)), store, FAST)


# ---------------------------------------------------------------------------------- as accurate as another network


def test_a_network_may_stop_where_another_one_stands(store):
    """The shorter training is the target: the longer one stops at the first log that is as accurate."""
    short = replace(TASK, steps=12, log_every=4)
    target = kept_row(run(short, store, FAST))["validation_accuracy"]
    like = replace(TASK, steps=40, log_every=1, optimiser=Adam(lr=2e-3), stop=TargetAccuracy(like=short))
    found = run(like, store, FAST)
    given = replace(like, stop=TargetAccuracy(accuracy=target))
    assert found.json("history.json") == run(given, store, FAST).json("history.json")
    assert found.json("history.json")[-1]["validation_accuracy"] >= target
    assert len(found.json("history.json")) < 40
    assert f"the target {target:.4g} is reached" in found.json("card.json")["training"]["schedule"]["stopped"]


# ------------------------------------------------------------------------------------------ rehearsals, refusals


@pytest.mark.parametrize(
    "given",
    [
        {"unlabelled": Digits(train=90), "defence": MAPS},
        {"defence": Distillation(temperature=5)},
        {"stop": TargetAccuracy(accuracy=0.0), "keep": "validation_accuracy", "watch": FGSM(eps=0.1)},
        {"average": SWA(), "augmentation": CropAndFlip(), "accumulate": 2, "images": 30},
    ],
    ids=["unlabelled", "teacher", "stop", "average"],
)
def test_a_rehearsal_takes_six_steps_and_leaves_nothing(store, given):
    """Also where the rule would stop at once, and before the teacher is trained."""
    assert rehearse(replace(TASK, steps=10**6, **given), store, FAST).seconds > 0
    assert not store.root.exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"keep": "attacked_accuracy"}, "needs watch, an attack such as pgd, to keep or stop by accuracy under attack"),
        ({"keep": "attacked_training_accuracy"}, "needs watch"),
        (
            {"stop": "sudden_overfitting"},
            "needs watch, an attack such as pgd, to keep or stop by accuracy under attack",
        ),
        ({"stop": Patience(metric="attacked_accuracy")}, "needs watch"),
        ({"average": SWA(), "keep": "validation_accuracy"}, r"take the mean of its end \(swa\) as well; ema can be"),
        ({"average": SWA(), "stop": Patience()}, r"cannot choose the best network of a run by keep or stop"),
        ({"steps": None}, "exactly one of steps and epochs"),
        ({"epochs": 1}, "exactly one of steps and epochs"),
        ({"precision": "float16"}, "precision: should be 'float32' or 'bfloat16'"),
        ({"accumulate": 0}, "accumulate"),
        ({"images": 0}, "images"),
        ({"stop": "fgsm"}, "there is no stop called 'fgsm'"),
        (
            {"stop": TargetAccuracy(like=Checkpoint(sha256="0" * 128))},
            "like must be a training",
        ),
        ({"average": Adam()}, "average"),
        ({"augmentation": "rotate"}, "there is no augmentation called 'rotate'"),
        ({"init": FGSM(eps=0.1)}, "one of these is needed"),
        ({"compiled": "perhaps"}, "compiled"),
    ],
)
def test_trainings_that_make_no_sense_are_refused(given, said):
    with pytest.raises(SpecError, match=said):
        replace(TASK, **given)


@pytest.mark.parametrize(
    "given",
    [
        {"keep": "attacked_accuracy", "watch": FGSM(eps=0.1)},
        {"stop": "sudden_overfitting", "watch": FGSM(eps=0.1)},
        {"average": SWA(), "keep": "last"},
        {"average": EMA(), "keep": "validation_accuracy", "stop": Patience()},
        {"average": {"average": "ema", "decay": 0.9}, "augmentation": "flip", "watch": {"attack": "fgsm", "eps": 0.1}},
    ],
)
def test_trainings_that_make_sense_are_not(given):
    task = replace(TASK, **given)
    assert from_dict(json.loads(json.dumps(to_dict(task)))) == task


@pytest.mark.parametrize(("kept", "step"), [(None, 30), (20, 20)])
def test_the_figures_of_a_training_are_those_of_the_network_it_kept(kept, step):
    stored = {
        "history.json": [{"step": number, "validation_accuracy": number / 100} for number in (10, 20, 30)],
        "card.json": {"training": {"schedule": {"kept": kept}}},
    }
    assert kept_row(SimpleNamespace(json=stored.get))["step"] == step
