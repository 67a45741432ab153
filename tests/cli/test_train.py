"""pellucid train: one digest through every door, going on after an interruption, figures, cards, what is refused."""

import functools
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import pellucid.tasks
from pellucid import train as loop
from pellucid.attacks import FGSM, PGD
from pellucid.averaging import EMA
from pellucid.cli import main
from pellucid.data import CropAndFlip, Digits, Glyphs
from pellucid.defences import (
    TRADES,
    AdversarialTraining,
    Distillation,
    InterpretabilityAware,
    JacobianRegularization,
    Standard,
)
from pellucid.errors import PellucidError
from pellucid.metrics import predict
from pellucid.models import SmallCNN, load_classifier
from pellucid.optimisers import SGD, Adam
from pellucid.schedule import Cosine, Ramp
from pellucid.spec import digest, presets, to_dict
from pellucid.stopping import Patience
from pellucid.store import Store
from pellucid.tasks import Checkpoint, Train
from pellucid.tasks.graph import order

from .conftest import SMALL

HAVE = ("train", *SMALL, "--model", "small_cnn", "model.filters=3,4,5", "--batch-size", "20", "--quiet")
SHORT = (*HAVE, "--steps", "6", "log_every=2")
BASE = Train(
    data=Digits(train=60, validation=20, test=20),
    model=SmallCNN(filters=(3, 4, 5)),
    batch_size=20,
    steps=6,
    log_every=2,
)
FULL = replace(
    BASE,
    defence=TRADES(weight=0.5, attack=PGD(eps=0.1, steps=2, step_size=0.05), eps=Ramp(start=0.02, stop=0.1, until=0.5)),
    optimiser=Adam(lr=0.01, schedule=Cosine(warmup=0.25)),
    seed=3,
    shuffle=False,
    images=50,
    unlabelled=Glyphs(train=30),
    augmentation=CropAndFlip(padding=2),
    average=EMA(decay=0.5),
    precision="bfloat16",
    accumulate=2,
    watch=PGD(eps=0.05, steps=1),
    stop=Patience(metric="attacked_accuracy", logs=5),
    keep="validation_accuracy",
)
FULL_WORDS = (
    *SHORT, "--defence", "trades", "weight=1/2", "attack=pgd", "attack.eps=0.1", "attack.steps=2",
    "defence.attack.step_size=0.05", "eps=linear", "eps.start=0.02", "eps.stop=0.1", "eps.until=0.5",
    "--optimiser", "adam", "optimiser.lr=1e-2", "optimiser.schedule=cosine", "optimiser.schedule.warmup=0.25",
    "--seed", "3", "shuffle=no", "images=50", "--unlabelled", "glyphs", "unlabelled.train=30",
    "--augmentation", "crop_and_flip", "augmentation.padding=2", "--average", "ema", "average.decay=0.5",
    "precision=bfloat16", "accumulate=2", "--watch", "pgd", "watch.eps=0.05", "watch.steps=1",
    "--stop", "patience", "stop.metric=attacked_accuracy", "stop.logs=5", "--keep", "validation_accuracy",
)  # fmt: skip
FULL_YAML = """
data: {data: digits, train: 60, validation: 20, test: 20}
model: {model: small_cnn, filters: [3, 4, 5]}
defence:
  defence: trades
  weight: 0.5
  attack: pgd eps=0.1 steps=2 step_size=0.05
  eps: {ramp: linear, start: 0.02, stop: 0.1, until: 0.5}
optimiser: {optimiser: adam, lr: 1e-2, schedule: {schedule: cosine, warmup: 0.25}}
batch_size: 20
steps: 6
log_every: 2
seed: 3
shuffle: no
images: 50
unlabelled: {data: glyphs, train: 30}
augmentation: {augmentation: crop_and_flip, padding: 2}
average: ema decay=0.5
precision: bfloat16
accumulate: 2
watch: pgd eps=0.05 steps=1
stop: {stop: patience, metric: attacked_accuracy, logs: 5}
keep: validation_accuracy
"""
STUDENT = replace(BASE, defence=Distillation(temperature=5))
STUDENT_WORDS = (*SHORT, "--defence", "distillation", "temperature=5")


@pytest.fixture
def described(say, monkeypatch):
    """Return the task that a command describes, which is not run."""
    asked = []

    def hear(task, *_):
        asked.append(task)
        raise PellucidError("heard")

    def describe(*words):
        with monkeypatch.context() as patch:
            patch.setattr(pellucid.tasks, "run", hear)
            spoken = say(*words)
        assert spoken.err.splitlines()[-1] == "pellucid: heard"
        return asked.pop()

    return describe


@pytest.fixture(scope="module")
def full(tmp_path_factory, one_thread):
    """A finished training with everything: (words that name the store, folder of the copy)."""
    folder = tmp_path_factory.mktemp("full")
    stored = ("--store", str(folder / "store"))
    assert main([*FULL_WORDS, *stored, "--out", str(folder / "net")]) == 0
    return stored, folder / "net"


# ------------------------------------------------------------------------------------------------------ doors


def test_one_digest_through_every_door(say, described, full, place):
    stored, _ = full
    told = say(*FULL_WORDS, *stored, "--json").json()
    assert told["digest"] == digest(FULL)
    assert described(*FULL_WORDS) == FULL
    assert pellucid.tasks.run(FULL, Store(stored[1])).folder == Store(stored[1]).folder(FULL)  # which is read
    (place / "run.yaml").write_text(FULL_YAML)
    (place / "run.json").write_text(json.dumps(to_dict(FULL)))
    for name in ("run.yaml", "run.json"):
        assert say("train", "--spec", name, *stored, "--json", "--quiet").json() == told
    overridden = described("train", "--spec", "run.json", "--keep", "last", "images=none", "stop.logs=2", "weight=2")
    assert overridden == replace(
        FULL, keep="last", images=None, stop=replace(FULL.stop, logs=2), defence=replace(FULL.defence, weight=2)
    )


def test_what_was_described_is_what_was_done(say, full):
    stored, folder = full
    meta = say(*FULL_WORDS, *stored, "--json").json()["meta"]
    assert meta["task"] == to_dict(FULL)
    history = json.loads((folder / "history.json").read_text())
    assert [row["step"] for row in history] == [2, 4, 6]
    assert {"divergence", "attacked_accuracy", "attacked_training_accuracy"} <= history[0].keys()
    rates = [row["learning_rate"] / 0.01 for row in history]  # of steps 1, 3 and 5 of 6
    assert rates == pytest.approx(
        [(1 / 6) / 0.25, *((1 + math.cos(math.pi * (step / 6 - 0.25) / 0.75)) / 2 for step in (3, 5))]
    )


PGD_ONE_TENTH = ("attack=pgd", "attack.eps=0.1")


@pytest.mark.parametrize(
    ("words", "spelled", "task"),
    [
        (
            ("--defence", "int", *PGD_ONE_TENTH),
            ("--defence", "interpretability_aware", *PGD_ONE_TENTH),
            replace(BASE, defence=InterpretabilityAware(attack=PGD(eps=0.1))),
        ),
        (
            ("--defence", "int2_adv", "weight=0.02"),
            ("--defence", "interpretability_aware", "inner=cross_entropy", "adversarial=yes", "weight=1/50"),
            replace(BASE, defence=InterpretabilityAware(weight=0.02, inner="cross_entropy", adversarial=True)),
        ),
        (
            ("--defence", "pgd_training", "share=0.5"),
            ("--defence", "adversarial_training", "attack=pgd", "attack.eps=0.3", "attack.step_size=0.01", "share=.5"),
            replace(BASE, defence=AdversarialTraining(attack=PGD(eps=0.3, steps=40, step_size=0.01), share=0.5)),
        ),
        (
            ("--augmentation", "flip"),
            ("--augmentation", "crop_and_flip", "augmentation.padding=0"),
            replace(BASE, augmentation=CropAndFlip(padding=0)),
        ),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else None,
)  # fmt: skip
def test_a_preset_is_what_it_stands_for(described, words, spelled, task):
    assert digest(described(*SHORT, *words)) == digest(described(*SHORT, *spelled)) == digest(task)


def test_a_field_of_the_defence_comes_before_one_of_training(described):
    task = described(*SHORT, "--optimiser", "sgd", "optimiser.momentum=0.9", "--defence", "standard temperature=2")
    assert task == replace(BASE, optimiser=SGD(lr=task.optimiser.lr, momentum=0.9), defence=Standard(temperature=2))
    shared = described(*SHORT, "--defence", "jacobian_regularization", "weight=1", "examples=0.5", "images=40")
    assert shared == replace(BASE, defence=JacobianRegularization(weight=1, examples=0.5), images=40)


# ----------------------------------------------------------------------------------------------------- resume


@pytest.fixture
def interrupted(say, monkeypatch):
    """Run a command that is interrupted after so many steps; checkpoints are written after every step.

    The last step is logged, and not in the checkpoint yet. Returns the steps that were taken, counted from 0.
    """
    monkeypatch.setattr(pellucid.tasks, "Options", functools.partial(pellucid.tasks.Options, checkpoint_seconds=0.0))
    plain = loop.Loop._step

    def run(*words, after=None):
        taken = []

        def step(self, stop):
            taken.append(self.position.step)
            loss = plain(self, stop)
            if len(taken) == after:
                raise KeyboardInterrupt
            return loss

        with monkeypatch.context() as patch:
            patch.setattr(loop.Loop, "_step", step)
            spoken = say(*words)
        assert spoken.code == (0 if after is None else 130), spoken.err
        return taken, spoken

    return run


def result(spoken):
    """Return the weights and the history that a command printed the folder of."""
    folder = Path(spoken.out.splitlines()[-1])
    return load_file(folder / "model.safetensors"), json.loads((folder / "history.json").read_text())


def same(spoken, other):
    (weights, history), (expected, told) = result(spoken), result(other)
    assert weights.keys() == expected.keys()
    return history == told and all(torch.equal(value, expected[name]) for name, value in weights.items())


def test_resume_goes_on_with_the_last_one_and_ends_with_the_same_bits(say, interrupted):
    first, second = (*SHORT, "--average", "ema", "optimiser.lr=0.01"), (*SHORT, "--seed", "1", "--keep", "last")
    assert interrupted(*first, after=4)[0] == [0, 1, 2, 3]
    assert interrupted(*second, after=2)[0] == [0, 1]
    assert interrupted(*first, after=1)[0] == [3]  # taken up once more: it is the last one now
    taken, ended = interrupted("train", "--resume", "--quiet", "--out", "net")
    assert taken == [3, 4, 5]
    assert same(ended, say(*first, "--store", "undisturbed"))
    taken, ended = interrupted("train", "--resume", "--quiet")
    assert taken == [1, 2, 3, 4, 5]
    assert same(ended, say(*second, "--store", "undisturbed"))
    spoken = say("train", "--resume")
    assert (spoken.code, spoken.out) == (2, "")
    assert re.fullmatch(r"pellucid: there is no interrupted training in \S+; describe one .*\n", spoken.err)


def test_resume_with_a_description(say, interrupted):
    interrupted(*SHORT, after=3)
    interrupted(*SHORT, "--seed", "1", after=2)
    taken, ended = interrupted(*SHORT, "--resume")
    assert taken == [2, 3, 4, 5]
    assert same(ended, say(*SHORT, "--store", "undisturbed"))
    taken, again = interrupted(*SHORT, "--resume")
    assert (taken, again.out) == ([], ended.out)


def test_a_teacher_that_was_interrupted_goes_on_to_its_student(say, interrupted):
    undisturbed = say(*STUDENT_WORDS, "--store", "undisturbed")
    for store, words in (("one", ("train", "--quiet")), ("two", STUDENT_WORDS)):
        assert interrupted(*STUDENT_WORDS, "--store", store, after=3)[0] == [0, 1, 2]
        taken, ended = interrupted(*words, "--resume", "--store", store)
        assert taken == [2, 3, 4, 5, 0, 1, 2, 3, 4, 5]  # the teacher's, then the student's
        assert same(ended, undisturbed)


def test_what_another_process_works_on_is_not_resumed(say, described, interrupted):
    interrupted(*SHORT, after=2)
    interrupted(*SHORT, "--seed", "1", after=2)
    store = Store("artifacts")
    assert described("train", "--resume") == replace(BASE, seed=1)
    with store.claim(replace(BASE, seed=1)):
        assert described("train", "--resume") == BASE
        with store.claim(BASE):
            assert "there is no interrupted training in " in say("train", "--resume").err


def test_networks_of_a_sweep_are_no_trainings_of_their_own(say, interrupted):
    interrupted("sweep", *SHORT[1:-1], "--along", "seed", "--values", "0,1", after=2)
    assert "there is no interrupted training in" in say("train", "--resume").err


def everything(folder):
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_nothing_is_begun_by_resume(refused, interrupted, place):
    assert "there is no interrupted training in " in refused("train", "--resume")
    assert "nothing of this training is in " in refused(*SHORT, "--resume")
    assert "nothing of this training is in " in refused(*STUDENT_WORDS, "--resume")
    assert not (place / "artifacts").exists()
    interrupted(*SHORT, after=2)
    before = everything(place)
    assert "to resume; leave --resume out to begin it" in refused(*SHORT, "--seed", "1", "--resume")
    assert "nothing of this training is in " in refused(*STUDENT_WORDS, "--resume")
    assert everything(place) == before


# ------------------------------------------------------------------------------------------------ tensorboard


def shown(folder, purge=True):
    """Return {tag: [(step, value)]} as TensorBoard shows a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}, purge_orphaned_data=purge)
    events.Reload()
    return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def curves(history):
    """Return the same of a history, at the precision of TensorBoard's files."""
    single = {name: [(row["step"], torch.tensor(row[name]).item()) for row in history] for name in history[0]}
    del single["step"]
    return single


def test_tensorboard_has_the_logged_figures_and_no_step_twice(interrupted):
    pytest.importorskip("tensorboard", reason="tensorboard is an extra: pip install 'pellucid[tracking]'")
    words = ("--watch", "fgsm", "watch.eps=0.1", "--keep", "attacked_accuracy")
    task = replace(BASE, watch=FGSM(eps=0.1), keep="attacked_accuracy")
    folder = f"boards/small_cnn-{digest(task)[:12]}"
    _, whole = interrupted(*SHORT, *words, "--tensorboard", "boards", "--store", "undisturbed")
    assert shown(folder) == curves(result(whole)[1])
    interrupted(*SHORT, *words, "--tensorboard", "again/boards", after=4)  # step 4 is logged, the checkpoint is of 3
    interrupted("train", "--resume", "--quiet", "--tensorboard", "again/boards")
    assert shown(f"again/{folder}") == shown(folder)
    twice = [step for step, _ in shown(f"again/{folder}", purge=False)["attacked_accuracy"]]
    assert sorted(twice) == [2, 4, 4, 6]  # so it was written again, and marked


def test_teacher_and_student_have_curves_of_their_own(interrupted, place):
    pytest.importorskip("tensorboard", reason="tensorboard is an extra: pip install 'pellucid[tracking]'")
    interrupted(*STUDENT_WORDS, "--tensorboard", "boards")
    for task in order(STUDENT):
        assert shown(place / "boards" / f"small_cnn-{digest(task)[:12]}")["cross_entropy"]
    assert len(list((place / "boards").iterdir())) == 2


def test_without_tensorboard_it_is_said_before_any_work(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    said = refused(*SHORT, "--tensorboard", "boards")
    assert said == "pellucid: tensorboard is not installed: pip install 'pellucid[tracking]'"


# ------------------------------------------------------------------------------------------------------ cards


@pytest.fixture
def watched(say, place):
    """A training of which the card is looked at: (its folder in the store, the folder of --out, its description)."""
    words = ("--defence", "double_backprop", "weight=0.5", "images=50", "optimiser.lr=0.01", "--watch", "fgsm")
    told = say(*SHORT, *words, "watch.eps=0.1", "--keep", "attacked_accuracy", "--out", "net", "--json").json()
    return place / "artifacts" / "train" / told["digest"], place / "net", told["meta"]["task"]


def test_a_card_is_beside_the_weights_and_copied_with_them(watched):
    stored, out, _ = watched
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "card.json", "config.json", "history.json", "model.safetensors"
    ]  # fmt: skip
    for path in out.iterdir():
        assert path.read_bytes() == (stored / path.name).read_bytes()


def test_a_card_names_defence_data_and_figures_with_what_they_were_measured_on(watched):
    _, out, task = watched
    card, page = json.loads((out / "card.json").read_text()), (out / "README.md").read_text()
    assert card["defence"] == task["defence"]
    assert "| defence | double_backprop weight=0.5" in page
    train = BASE.data.load("train")
    assert (card["data"]["train"]["sha256"], card["data"]["train"]["cut"]) == (train.sha256, train.cut)
    assert f"train: digits, 60 images, {train.cut} (sha256 {train.sha256})" in page
    assert "| training, images | 50 |" in page
    entries = {(entry["part"], entry["attack"] and entry["attack"]["attack"]): entry for entry in card["measured"]}
    network, validation = load_classifier(out), BASE.data.load("validation")
    x, y = validation.images(), validation.labels
    clean = float((predict(network, x) == y).float().mean())
    attacked = float((predict(network, FGSM(eps=0.1)(network, x, y)) == y).float().mean())
    assert entries["validation", None]["figures"]["validation_accuracy"] == pytest.approx(clean)
    assert entries["validation", "fgsm"]["figures"] == {"attacked_accuracy": pytest.approx(attacked)}
    assert entries["validation", "fgsm"]["attack"]["eps"] == 0.1
    history = json.loads((out / "history.json").read_text())
    kept = max(history, key=lambda row: row["attacked_accuracy"])
    figures = {name: value for entry in card["measured"] for name, value in entry["figures"].items()}
    assert figures == {name: value for name, value in kept.items() if name not in ("step", "learning_rate")}
    on = f"the first 20 validation images, after step {kept['step']}"
    assert entries["validation", "fgsm"]["on"] == on
    assert f"| attacked_accuracy | {attacked:.4g} | {on} | fgsm eps=0.1 " in page


def test_a_mean_of_networks_has_the_figures_of_another_and_says_so(say, place):
    say(*SHORT, "--average", "swa", "average.begin=0.5", "average.every=1", "--out", "net")
    card = json.loads((place / "net" / "card.json").read_text())
    assert {entry["of"] for entry in card["measured"]} == {"the network in training, before its weights were averaged"}


SCRIPT = """
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

assert isinstance(net, nn.Module) and not net.training
assert scores.shape == (1, 10)
data = TensorDataset(torch.rand(12, 1, 28, 28), torch.arange(12) % 10)
moves = torch.optim.SGD(net.train().parameters(), lr=0.1)
before = [weights.clone() for weights in net.parameters()]
for x, y in DataLoader(data, batch_size=6):
    moves.zero_grad()
    nn.functional.cross_entropy(net(x), y).backward()
    moves.step()
assert all((old != new).any() for old, new in zip(before, net.parameters()))
net = load_classifier(FOLDER)
torch.manual_seed(0)
print([round(float(score), 4) for score in net(torch.rand(1, 1, 28, 28))[0]])
"""


def test_the_code_of_a_card_runs_and_the_network_is_one_of_plain_pytorch(full, place):
    _, folder = full
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    script = code + SCRIPT.replace("FOLDER", repr(str(folder)))
    ran = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    network = load_classifier(folder)
    torch.manual_seed(0)
    expected = network(torch.rand(1, 1, 28, 28))[0].tolist()
    assert json.loads(ran.stdout) == pytest.approx(expected, abs=1e-4)


# --------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--defence", "intt"), "there is no defence called 'intt'; known: adversarial_training, "),
        (("--defence", "intt"), " ig_sum_norm, int, int2, int2_adv, int_adv, int_one_class, "),
        (("--augmentation", "turn"), "there is no augmentation called 'turn'; known: crop_and_flip, flip, random_crop"),
        (("--average", "mean"), "there is no average called 'mean'; known: ema, swa"),
        (("--stop", "now"), "no stop called 'now'; known: patience, sudden_overfitting, target_accuracy"),
        (("optimiser.schedule=steps",), "no schedule called 'steps'; known: cosine, one_cycle, step_decay"),
        (("--keep", "attacked_accuracy"), "needs watch, an attack such as pgd, to keep or stop by accuracy under"),
        (("--stop", "sudden_overfitting"), "needs watch, an attack such as pgd, to keep or stop by accuracy under"),
        (("--average", "swa", "--keep", "validation_accuracy"), "the mean of its end (swa) as well; ema can be"),
        (("--average", "swa", "--stop", "patience"), "the mean of its end (swa) as well; ema can be"),
        (("colour=red",), "defence standard has no field 'colour'; its fields are temperature"),
        (("optimiser.colour=red",), "optimiser adam has no field 'colour'"),
        (("--watch", "fgsm", "watch.eps=0.1", "watch.colour=red"), "attack fgsm has no field 'colour'"),
        (("precision=float16",), "task train.precision: should be 'float32' or 'bfloat16' (got 'float16')"),
        (("accumulate=0",), "task train.accumulate: should be greater than or equal to 1 (got '0')"),
        (("images=0",), "task train.images: should be greater than or equal to 1 (got '0')"),
        (("--stop", "target_accuracy", "stop.accuracy=2"), "accuracy: should be less than or equal to 1 (got '2')"),
        (("--stop", "target_accuracy"), "stop target_accuracy needs accuracy"),
        (("--watch", "pgd"), "task train.watch: attack pgd needs eps"),
        # a flag is not given by a word, nor a field of what is not there
        (("steps=3",), "'steps=3' has a flag; name it by --steps 3"),
        (("batch_size=3",), "'batch_size=3' has a flag; name it by --batch-size 3"),
        (("watch=fgsm", "watch.eps=0.1"), "'watch=fgsm' has a flag; name it by --watch fgsm"),
        (("init=net",), "'init=net' has a flag; name it by --init net"),
        (("stop.accuracy=0.9",), "'stop.accuracy=0.9' belongs to nothing that is there; name it by --stop NAME"),
        (("accumulate=2", "accumulate=3"), "'accumulate' is given twice"),
        (("accumulate=",), "'accumulate=' is not a field; write key=value"),
        # what is only seen when it is opened
        (("--unlabelled", "glyphs", "unlabelled.side=20", "unlabelled.train=30"),
         "the images without labels, of glyphs, are (1, 20, 20), those with labels (1, 28, 28)"),
        (("--defence", "distillation", "teacher=ema"), "there is no task called 'ema'; known: "),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, tuple) else None,
)  # fmt: skip
def test_refused(refused, words, said):
    assert said in refused(*SHORT, *words)


def test_a_network_to_start_from_that_is_another(refused, trained):
    other = [word.replace("3,4,5", "3,4,6") for word in SHORT]
    assert "the network to start from (checkpoint) is of another network: " in refused(*other, "--init", trained)
    assert "no defence called 'fgsm'" in refused(*SHORT, "--init", trained, "--defence", "fgsm")


def test_a_teacher_that_is_no_network(refused, trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("spec") / "run.json"
    checkpoint = to_dict(Checkpoint.of(trained))
    teacher = {"task": "evaluate", "data": "digits", "network": checkpoint}
    path.write_text(json.dumps({"defence": {"defence": "distillation", "teacher": teacher}}))
    said = "task train.defence: as a teacher a task that makes a network is needed (train, checkpoint, "
    assert said in refused(*SHORT, "--spec", path)
    inside = {"defence": "sum", "defences": ["standard", {"defence": "distilled_label_penalty", "weight": 1}]}
    inside["defences"][1]["teacher"] = teacher
    path.write_text(json.dumps({"defence": inside}))
    assert said in refused(*SHORT, "--spec", path)


# ------------------------------------------------------------------------------------------------- list, help


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("defence", ("trades", "jacobian_regularization", "int", "int2_adv", "pgd_training")),
        ("stop", ("patience", "sudden_overfitting", "target_accuracy")),
        ("schedule", ("cosine", "one_cycle", "step_decay")),
        ("average", ("ema", "swa")),
        ("augmentation", ("crop_and_flip", "flip", "random_crop")),
        ("task", ("train",)),
    ],
)
def test_list_has_the_parts_of_a_training(say, kind, found):
    rows = {row["name"]: row for row in say("list", kind, "--json").json()[kind]}
    assert rows.keys() >= {*found, *presets(kind)}
    spoken = say("list", kind)
    for name in found:
        assert f"\n  {name}\n    {rows[name]['summary'][:150]}" in spoken.out


def test_list_task_train_says_what_every_field_is(say):
    spoken = say("list", "task", "train")
    documentation = " ".join(spoken.out.partition("\n\n")[2].split())
    named = ("images", "init", "augmentation", "average", "precision=bfloat16", "accumulate", "watch", "stop", "keep",
             "unlabelled")  # fmt: skip
    for name in named:
        assert re.search(rf"[ `.(]{name}[ `]", documentation), name
    fields = {row["name"]: row.get("default") for row in say("list", "task", "train", "--json").json()["fields"]}
    assert fields["batch_size"] == 256
    assert fields["precision"] == "float32"


def test_list_of_a_preset_shows_what_it_stands_for(say):
    told = say("list", "defence", "int2", "--json").json()
    assert told["documentation"].startswith("A name for interpretability_aware inner=cross_entropy.\n\n")
    assert told["documentation"].endswith(
        say("list", "defence", "interpretability_aware", "--json").json()["documentation"]
    )
    values = {row["name"]: row["default"] for row in told["fields"]}
    assert (values["inner"], values["weight"]) == ("cross_entropy", 0.01)  # those of the preset, not of the class
    assert say("list", "augmentation", "flip").out.startswith(
        "augmentation flip(padding=0, flip=True)\n\nA name for crop_and_flip padding=0.\n\n"
    )
    spoken = say("list", "defence", "int")
    assert "\n\nA name for interpretability_aware.\n\nCross-entropy, and how far the maps" in spoken.out
    assert "Source: Boopathy et al. 2020" in spoken.out


def test_help_is_readable_at_eighty_columns():
    """In a process of its own: the width is read once."""
    from pellucid.cli.train import train

    words = [sys.executable, "-m", "pellucid", "train", "--help"]
    lines = subprocess.run(
        words, env=os.environ | {"COLUMNS": "80"}, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    paragraph = [line.strip() for line in train.__doc__.split("\n\n")[1].splitlines()]
    assert [line for line in paragraph if line and line not in (shown.strip() for shown in lines)] == []
    flags = ("defence", "optimiser", "init", "unlabelled", "augmentation", "average", "watch", "stop", "keep", "resume",
             "tensorboard", "spec", "out")  # fmt: skip
    for flag in flags:
        assert any(re.match(rf"│ --{flag} +([A-Z]+ +)?[A-Z]\w+ .*│$", line) for line in lines), flag


# ---------------------------------------------------------------------------------- networks made from networks


def jacobian_norm(network, x):
    """Return the mean Frobenius norm of the logits' derivatives, one class after the other."""
    x = x.clone().requires_grad_(True)
    slopes = [torch.autograd.grad(logit.sum(), x, retain_graph=True)[0] for logit in network(x).unbind(1)]
    return float(torch.stack(slopes, 1).flatten(1).norm(dim=1).mean())


def test_post_processing_goes_on_from_a_network(say, trained):
    words = ("--defence", "jacobian_regularization", "weight=0.1", "normalisation=mean", "optimiser.lr=0.003")
    told = say(*HAVE, "--steps", "30", "--init", trained, *words, "--json").json()
    task = told["meta"]["task"]
    assert task["init"]["task"] == "checkpoint"
    assert task["init"]["sha256"] == Checkpoint.of(trained).sha256
    x = BASE.data.load("train").images()
    before, after = load_classifier(trained), load_classifier(told["checkpoint"])
    norms = [jacobian_norm(network, x) for network in (before, after)]
    assert norms[1] < 0.9 * norms[0]
    y = BASE.data.load("train").labels
    accuracies = [float((predict(network, x) == y).float().mean()) for network in (before, after)]
    assert accuracies[1] > accuracies[0] - 0.05  # a network from nothing is far worse after as many steps
    card = json.loads(Path(told["checkpoint"], "card.json").read_text())
    assert card["training"]["schedule"]["init"] == trained.name


def test_distillation_trains_its_teacher_first(say, place):
    spoken = say(*[word for word in STUDENT_WORDS if word != "--quiet"])
    assert spoken.err.splitlines()[0] == "2 tasks, 0 of them done"
    started = [line for line in spoken.err.splitlines() if line.startswith("start")]
    assert ["distillation" in line for line in started] == [False, True]
    teacher = replace(BASE, defence=Standard(temperature=5))
    assert [digest(task) for task in order(STUDENT)] == [digest(teacher), digest(STUDENT)]
    made = {path.name for path in (place / "artifacts" / "train").iterdir()}
    assert made == {digest(teacher), digest(STUDENT)}
    alone = say(*SHORT, "--defence", "standard", "temperature=5", "--store", "elsewhere")
    taught = place / "artifacts" / "train" / digest(teacher)
    assert result(alone)[1] == json.loads((taught / "history.json").read_text())
    assert say(*SHORT, "--defence", "standard", "temperature=5").out.splitlines()[-1] == str(taught)  # which is read
