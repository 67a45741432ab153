import dataclasses
import json
import math
from dataclasses import dataclass

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from pellucid.attacks import FGSM
from pellucid.data import Digits
from pellucid.defences import AdversarialTraining, DoubleBackprop, Standard
from pellucid.errors import CheckpointError, TrainingError
from pellucid.models import RossCNN, SmallCNN
from pellucid.optimisers import Adam
from pellucid.rng import global_seed
from pellucid.train import TrainingStep, batch_rows, fit

TRAIN, VALIDATION = Digits(train=50).load("train"), Digits(validation=30).load("validation")
ROSS = RossCNN(filters=(3, 4), hidden=12)  # with dropout and batch normalisation
OPTIMISER = Adam(lr=1e-2, eps=1e-4, eps_hat=True)


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


def fresh(spec=ROSS, seed=1):
    with global_seed(seed):
        return spec.build(1, (28, 28), 10)


def trained(network=None, defence=None, **given):
    network = network or fresh()
    settings = {"steps": 12, "batch_size": 10, "seed": 5, "log_every": 3} | given
    run = fit(network, defence or Standard(), OPTIMISER, TRAIN, VALIDATION, **settings)
    return network, run


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
            "validation_accuracy",
            "validation_cross_entropy",
            "validation_squared_gradient",
        }
    x, y = VALIDATION.images().requires_grad_(True), VALIDATION.labels
    losses = torch.nn.functional.cross_entropy(network(x), y, reduction="none")
    (g,) = torch.autograd.grad(losses.sum(), x)
    losses = losses.detach()
    last = run.history[-1]
    assert last["validation_accuracy"] == pytest.approx(float((network(x).argmax(1) == y).float().mean()))
    assert last["validation_cross_entropy"] == pytest.approx(float(losses.mean()), rel=1e-5)
    assert last["validation_squared_gradient"] == pytest.approx(float(g.flatten(1).square().sum(1).mean()), rel=1e-4)


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
    assert [set(row) for row in run.history] == [{"step", "cross_entropy"}] * 2


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
    """Four batches of ten; watching 30 validation images costs one pass in each direction, at the last step here."""
    _, run = trained(defence=defence, steps=4, batch_size=10, log_every=100)
    assert (run.passes.forward, run.passes.backward) == (forward * 40 + 30, backward * 40 + 30)
    _, often = trained(defence=defence, steps=4, batch_size=10, log_every=1)
    assert (often.passes.forward, often.passes.backward) == (forward * 40 + 120, backward * 40 + 120)


def test_the_loss_is_the_sum_of_the_terms():
    """One step from the same weights equals one step on the sum, made by hand."""
    network, _ = trained(defence=DoubleBackprop(weight=0.5), steps=1)
    reference = fresh()
    moves = torch.optim.Adam([p for p in reference.parameters() if p.requires_grad], lr=1e-2, eps=1e-4)
    from pellucid.protocols import Context
    from pellucid.rng import derive

    rows = batch_rows(50, 10, 0, 5, True)
    with global_seed(derive(5, "step", 0)):
        body = TrainingStep(reference, DoubleBackprop(weight=0.5)).train()
        terms = body(TRAIN.images(rows), TRAIN.labels[rows], Context(0.0, 0, 5, rows))
        sum(terms.values()).backward()
    OPTIMISER.prepare(moves, 0)
    moves.step()
    assert all(torch.allclose(v, reference.state_dict()[k], rtol=0, atol=1e-7) for k, v in network.state_dict().items())
