import copy
import dataclasses
import json
import math
from dataclasses import dataclass

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from pellucid import train as loop
from pellucid.attacks import FGSM, PGD
from pellucid.averaging import EMA, SWA
from pellucid.data import CropAndFlip, Digits, RandomCrop
from pellucid.defences import (
    AdversarialTraining,
    Distillation,
    DoubleBackprop,
    InterpretabilityAware,
    SemiSupervised,
    Standard,
)
from pellucid.errors import CheckpointError, DataError, SpecError, TrainingError
from pellucid.models import Classifier, RossCNN, SmallCNN
from pellucid.optimisers import SGD, Adam, RMSProp
from pellucid.protocols import Context
from pellucid.rng import Stream, derive, global_seed
from pellucid.schedule import OneCycle
from pellucid.stopping import Patience, SuddenOverfitting, TargetAccuracy
from pellucid.train import Recipe, TrainingStep, batch_rows, fit

TRAIN, VALIDATION = Digits(train=50).load("train"), Digits(validation=30).load("validation")
ROSS = RossCNN(filters=(3, 4), hidden=12)  # with dropout and batch normalisation
SMALL = SmallCNN(filters=(3, 4, 5))  # with neither
OPTIMISER = Adam(lr=1e-2, eps=1e-4, eps_hat=True)


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


def fresh(spec=ROSS, seed=1):
    with global_seed(seed):
        return spec.build(1, (28, 28), 10)


def trained(network=None, defence=None, optimiser=OPTIMISER, train=TRAIN, **given):
    network = network or fresh()
    settings = {"steps": 12, "batch_size": 10, "seed": 5, "log_every": 3} | given
    run = fit(network, defence or Standard(), optimiser, train, VALIDATION, **settings)
    return network, run


def rows_of(split, rows):
    return dataclasses.replace(split, pixels=split.pixels[rows], labels=split.labels[rows])


def killed_at(step):
    def progress(done, total, **_):
        if done == step:
            raise Killed

    return progress


def same_weights(a, b):
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


# ------------------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize(("n", "size"), [(50, 10), (50, 8), (50, 50), (3, 10)])
def test_every_epoch_is_a_permutation_cut_into_batches(n, size):
    batches = n // min(size, n)
    orders = []
    for epoch in range(3):
        rows = torch.cat([batch_rows(n, size, epoch * batches + b, 7, True) for b in range(batches)])
        assert len(rows) == batches * min(size, n)
        assert len(rows.unique()) == len(rows)  # nobody twice
        assert rows.min() >= 0
        assert rows.max() < n
        orders.append(rows.tolist())
    if n > 3:
        assert orders[0] != orders[1] != orders[2]


def test_whole_epochs_cover_everybody_once():
    rows = torch.cat([batch_rows(50, 10, step, 7, True) for step in range(5)])
    assert rows.sort().values.tolist() == list(range(50))
    assert rows.tolist() != list(range(50))


def test_the_order_depends_on_the_seed_and_on_nothing_else():
    first = batch_rows(50, 10, 8, 7, True)
    batch_rows(50, 10, 0, 3, True)
    torch.rand(3)
    assert torch.equal(batch_rows(50, 10, 8, 7, True), first)
    assert not torch.equal(batch_rows(50, 10, 8, 6, True), first)


def test_in_order_without_shuffling():
    rows = [batch_rows(25, 10, step, 7, False).tolist() for step in range(3)]
    assert rows == [list(range(10)), list(range(10, 20)), list(range(10))]


# ------------------------------------------------------------------------------------- determinism and resume


def test_training_is_deterministic_and_depends_on_the_seed():
    first, run = trained()
    torch.rand(7)
    second, again = trained()
    other, _ = trained(seed=6)
    assert same_weights(first, second)
    assert run.history == again.history
    assert not same_weights(first, other)


def test_global_random_state_is_untouched():
    torch.manual_seed(11)
    expected = torch.rand(4)
    torch.manual_seed(11)
    trained(defence=AdversarialTraining(batches="together"), steps=2)
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize(
    "defence",
    [Standard(), DoubleBackprop(weight=0.1), AdversarialTraining()],
    ids=["standard", "double_backprop", "adversarial_training"],
)
def test_killed_in_the_middle_of_an_epoch_and_resumed_it_ends_equal_bit_for_bit(tmp_path, defence):
    """Five batches an epoch; killed at steps 3, 7 and 8: dropout, Adam's moments and running statistics go on."""
    undisturbed, whole = trained(defence=defence)
    path = tmp_path / "checkpoint.safetensors"
    for step in (3, 7, 8):
        network = fresh() if step == 3 else fresh(seed=99)  # other weights: they must come from the checkpoint
        with pytest.raises(Killed):
            trained(network, defence, checkpoint=path, checkpoint_seconds=0, progress=killed_at(step))
        with safe_open(path, framework="pt") as file:
            assert json.loads(file.metadata()["run"])["step"] == step
    network, run = trained(fresh(seed=99), defence, checkpoint=path, checkpoint_seconds=0)
    assert same_weights(network, undisturbed)
    assert run.history == whole.history
    assert run.passes == whole.passes
    assert run.step == 12
    assert not network.training


TEACHER = fresh(seed=3).eval()
UNLABELLED = rows_of(Digits(train=90).load("train"), torch.arange(50, 90))
MAPS = SemiSupervised(inner=InterpretabilityAware(attack=PGD(eps=0.1, steps=2)), labelled=0.5)
INGREDIENTS = {
    "ema": {"recipe": Recipe(average=EMA(decay=0.9))},
    "swa": {"recipe": Recipe(average=SWA(begin=0.3, every=2))},
    "adam": {"optimiser": Adam(lr=1e-2)},
    "rmsprop": {"optimiser": RMSProp(lr=1e-3, momentum=0.9)},
    "rmsprop, TensorFlow's form": {"optimiser": RMSProp(lr=1e-2, momentum=0.9, eps_inside=True)},
    "sgd with momentum": {"optimiser": SGD(lr=0.05)},
    "nesterov": {"optimiser": SGD(lr=0.05, nesterov=True)},
    "sgd without momentum": {"optimiser": SGD(lr=0.05, momentum=0)},
    "one cycle": {"optimiser": dataclasses.replace(OPTIMISER, schedule=OneCycle())},
    "augmentation": {"recipe": Recipe(augmentation=CropAndFlip(padding=2))},
    "accumulate": {"recipe": Recipe(accumulate=3)},
    "bfloat16": {"recipe": Recipe(precision="bfloat16")},
    "channels_last": {"recipe": Recipe(channels_last=True, average=EMA(decay=0.9))},
    "keep": {"recipe": Recipe(keep="validation_accuracy"), "log_every": 1},
    "keep of an average": {"recipe": Recipe(keep="training_accuracy", average=EMA(decay=0.5)), "log_every": 1},
    "stop": {"recipe": Recipe(stop=Patience(logs=2)), "optimiser": Adam(lr=0.03), "log_every": 1, "spec": SMALL},
    "watch": {"recipe": Recipe(watch=FGSM(eps=0.1)), "log_every": 1},
    "watch at random": {"recipe": Recipe(watch=PGD(eps=0.1, steps=2)), "log_every": 1},
    "unlabelled": {"recipe": Recipe(unlabelled=UNLABELLED), "defence": MAPS, "spec": SMALL},
    "distillation": {"recipe": Recipe(networks=lambda task: TEACHER), "defence": Distillation()},
}


@pytest.mark.parametrize("name", INGREDIENTS)
def test_killed_after_every_single_step_every_ingredient_goes_on_bit_for_bit(tmp_path, name):
    """Each process takes one step and dies; it starts from other weights, so everything comes from the checkpoint."""
    given = dict(INGREDIENTS[name])
    spec = given.pop("spec", ROSS)
    undisturbed, whole = trained(fresh(spec), **given)
    plain, without = trained(fresh(spec))
    assert not same_weights(undisturbed, plain) or whole.history != without.history  # it does something
    if name.startswith(("keep", "stop")):
        assert 1 < whole.kept < whole.step
    path = tmp_path / "checkpoint.safetensors"
    for step in range(1, whole.step):
        with pytest.raises(Killed):
            trained(
                fresh(spec, seed=1 if step == 1 else 99),
                checkpoint=path,
                checkpoint_seconds=0,
                progress=killed_at(step),
                **given,
            )
    for _ in range(2):  # the second time there is nothing left to do
        network, run = trained(fresh(spec, seed=99), checkpoint=path, checkpoint_seconds=0, **given)
        assert same_weights(network, undisturbed)
        assert dataclasses.replace(run, seconds=0) == dataclasses.replace(whole, seconds=0)


def test_work_since_the_last_checkpoint_is_done_again_and_counted_once(tmp_path):
    undisturbed, whole = trained()
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Killed):
        trained(checkpoint=path, checkpoint_seconds=0, progress=killed_at(4))
    kept = path.read_bytes()
    with pytest.raises(Killed):
        trained(checkpoint=path, checkpoint_seconds=1e9, progress=killed_at(9))  # no checkpoint in between
    assert path.read_bytes() == kept
    network, run = trained(fresh(seed=99), checkpoint=path)
    assert same_weights(network, undisturbed)
    assert run.passes == whole.passes


def test_a_finished_checkpoint_takes_no_further_step(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    first, run = trained(checkpoint=path, checkpoint_seconds=0)
    seen = []
    second, again = trained(fresh(seed=99), checkpoint=path, progress=lambda done, *_, **__: seen.append(done))
    assert seen == []
    assert same_weights(first, second)
    assert again.history == run.history


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x80\x04pickle", b"\x02\0\0\0\0\0\0\0{}"])
def test_a_corrupt_training_checkpoint_is_refused_by_name(tmp_path, content):
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors is corrupt or truncated"):
        trained(checkpoint=path)
    assert path.read_bytes() == content


def test_a_truncated_training_checkpoint_is_refused(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Killed):
        trained(checkpoint=path, checkpoint_seconds=0, progress=killed_at(3))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="corrupt or truncated"):
        trained(checkpoint=path)


# ---------------------------------------------------------------------------------------- what is not finite


@dataclass(frozen=True)
class Spoilt:
    """Cross-entropy with a second term that is not finite from a step on, or with such a gradient."""

    at: int
    value: float = math.nan
    where: str = "term"

    def __call__(self, model, x, y, ctx=None):
        terms = Standard()(model, x, y, ctx)
        bias = model.dense[-1].bias
        bad = self.value if ctx.step >= self.at else 1.0
        if self.where == "gradient":  # 0 * sqrt(0): the value is 0, its derivative NaN
            own = (bias[0] - bias[0].detach()).square().sqrt() * 0 if ctx.step >= self.at else bias[0] * 0
            return {**terms, "penalty": own}
        return {**terms, "penalty": bias[0] * 0 + bad}


@pytest.mark.parametrize(("value", "shown"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")])
@pytest.mark.parametrize("at", [0, 7])
def test_a_loss_that_is_not_finite_stops_with_step_and_term(tmp_path, at, value, shown):
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(TrainingError, match=f"stopped at step {at}: penalty is {shown};"):
        trained(defence=Spoilt(at, value), checkpoint=path, checkpoint_seconds=1e9)
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["run"])["step"] == at


def test_what_is_kept_is_the_network_as_it_was_before_the_bad_step(tmp_path):
    """Weights, Adam's moments and running statistics, although the forward pass of the bad step moved the last."""
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(TrainingError):
        trained(defence=Spoilt(7), checkpoint=path)
    kept = load_file(path)
    assert all(bool(torch.isfinite(v).all()) for v in kept.values())
    reference = tmp_path / "reference.safetensors"
    with pytest.raises(Killed):  # the penalty of the first steps moves nothing
        trained(checkpoint=reference, checkpoint_seconds=0, progress=killed_at(7))
    expected = load_file(reference)
    assert kept.keys() == expected.keys()
    assert [k for k, v in expected.items() if not torch.equal(kept[k], v)] == []


def test_after_the_cause_is_gone_training_goes_on_from_the_kept_network(tmp_path):
    undisturbed, _ = trained()
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(TrainingError):
        trained(defence=Spoilt(7), checkpoint=path)
    network, _ = trained(fresh(seed=99), checkpoint=path)
    assert same_weights(network, undisturbed)


def test_a_gradient_that_is_not_finite_stops_too_and_no_weight_is_moved(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    network = fresh()
    with pytest.raises(TrainingError, match="stopped at step 4: gradient of the loss is nan"):
        trained(network, Spoilt(4, where="gradient"), checkpoint=path)
    assert all(bool(torch.isfinite(v).all()) for v in network.state_dict().values())
    kept = load_file(path)
    assert all(torch.equal(v, kept[f"network.{k}"]) for k, v in network.state_dict().items())


class Leaping:
    """Plain gradient descent whose first step, at a finite gradient, leaves float32."""

    def build(self, weights):
        return torch.optim.SGD(weights, lr=3e38)

    def prepare(self, optimiser, step):
        pass


class Loud:
    def __call__(self, model, x, y, ctx=None):
        return {"cross_entropy": 1e4 * Standard()(model, x, y, ctx)["cross_entropy"]}


@pytest.mark.parametrize("seconds", [0, 1e9])
@pytest.mark.parametrize("steps", [1, 4])
def test_a_finite_step_that_makes_weights_infinite_is_undone(tmp_path, steps, seconds):
    path, network = tmp_path / "checkpoint.safetensors", fresh()
    settings = {"steps": steps, "batch_size": 10, "seed": 5, "checkpoint": path, "checkpoint_seconds": seconds}
    with pytest.raises(TrainingError, match="stopped at step 1: "):
        fit(network, Loud(), Leaping(), TRAIN, VALIDATION, **settings)
    kept = load_file(path)
    assert all(bool(torch.isfinite(v).all()) for v in kept.values())
    assert all(torch.equal(v, kept[f"network.{k}"]) for k, v in network.state_dict().items())


def test_running_statistics_that_overflow_are_not_kept(tmp_path):
    """Finite weights, but activations beyond float32: the loss is NaN and so would the statistics be."""
    network = fresh()
    with torch.no_grad():
        network.convolutions[0].weight.fill_(3e38)
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(TrainingError, match="stopped at step 0: cross_entropy is nan"):
        trained(network, checkpoint=path)
    assert all(bool(torch.isfinite(v).all()) for v in load_file(path).values())


# -------------------------------------------------------------------------------------------- what is logged


def test_history_has_the_terms_and_the_validation_figures_every_so_often():
    network, run = trained(defence=DoubleBackprop(weight=0.1), steps=8, log_every=3)
    assert [row["step"] for row in run.history] == [3, 6, 8]
    for row in run.history:
        assert row.keys() == {
            "step",
            "cross_entropy",
            "gradient_penalty",
            "learning_rate",
            "gradient_norm",
            "training_accuracy",
            "validation_accuracy",
            "validation_cross_entropy",
            "validation_squared_gradient",
            "validation_squared_gradient_others",
            "validation_squared_gradient_all",
        }
    x, y = VALIDATION.images().requires_grad_(True), VALIDATION.labels
    losses = torch.nn.functional.cross_entropy(network(x), y, reduction="none")
    (g,) = torch.autograd.grad(losses.sum(), x)
    losses = losses.detach()
    last = run.history[-1]
    assert last["validation_accuracy"] == pytest.approx(float((network(x).argmax(1) == y).float().mean()))
    assert last["validation_cross_entropy"] == pytest.approx(float(losses.mean()), rel=1e-5)
    assert last["validation_squared_gradient"] == pytest.approx(float(g.flatten(1).square().sum(1).mean()), rel=1e-4)
    batch = batch_rows(50, 10, 7, 5, True)  # that of the eighth step
    right = network(TRAIN.images(batch)).argmax(1) == TRAIN.labels[batch]
    assert last["training_accuracy"] == pytest.approx(float(right.float().mean()))


def test_with_an_attack_accuracies_under_it_are_logged_too():
    plain, without = trained(log_every=6)
    network, run = trained(log_every=6, recipe=Recipe(watch=FGSM(eps=0.1)))
    assert same_weights(plain, network)
    batch = batch_rows(50, 10, 11, 5, True)
    pairs = {
        "attacked_accuracy": (VALIDATION.images(), VALIDATION.labels),
        "attacked_training_accuracy": (TRAIN.images(batch), TRAIN.labels[batch]),
    }
    for name, (x, y) in pairs.items():
        moved = FGSM(eps=0.1)(network, x, y)
        assert run.history[-1][name] == pytest.approx(float((network(moved).argmax(1) == y).float().mean()))
    assert [{k: v for k, v in row.items() if k not in pairs} for row in run.history] == without.history
    assert all(row.keys() >= pairs.keys() for row in run.history)


def test_the_rate_that_is_logged_is_that_of_the_step():
    schedule = OneCycle(warm=0.5)
    _, run = trained(optimiser=dataclasses.replace(OPTIMISER, schedule=schedule), log_every=1)
    expected = [1e-2 * schedule.factor(Context(progress=step / 12, step=step)) for step in range(12)]
    assert [row["learning_rate"] for row in run.history] == pytest.approx(expected)
    assert max(expected) == pytest.approx(1e-2)
    assert len(set(expected)) > 6


def test_whoever_listens_hears_the_history():
    heard = []
    _, run = trained(recipe=Recipe(log=lambda step, row: heard.append((step, dict(row)))))
    assert heard == [(row["step"], row) for row in run.history]


def test_watching_does_not_change_what_is_trained():
    often, _ = trained(log_every=1)
    never, run = trained(log_every=10**9)
    assert same_weights(often, never)
    assert [row["step"] for row in run.history] == [12]  # the last step is always logged


def test_progress_tells_every_step_with_loss_and_accuracy_so_far():
    told = []
    _, run = trained(steps=4, log_every=2, progress=lambda *where, **numbers: told.append((where, numbers)))
    assert [where for where, _ in told] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert math.isnan(told[0][1]["accuracy"])
    assert told[1][1]["accuracy"] == told[2][1]["accuracy"] == run.history[0]["validation_accuracy"]
    assert told[3][1]["loss"] == pytest.approx(run.history[-1]["cross_entropy"])


def test_without_validation_images_the_terms_are_logged_alone():
    nobody = dataclasses.replace(VALIDATION, pixels=VALIDATION.pixels[:0], labels=VALIDATION.labels[:0])
    run = fit(fresh(), Standard(), OPTIMISER, TRAIN, nobody, steps=2, batch_size=10, seed=0, log_every=1)
    expected = {"step", "cross_entropy", "learning_rate", "gradient_norm", "training_accuracy"}
    assert [set(row) for row in run.history] == [expected] * 2


def test_figures_that_are_not_logged_cannot_choose():
    with pytest.raises(SpecError, match="'discrepancy' is not among the figures that training logs here: cross"):
        trained(recipe=Recipe(keep="discrepancy"))


def test_it_learns():
    network, run = trained(fresh(SmallCNN(filters=(4, 8, 16))), steps=60, batch_size=25, log_every=30)
    assert run.history[-1]["cross_entropy"] < 0.8 < run.history[0]["cross_entropy"]
    assert float((network(TRAIN.images()).argmax(1) == TRAIN.labels).float().mean()) > 0.8


@pytest.mark.parametrize(
    ("defence", "forward", "backward"),
    [
        (Standard(), 1, 1),
        (DoubleBackprop(weight=0.1), 1, 2),
        (AdversarialTraining(attack=FGSM(eps=0.3, labels="predicted", mode="train")), 3, 2),
        (AdversarialTraining(attack=FGSM(eps=0.3, labels="predicted", mode="train"), batches="together"), 3, 2),
    ],
    ids=["standard", "double_backprop", "adversarial_separate", "adversarial_together"],
)
def test_passes_are_counted_in_images(defence, forward, backward):
    """Four batches of ten. A log costs one forward of the batch and of 30 validation images, and two backward of these.

    With FGSM to watch, the 40 images of a log are passed once more in each direction, and the changed ones forward.
    """
    _, run = trained(defence=defence, steps=4, batch_size=10, log_every=100)
    assert (run.passes.forward, run.passes.backward) == (forward * 40 + 40, backward * 40 + 60)
    _, often = trained(defence=defence, steps=4, batch_size=10, log_every=1)
    assert (often.passes.forward, often.passes.backward) == (forward * 40 + 160, backward * 40 + 240)
    _, parts = trained(defence=defence, steps=4, batch_size=10, log_every=100, recipe=Recipe(accumulate=3))
    assert (parts.passes.forward, parts.passes.backward) == (run.passes.forward, run.passes.backward)
    _, watched = trained(defence=defence, steps=4, batch_size=10, log_every=2, recipe=Recipe(watch=FGSM(eps=0.1)))
    assert (watched.passes.forward, watched.passes.backward) == (forward * 40 + 240, backward * 40 + 200)


def test_the_passes_of_a_teacher_and_of_new_statistics_are_counted():
    _, run = trained(defence=Distillation(), steps=4, recipe=Recipe(networks=lambda task: TEACHER), log_every=100)
    assert (run.passes.forward, run.passes.backward) == (2 * 40 + 40, 40 + 60)
    _, run = trained(steps=4, recipe=Recipe(average=SWA()), log_every=100)
    assert (run.passes.forward, run.passes.backward) == (40 + 40 + 50, 40 + 60)


def test_the_loss_is_the_sum_of_the_terms():
    """One step from the same weights equals one step on the sum, made by hand."""
    network, run = trained(defence=DoubleBackprop(weight=0.5), steps=1)
    reference = fresh()
    weights = [p for p in reference.parameters() if p.requires_grad]
    moves = torch.optim.Adam(weights, lr=1e-2, eps=1e-4)
    rows = batch_rows(50, 10, 0, 5, True)
    ctx = Context(0.0, 0, 5, rows)
    with global_seed(derive(5, "step", 0)):
        body = TrainingStep(reference, DoubleBackprop(weight=0.5)).train()
        terms = body(TRAIN.images(rows), TRAIN.labels[rows], ctx)
        sum(terms.values()).backward()
    OPTIMISER.prepare(moves, ctx)
    moves.step()
    assert all(torch.allclose(v, reference.state_dict()[k], rtol=0, atol=1e-7) for k, v in network.state_dict().items())
    norm = torch.cat([p.grad.flatten() for p in weights]).norm()
    assert run.history[0]["gradient_norm"] == pytest.approx(float(norm), rel=1e-5)


# ------------------------------------------------------------------------------------------ batches in parts


class Listening:
    """Plain cross-entropy that writes down the rows of its batches and what its terms are made of."""

    def __init__(self, defence):
        self.defence, self.rows, self.dtypes = defence, [], set()

    def __call__(self, model, x, y, ctx=None):
        assert torch.equal(x, TRAIN.images(ctx.positions))
        assert torch.equal(y, TRAIN.labels[ctx.positions])
        self.rows.append(ctx.positions.tolist())
        terms = self.defence(model, x, y, ctx)
        self.dtypes |= {value.dtype for value in terms.values()}
        return terms


@pytest.mark.parametrize(
    ("size", "accumulate", "sizes"),
    [(10, 2, [5, 5]), (10, 3, [4, 3, 3]), (9, 4, [3, 2, 2, 2]), (7, 7, [1] * 7), (5, 8, [1] * 5)],
)
def test_parts_of_a_batch_give_the_gradient_of_the_whole(size, accumulate, sizes):
    """In float64, of a mean loss, without batch normalisation; plain descent, so that the step is the gradient."""
    whole, listening = fresh(SMALL).double(), Listening(Standard())
    rows = batch_rows(50, size, 0, 5, True)
    loss = nn.functional.cross_entropy(whole(TRAIN.images(rows)), TRAIN.labels[rows])
    gradients = torch.autograd.grad(loss, list(whole.parameters()))
    descent = SGD(lr=1.0, momentum=0, weight_decay=0)
    settings = {"steps": 1, "batch_size": size, "optimiser": descent, "recipe": Recipe(accumulate=accumulate)}
    network, run = trained(fresh(SMALL).double(), listening, **settings)
    for before, after, gradient in zip(whole.parameters(), network.parameters(), gradients):
        assert torch.allclose(before - after, gradient, rtol=0, atol=1e-13)
    assert [len(part) for part in listening.rows] == sizes
    assert [row for part in listening.rows for row in part] == rows.tolist()
    assert run.history[0]["cross_entropy"] == pytest.approx(loss.item(), rel=1e-12)
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    assert run.history[0]["gradient_norm"] == pytest.approx(float(norm), rel=1e-12)
    assert max(float(g.abs().max()) for g in gradients) > 0.1


def test_in_float32_whole_runs_agree_to_rounding():
    whole, run = trained(fresh(SMALL), DoubleBackprop(weight=0.1), SGD(lr=0.05))
    parts, again = trained(fresh(SMALL), DoubleBackprop(weight=0.1), SGD(lr=0.05), recipe=Recipe(accumulate=4))
    assert not same_weights(whole, fresh(SMALL))
    for key, value in whole.state_dict().items():
        assert torch.allclose(parts.state_dict()[key], value, rtol=1e-5, atol=1e-6)
    for one, other in zip(run.history, again.history):
        assert one == pytest.approx(other, rel=1e-4)


def test_a_bad_part_stops_before_any_weight_is_moved(tmp_path):
    class SpoiltPart(Spoilt):
        def __call__(self, model, x, y, ctx=None):
            last = int(ctx.positions[-1]) == int(batch_rows(50, 10, ctx.step, 5, True)[-1])
            return super().__call__(model, x, y, ctx if last else dataclasses.replace(ctx, step=-1))

    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(TrainingError, match="stopped at step 4: penalty is nan"):
        trained(defence=SpoiltPart(4), checkpoint=path, recipe=Recipe(accumulate=3))
    undisturbed, _ = trained(recipe=Recipe(accumulate=3))
    network, _ = trained(fresh(seed=99), checkpoint=path, recipe=Recipe(accumulate=3))
    assert same_weights(network, undisturbed)


# -------------------------------------------------------------------------- precision, layout, compiled networks


@pytest.mark.parametrize(
    "defence",
    [Standard(), Standard(temperature=5), DoubleBackprop(weight=0.1), AdversarialTraining(), Distillation()],
    ids=lambda defence: type(defence).__name__,
)
def test_bfloat16_is_for_the_network_only(tmp_path, defence):
    """Convolutions compute in bfloat16; losses, weights and what the optimiser keeps are float32."""
    seen, listening, path = set(), Listening(defence), tmp_path / "checkpoint.safetensors"
    network = fresh(SMALL)
    network.convolutions[1].register_forward_hook(
        lambda module, given, out: seen.add(out.dtype) if module.training else None
    )
    recipe = Recipe(precision="bfloat16", networks=lambda task: TEACHER)
    _, run = trained(network, listening, optimiser=SGD(lr=0.05), recipe=recipe, checkpoint=path, checkpoint_seconds=0)
    assert seen == {torch.bfloat16}
    assert listening.dtypes == {torch.float32}
    assert {v.dtype for v in load_file(path).values()} == {torch.float32}
    recipe = dataclasses.replace(recipe, precision="float32")
    whole, plain = trained(fresh(SMALL), defence, optimiser=SGD(lr=0.05), recipe=recipe)
    assert not same_weights(network, whole)
    begun, half, full = (
        torch.cat([v.flatten() for v in net.state_dict().values()]) for net in (fresh(SMALL), network, whole)
    )
    assert (half - full).norm() <= 0.05 * (full - begun).norm()
    assert run.history[-1]["cross_entropy"] == pytest.approx(plain.history[-1]["cross_entropy"], rel=0.02)


def test_channels_last_changes_rounding_only():
    seen = []
    network = fresh(SMALL)
    network.convolutions[1].register_forward_hook(lambda module, given, out: seen.append(out))
    settings = {"optimiser": SGD(lr=0.05)}
    trained(network, **settings, recipe=Recipe(channels_last=True))
    assert all(out.is_contiguous(memory_format=torch.channels_last) for out in seen)
    assert not seen[0].is_contiguous()
    plain, _ = trained(fresh(SMALL), **settings)
    assert not same_weights(plain, fresh(SMALL))
    for key, value in plain.state_dict().items():
        assert torch.allclose(network.state_dict()[key], value, rtol=1e-4, atol=1e-6)


@pytest.fixture
def traced(monkeypatch):
    """Compile as far as the gradients' graphs, without machine code: the seconds of a C++ compiler are spared."""
    pytest.importorskip("torch._dynamo")
    compile = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: compile(self, backend="aot_eager"))
    yield
    torch._dynamo.reset()


def test_a_compiled_network_trains_the_same_and_counts_the_same(traced):
    settings = {"optimiser": SGD(lr=0.05), "steps": 4, "log_every": 2}
    plain, run = trained(fresh(SMALL), **settings, recipe=Recipe(watch=FGSM(eps=0.1)))
    network, again = trained(fresh(SMALL), **settings, recipe=Recipe(watch=FGSM(eps=0.1), compiled=True))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert again.passes == run.passes
    for key, value in plain.state_dict().items():
        assert torch.allclose(network.state_dict()[key], value, rtol=1e-5, atol=1e-7)
    for one, other in zip(run.history, again.history):
        assert one == pytest.approx(other, rel=1e-4)
    loss = DoubleBackprop(weight=0.1)(network, TRAIN.images(slice(4)), TRAIN.labels[:4])["gradient_penalty"]
    loss.backward()  # whoever gets the network may differentiate it twice
    assert float(network.head.weight.grad.norm()) > 0


def test_a_defence_that_needs_second_derivatives_cannot_be_compiled(traced, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(
        SpecError, match=r"torch\.compile cannot differentiate twice, as this defence needs: train with"
    ):
        trained(fresh(SMALL), DoubleBackprop(weight=0.1), recipe=Recipe(compiled=True), checkpoint=path)
    assert not path.exists()  # nothing was trained


class Once(torch.autograd.Function):
    """A graph that fails as a compiled one does."""

    said = ""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        raise RuntimeError(Once.said)


class Failing:
    def __call__(self, model, x, y, ctx=None):
        return {"cross_entropy": Once.apply(Standard()(model, x, y, ctx)["cross_entropy"])}


@pytest.mark.parametrize(
    ("compiled", "said", "error", "sentence"),
    [
        (
            True,
            "aot_autograd does not currently support double backward",
            SpecError,
            "train without",
        ),
        (True, "compiled with non-empty donated buffers which requires create_graph=False", SpecError, "train without"),
        (True, "something else", RuntimeError, "^something else$"),
        (False, "does not currently support double backward", RuntimeError, "^does not currently support double backw"),
    ],
)
def test_only_what_a_compiled_network_cannot_do_is_said_so(monkeypatch, compiled, said, error, sentence):
    monkeypatch.setattr(Once, "said", said)
    monkeypatch.setattr(nn.Module, "compile", lambda self: None)
    with pytest.raises(error, match=sentence):
        trained(defence=Failing(), recipe=Recipe(compiled=compiled))


# --------------------------------------------------------------------------- averages, and the network to keep


class Snapshots:
    """Hears what is logged, and takes the weights of the network in training."""

    def __init__(self, network):
        self.network, self.taken, self.rows = network, {}, {}

    def __call__(self, step, row):
        self.taken[step] = copy.deepcopy(self.network.state_dict())
        self.rows[step] = dict(row)


def snapped(spec=ROSS, seed=1, optimiser=OPTIMISER, defence=None, steps=12, **recipe):
    """Train with a log after every step; return the network, the run and what was there after each step."""
    network = fresh(spec, seed)
    snapshots = Snapshots(network)
    _, run = trained(network, defence, optimiser, steps=steps, log_every=1, recipe=Recipe(log=snapshots, **recipe))
    return network, run, snapshots


def equal(network, state):
    return all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("metric", "sign"),
    [
        ("validation_accuracy", 1),
        ("validation_cross_entropy", -1),
        ("validation_squared_gradient_all", -1),
        ("gradient_penalty", -1),
        ("attacked_accuracy", 1),
    ],
)
def test_the_very_weights_of_the_best_log_are_kept(metric, sign):
    given = {"spec": SMALL, "optimiser": Adam(lr=0.03), "defence": DoubleBackprop(weight=0.1)}
    network, run, snapshots = snapped(**given, keep=metric, watch=FGSM(eps=0.05))
    values = {step: sign * row[metric] for step, row in snapshots.rows.items()}
    best = max(values, key=values.get)  # the first of equal ones
    assert len(values) == 12
    assert run.kept == best
    assert run.score == pytest.approx(values[best])
    assert equal(network, snapshots.taken[best])
    assert not equal(network, snapshots.taken[12]) or best == 12
    assert len(set(values.values())) > 1


def test_the_best_is_not_always_the_last_nor_always_the_first():
    _, run, _ = snapped(SMALL, optimiser=Adam(lr=0.03), keep="validation_accuracy")
    _, other, _ = snapped(keep="validation_accuracy")
    assert 1 < run.kept < 12
    assert 1 < other.kept < 12


@pytest.mark.parametrize("keep", [None, "last"])
def test_the_last_network_is_kept_unless_a_figure_is_named(keep):
    network, run, snapshots = snapped(keep=keep)
    assert equal(network, snapshots.taken[12])
    assert run.kept is None


def test_a_network_without_a_number_is_never_the_best():
    def spoil(step, row):
        row["validation_accuracy"] = math.nan if step > 3 else row["validation_accuracy"]

    network, run = trained(log_every=3, recipe=Recipe(keep="validation_accuracy", log=spoil))
    assert run.kept == 3
    assert same_weights(network, trained(steps=3)[0])
    assert [math.isnan(row["validation_accuracy"]) for row in run.history] == [False, True, True, True]


def test_target_accuracy_stops_there_and_keeps_the_nearest():
    """The accuracy rises by steps of a tenth, and the one before may have been nearer."""
    _, _, whole = snapped(SMALL, optimiser=Adam(lr=0.01), steps=60)
    accuracies = {step: row["training_accuracy"] for step, row in whole.rows.items()}
    for target in (0.25, 0.42, 0.55):
        rule = TargetAccuracy(accuracy=target, metric="training_accuracy")
        network, run, snapshots = snapped(SMALL, optimiser=Adam(lr=0.01), steps=60, stop=rule)
        reached = next(step for step in accuracies if accuracies[step] >= target)
        assert run.step == reached < 60
        assert f"the target {target:.4g} is reached at step {reached}" in run.stopped
        nearest = min(range(1, reached + 1), key=lambda step: abs(accuracies[step] - target))
        assert run.kept == nearest
        assert equal(network, snapshots.taken[nearest])
        assert equal(network, whole.taken[nearest])


def test_a_rule_that_never_comes_true_stops_nothing():
    network, run, snapshots = snapped(stop=TargetAccuracy(accuracy=1.0))
    assert (run.step, run.stopped) == (12, None)
    assert equal(network, snapshots.taken[run.kept])


def test_sudden_overfitting_keeps_the_network_before_the_fall(monkeypatch):
    on_batches = iter([0.3, 0.5, 0.45, 0.6, 0.55, 0.39, 0.9, 0.9])
    monkeypatch.setattr(loop, "batch_figures", lambda *given: {"attacked_training_accuracy": next(on_batches)})
    network, run, snapshots = snapped(stop=SuddenOverfitting(drop=0.2), watch=FGSM(eps=0.1))
    assert (run.step, run.kept) == (6, 4)
    assert run.stopped == "attacked_training_accuracy fell from 0.6 at step 4 to 0.39 at step 6"
    assert equal(network, snapshots.taken[4])


def test_a_named_figure_goes_before_what_the_rule_would_keep(monkeypatch):
    rule = TargetAccuracy(accuracy=0.3, metric="training_accuracy")
    network, run, snapshots = snapped(SMALL, optimiser=Adam(lr=0.01), steps=60, stop=rule, keep="last")
    assert run.stopped
    assert run.kept is None
    assert equal(network, snapshots.taken[run.step])
    network, run, snapshots = snapped(SMALL, optimiser=Adam(lr=0.01), steps=60, stop=rule, keep="cross_entropy")
    losses = {step: row["cross_entropy"] for step, row in snapshots.rows.items()}
    assert run.kept == min(losses, key=losses.get)
    assert equal(network, snapshots.taken[run.kept])


def by_hand(snapshots, decay):
    """Return the moving averages after each step, from the weights after each step."""
    found = {}
    for step, state in snapshots.items():
        d = min(decay, step / (9 + step))  # (1 + t) / (10 + t) with t = step - 1 networks before this one
        old = found.get(step - 1)
        found[step] = {
            key: d * old[key] + (1 - d) * value if old and value.is_floating_point() else value
            for key, value in state.items()
        }
    return found


@pytest.mark.parametrize("keep", [None, "validation_cross_entropy", "training_accuracy"])
def test_the_moving_average_is_the_network_that_is_watched_and_kept(keep):
    network, run, snapshots = snapped(average=EMA(decay=0.6), keep=keep)
    averages = by_hand(snapshots.taken, 0.6)
    x, y = VALIDATION.images(), VALIDATION.labels
    scores = {}
    for step, row in snapshots.rows.items():
        average = fresh()
        average.load_state_dict(averages[step])
        average.eval()
        loss = nn.functional.cross_entropy(average(x), y).item()
        rows = batch_rows(50, 10, step - 1, 5, True)
        right = float((average(TRAIN.images(rows)).argmax(1) == TRAIN.labels[rows]).float().mean())
        assert row["validation_cross_entropy"] == pytest.approx(loss, rel=1e-4)
        assert row["training_accuracy"] == pytest.approx(right)
        scores[step] = {None: step, "validation_cross_entropy": -loss, "training_accuracy": right}[keep]
    best = max(scores, key=scores.get)
    assert run.kept == (best if keep else None)
    for key, value in network.state_dict().items():
        assert torch.allclose(value, averages[best][key], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(network.dense[-1].weight, snapshots.taken[best]["dense.5.weight"], atol=1e-3)


def test_averaging_does_not_change_what_is_averaged():
    _, _, plain = snapped()
    _, _, averaged = snapped(average=EMA(decay=0.6))
    _, _, later = snapped(average=SWA(begin=0.5, every=1))
    for step in plain.taken:
        assert all(torch.equal(v, averaged.taken[step][k]) for k, v in plain.taken[step].items())
        assert all(torch.equal(v, later.taken[step][k]) for k, v in plain.taken[step].items())


def test_stochastic_weight_averaging_ends_with_statistics_of_its_own():
    """The means of what each normalisation saw in the five batches, as the averaged network computes them."""
    network, _, snapshots = snapped(average=SWA(begin=0.5, every=2))
    taken = [snapshots.taken[step] for step in (8, 10, 12)]  # step 6 was taken at 5/12 of the run
    for key, value in network.named_parameters():
        assert torch.allclose(value, torch.stack([state[key] for state in taken]).mean(0), rtol=1e-5, atol=1e-6)
    layers = [layer for layer in network.modules() if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d))]
    assert len(layers) == 3
    seen = {layer: [] for layer in layers}
    kept = [(layer.running_mean.clone(), layer.running_var.clone()) for layer in layers]
    for layer in layers:
        layer.register_forward_pre_hook(lambda module, given: seen[module].append(given[0].transpose(0, 1).flatten(1)))
    network.train()
    for rows in torch.arange(50).split(10):
        network(TRAIN.images(rows))
    for layer, (mean, variance) in zip(layers, kept):
        assert torch.allclose(mean, torch.stack([v.mean(1) for v in seen[layer]]).mean(0), rtol=1e-4, atol=1e-6)
        assert torch.allclose(variance, torch.stack([v.var(1) for v in seen[layer]]).mean(0), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(kept[0][0], taken[-1]["convolutions.1.running_mean"], atol=1e-3)


@pytest.mark.parametrize("images", [50, 51, 59, 7])
def test_new_statistics_take_every_image_once_and_none_alone(images):
    """A batch of one has no variance in a fully connected layer: 51 images are not five batches of ten and one."""
    train = rows_of(Digits(train=90).load("train"), torch.arange(images))
    network, sizes = fresh(), []

    def look(module, given):
        if module.training and torch.is_grad_enabled() is False:
            sizes.append(len(given[0]))

    network.convolutions[1].register_forward_pre_hook(look)
    trained(network, train=train, steps=2, recipe=Recipe(average=SWA(begin=0, every=1)))
    assert sum(sizes) == images
    assert min(sizes) >= min(10, images)


class DropoutFirst(Classifier):
    """Statistics that depend on what dropout dropped."""

    def __init__(self):
        super().__init__(channels=1)
        self.layers = nn.Sequential(
            nn.Conv2d(1, 3, 3, stride=3), nn.Dropout(0.5), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(243, 10)
        )

    def features(self, x):
        return x

    def classify(self, f):
        return self.layers(f)


def test_new_statistics_are_deterministic_and_leave_the_global_generator_alone():
    ends = []
    for seed in (1, 2):
        with global_seed(0):
            network = DropoutFirst()
        torch.manual_seed(seed)
        expected = torch.rand(4)
        torch.manual_seed(seed)
        trained(network, steps=2, recipe=Recipe(average=SWA()))
        assert torch.equal(torch.rand(4), expected)
        ends.append(network)
    assert same_weights(*ends)


# ---------------------------------------------------------- changed images, images without labels, teachers


def test_every_batch_is_augmented_by_numbers_of_its_own_step_and_place():
    seen = []

    class Seeing(Standard):
        def __call__(self, model, x, y, ctx=None):
            seen.append((x, ctx.positions, ctx.step))
            return super().__call__(model, x, y, ctx)

    augmentation = CropAndFlip(padding=3)
    trained(defence=Seeing(), recipe=Recipe(augmentation=augmentation, accumulate=2), steps=6, seed=5)
    assert len(seen) == 12
    for x, positions, step in seen:
        stream = Stream(5, positions).child("step", step).child("augmentation")
        assert torch.equal(x, augmentation(TRAIN.images(positions), rng=stream))
        assert not torch.equal(x, TRAIN.images(positions))


def test_a_random_crop_gets_the_frame_and_the_network_never_sees_it():
    framed = dataclasses.replace(TRAIN, pixels=torch.nn.functional.pad(TRAIN.pixels, [3] * 4), margin=3)
    seen = []

    class Seeing(Standard):
        def __call__(self, model, x, y, ctx=None):
            seen.append((x, ctx.positions, ctx.step))
            return super().__call__(model, x, y, ctx)

    side = TRAIN.shape[1]
    crop = RandomCrop(size=side)
    trained(train=framed, defence=Seeing(), recipe=Recipe(augmentation=crop), steps=3, seed=5)
    for x, positions, step in seen:
        stream = Stream(5, positions).child("step", step).child("augmentation")
        assert torch.equal(x, crop(framed.images(positions, framed=True), rng=stream))
        assert x.shape[1:] == TRAIN.shape
    with pytest.raises(DataError, match="a random crop needs a data set that keeps a frame"):
        trained(recipe=Recipe(augmentation=RandomCrop(size=side - 4)), steps=1)


def hidden(labelled=0.5, seed=5):
    """Return which of the 50 images have no label for semi-supervised training."""
    return Stream(seed, torch.arange(50)).child("labelled").uniform(torch.zeros(50), ()) >= labelled


def relabelled(chosen):
    """Return the training part with the labels of the chosen images moved on by one class."""
    return dataclasses.replace(TRAIN, labels=torch.where(chosen, (TRAIN.labels + 1) % 10, TRAIN.labels))


def test_hidden_labels_are_not_looked_at_and_visible_ones_are():
    reference, _ = trained(fresh(SMALL), MAPS, steps=5)  # one epoch: every image once
    unseen = hidden()
    assert 15 < int(unseen.sum()) < 35
    assert same_weights(trained(fresh(SMALL), MAPS, train=relabelled(unseen), steps=5)[0], reference)
    for chosen in (~unseen, torch.arange(50) == (~unseen).nonzero()[3]):  # all of them, and a single one
        assert not same_weights(trained(fresh(SMALL), MAPS, train=relabelled(chosen), steps=5)[0], reference)


def test_images_without_labels_come_in_batches_of_their_own():
    """Every one of the 40 once in four steps; cut as the batch is; with fewer of them than a batch, all."""
    seen = []

    class Seeing(Standard):
        def __call__(self, model, x, y, ctx=None):
            seen.append((ctx.step, ctx.unlabelled))
            return super().__call__(model, x, y, ctx)

    def rows(images):
        return [int((UNLABELLED.images() == image).flatten(1).all(1).nonzero()) for image in images]

    trained(defence=Seeing(), steps=8, recipe=Recipe(unlabelled=UNLABELLED, accumulate=3))
    assert [len(images) for _, images in seen] == [4, 3, 3] * 8
    order = [row for _, images in seen for row in rows(images)]
    assert sorted(order[:40]) == sorted(order[40:]) == list(range(40))
    assert order[:40] != order[40:]
    assert order[:10] != batch_rows(40, 10, 0, 5, True).tolist()  # an order of their own

    seen.clear()
    trained(defence=Seeing(), steps=2, recipe=Recipe(unlabelled=rows_of(UNLABELLED, torch.arange(6)), accumulate=2))
    assert [len(images) for _, images in seen] == [5, 1, 5, 1]
    seen.clear()
    trained(defence=Seeing(), steps=1)
    assert seen == [(0, None)]


def test_images_without_labels_are_learnt_from_and_their_labels_are_not():
    given = {"steps": 4, "defence": MAPS}
    without, _ = trained(fresh(SMALL), **given)
    reference, _ = trained(fresh(SMALL), **given, recipe=Recipe(unlabelled=UNLABELLED))
    other = dataclasses.replace(UNLABELLED, labels=torch.zeros_like(UNLABELLED.labels))
    assert not same_weights(without, reference)
    assert same_weights(trained(fresh(SMALL), **given, recipe=Recipe(unlabelled=other))[0], reference)
    changed = dataclasses.replace(UNLABELLED, pixels=255 - UNLABELLED.pixels)
    assert not same_weights(trained(fresh(SMALL), **given, recipe=Recipe(unlabelled=changed))[0], reference)


def test_a_teacher_is_asked_for_by_its_task_and_left_as_it_was():
    asked, before = [], copy.deepcopy(TEACHER.state_dict())

    def networks(task):
        asked.append(task)
        return TEACHER

    task = "stands for a task"
    defence = Distillation(temperature=5)
    object.__setattr__(defence, "teacher", task)
    trained(fresh(SMALL), defence, steps=3, recipe=Recipe(networks=networks))
    assert asked == [task] * 3
    assert equal(TEACHER, before)
    assert not TEACHER.training
    rows = batch_rows(50, 10, 0, 5, True)
    x = TRAIN.images(rows)
    targets = (TEACHER(x) / 5).softmax(1)
    loss = -(targets * (fresh(SMALL)(x) / 5).log_softmax(1)).sum(1).mean()
    _, first = trained(fresh(SMALL), defence, steps=1, recipe=Recipe(networks=networks))
    assert first.history[0]["cross_entropy"] == pytest.approx(loss.item(), rel=1e-5)
