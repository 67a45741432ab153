"""AutoAttack: who is passed on, what is remembered, what is noticed, and what few classes change."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from pellucid.attacks import APGD, FAB, FGSM, PGD, AutoAttack, CarliniWagner, Gabor, IteratedFGSM, Square, with_eps
from pellucid.attacks.autoattack import averaged, inside
from pellucid.attacks.masking import MASKING, RobustnessWarning
from pellucid.errors import GradientError, InputError, SpecError
from pellucid.maths.losses import cross_entropy
from pellucid.maths.notes import noted
from pellucid.maths.passes import counted
from pellucid.maths.resume import keeping
from pellucid.models.classifier import Classifier
from pellucid.protocols import Attack
from pellucid.rng import Stream, global_seed
from pellucid.spec import digest, from_dict, to_dict

N = 12


class Net(Classifier):
    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.Tanh(), nn.Linear(16, classes))

    def features(self, x: Tensor) -> Tensor:
        return x

    def classify(self, f: Tensor) -> Tensor:
        logits: Tensor = self.body(f)
        return logits


def network(classes: int = 4) -> Net:
    with global_seed(5):
        return Net(classes).double().eval()


def images(n: int = N) -> Tensor:
    return Stream(3).uniform(torch.empty(n, 0, dtype=torch.float64), (1, 8, 6))


@torch.no_grad()
def predicted(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).argmax(1)


def small(**more: Any) -> AutoAttack:
    return AutoAttack(**{"eps": 0.05, "steps": 8, "queries": 60} | more)


def run(attack: AutoAttack, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    with noted() as notes:
        out = attack(model, x, y, rng=Stream(4))
    return out, dict(notes)


# ------------------------------------------------------------------------------- the sequence


def test_the_standard_stages_are_those_of_the_paper() -> None:
    first, second, third, fourth = AutoAttack(norm="l2", eps=0.5).stages()
    assert first == APGD(norm="l2", eps=0.5, steps=100, loss="cross_entropy")
    assert second == APGD(norm="l2", eps=0.5, steps=100, loss="targeted_dlr", targets=9)
    assert third == FAB(norm="l2", eps=0.5, steps=100, targets=9, final_steps=0)
    assert fourth == Square(norm="l2", eps=0.5, queries=5000, p_init=0.8, schedule="authors")
    assert [stage.loss for stage in AutoAttack(eps=0.1, version="rand").stages()] == ["cross_entropy", "dlr"]


@dataclass(frozen=True, kw_only=True)
class Fells:
    """An attack that moves images by eps where their number, painted into the first pixel, is in a list."""

    numbers: tuple[int, ...]
    eps: float = 0.05
    black_box: bool = False
    norm: ClassVar[str] = "linf"
    _registered_as: ClassVar[tuple[str, str]] = ("attack", "fells")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, **_: Any) -> Tensor:
        CALLS.append([round(float(v) * 100) for v in x[:, 0, 0, 0]])
        hit = torch.tensor([number in self.numbers for number in CALLS[-1]])
        return torch.where(hit.view(-1, 1, 1, 1), x + self.eps, x)

    def maximise(self, objective: Any, x: Tensor, **_: Any) -> Tensor:
        raise InputError("fells climbs nothing")


CALLS: list[list[int]] = []


class Painted(Classifier):
    """Class 1 where the second pixel was raised above 0.5 + 0.01, or was dark."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def features(self, x: Tensor) -> Tensor:
        return x

    def classify(self, f: Tensor) -> Tensor:
        pixel = self.scale * (f[:, 0, 0, 1] - 0.51)
        return torch.stack([-pixel, pixel], 1)


def painted(n: int) -> tuple[Tensor, Tensor]:
    x = torch.full((n, 1, 2, 2), 0.5)
    x[:, 0, 0, 0] = torch.arange(n) / 100
    return x, torch.zeros(n, dtype=torch.int64)


def test_only_survivors_are_passed_on_and_each_is_told_by_whom_it_fell() -> None:
    CALLS.clear()
    x, y = painted(8)
    y[7] = 1  # misclassified before any attack
    stages = (Fells(numbers=(0, 3)), Fells(numbers=(0, 1, 3)), Fells(numbers=(2,), eps=0.05))
    with counted() as passes:
        out, notes = run(AutoAttack(eps=0.05, attacks=stages), Painted(), x, y)
    assert CALLS == [[0, 1, 2, 3, 4, 5, 6], [1, 2, 4, 5, 6], [2, 4, 5, 6]]
    assert notes["fooled_by"].tolist() == [0, 1, 2, 0, -1, -1, -1, -2]
    moved = (out != x).flatten(1).any(1)
    assert moved.tolist() == [True, True, True, True, False, False, False, False]
    assert passes.forward == 3 * 8 + 7 + 5 + 4, "the checks of all, then one judging pass a stage for its images"


def test_passes_of_the_standard_version_fall_with_the_survivors() -> None:
    model, x = network(), images()
    y = predicted(model, x)
    out, notes = run(small(eps=0.03), model, x, y)
    fell = notes["fooled_by"]
    assert bool((fell >= 0).any())
    assert bool((fell == -1).any())
    assert torch.equal(predicted(model, out) != y, fell >= 0)
    with counted() as passes:
        run(small(eps=0.03), model, x, y)
    with counted() as first:
        APGD(eps=0.03, steps=8)(model, x, y, rng=Stream(4).child("stage", 0), stop_when_fooled=True)
    left = int((fell != 0).sum())
    most = 3 * N + N + first.forward + left * (1 + 3 * 9 + 1 + 1 + 3 * 2 * 8 + 3 + 1 + 60 + 1)
    assert passes.forward <= most


def test_a_stage_gives_what_its_attack_gives_alone() -> None:
    model, x = network(), images()
    y = predicted(model, x)
    out, notes = run(small(eps=0.03), model, x, y)
    alone = APGD(eps=0.03, steps=8)(model, x, y, rng=Stream(4).child("stage", 0), stop_when_fooled=True)
    fell = notes["fooled_by"] == 0
    assert bool(fell.any())
    assert torch.equal(out[fell], alone[fell])


def test_an_image_that_left_the_ball_does_not_count() -> None:
    x, y = painted(3)

    @dataclass(frozen=True, kw_only=True)
    class Leaves(Fells):
        def __call__(self, model: nn.Module, x: Tensor, y: Tensor, **_: Any) -> Tensor:
            return x + 2 * self.eps

    out, notes = run(AutoAttack(eps=0.05, attacks=(Leaves(numbers=()),)), Painted(), x, y)
    assert notes["fooled_by"].tolist() == [-1, -1, -1]
    assert torch.equal(out, x)


def test_inside_knows_norms_and_rounding() -> None:
    x = torch.rand(1, 3, 8, 8)
    for norm, length in (("linf", 1.0), ("l2", 192**0.5)):
        assert inside(norm, x, x + 0.1, 0.1 * length).all()
        assert not inside(norm, x, x + 0.101, 0.1 * length).any()


# ----------------------------------------------------------------------------------- resuming


class KilledError(Exception):
    pass


@pytest.mark.parametrize("version", ["standard", "rand"])
def test_killed_and_resumed_gives_the_same_bits_and_repeats_no_stage(version: str) -> None:
    model, x = network(), images()
    y = predicted(model, x)
    attack = small(eps=0.03, version=version, samples=2)
    with counted() as whole:
        expected, notes = run(attack, model, x, y)
    store: dict[str, dict[str, Tensor]] = {}
    spent = []
    for _ in range(9):
        left = [1]

        def memory(name: str, work: Callable[[], dict[str, Tensor]], left: list[int] = left) -> dict[str, Tensor]:
            if name not in store:
                if not left:
                    raise KilledError
                left.pop()
                store[name] = work()
            return {key: value.clone() for key, value in store[name].items()}

        with counted() as passes, contextlib.suppress(KilledError), keeping(memory):
            out, again = run(attack, model, x, y)
            break
        spent.append(passes)
    spent.append(passes)
    names = ["checks", "stage-0-apgd", "stage-1-apgd", "stage-2-fab", "stage-3-square"]
    assert list(store) == names[: 5 if version == "standard" else 3]
    assert torch.equal(out, expected)
    assert all(torch.equal(again[name], notes[name]) for name in notes)
    assert len(spent) == len(store)
    assert sum(p.forward for p in spent) == whole.forward, "a stage was run again"
    with counted() as none, keeping(lambda name, work: store[name]):
        assert torch.equal(run(attack, model, x, y)[0], expected)
    assert none.forward == 0


# --------------------------------------------------------------------------- what it notices


class Wrapped(nn.Module):
    def __init__(self, inner: nn.Module, way: str) -> None:
        super().__init__()
        self.inner, self.way = inner, way

    def forward(self, x: Tensor) -> Tensor:
        way = self.way
        if way == "randomised":
            x = x + 0.02 * torch.randn_like(x)
        if way == "zero_gradient":
            x = (x * 16).round() / 16 + 0 * x
        if way == "detached":
            x = (x * 16).round().detach() / 16
        if way == "non_finite_gradient":
            x = x + (0 * x).clamp(min=0).sqrt() * 0
        if way == "optimises_in_forward":
            with torch.enable_grad():
                leaf = x.detach().requires_grad_(True)
                x = x - 0.1 * torch.autograd.grad(leaf.square().sum(), leaf)[0]
        logits: Tensor = self.inner(x)
        return logits.softmax(1) if way == "probabilities" else logits


FLAGS = {name: {name} for name in MASKING if name != "black_box_beats_white_box"} | {"detached": {"zero_gradient"}}


@pytest.mark.parametrize("way", FLAGS)
def test_flags_are_noted_and_the_other_stages_still_run(way: str) -> None:
    model, x = Wrapped(network(), way), images()
    with global_seed(0):
        y = predicted(model, x)
    _, notes = run(small(eps=0.15), model, x, y)
    raised = {name for name in MASKING if bool(notes[name].any())} - {"black_box_beats_white_box"}
    assert raised == FLAGS[way]
    if way in ("zero_gradient", "detached", "non_finite_gradient"):
        assert bool((notes["fooled_by"] == 3).any()), "Square needs no gradient"
        assert torch.equal(notes["black_box_beats_white_box"], notes["fooled_by"] == 3)
    if way in ("detached", "non_finite_gradient"):
        assert set(notes["fooled_by"].tolist()) <= {-1, -2, 3}, "the white-box stages had nothing to go by"


def test_an_ordinary_network_is_flagged_for_nothing() -> None:
    model, x = network(), images()
    _, notes = run(small(eps=0.1, queries=3), model, x, predicted(model, x))
    assert {name for name in MASKING if bool(notes[name].any())} == set()


class Trap(nn.Module):
    """A gradient that is NaN for two of the images, but only away from where they start."""

    def __init__(self, inner: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.inner, self.x = inner, x

    def forward(self, point: Tensor) -> Tensor:
        apart = (point[:, None] - self.x[None, (6, 9)]).abs().flatten(2).amax(2)
        near = ((apart > 0) & (apart <= 0.0301)).any(1)
        logits: Tensor = self.inner(point)
        nothing = torch.zeros_like(logits)
        nothing[near] += (0 * point[near].flatten(1)).sum(1, keepdim=True).sqrt()
        return logits + nothing


@pytest.mark.parametrize("attacks", [(), (CarliniWagner(adam_steps=40, search_steps=1, initial_c=1.0),)])
def test_nan_on_the_way_costs_no_other_image_its_attack(attacks: tuple[Attack, ...]) -> None:
    model, x = network(), images()
    y = predicted(model, x)
    attack = small(eps=0.03, attacks=attacks)
    expected, whole = run(attack, model, x, y)
    assert bool((whole["fooled_by"] >= 0).any())
    with pytest.raises(GradientError):
        APGD(eps=0.03, steps=8)(Trap(model, x), x, y)
    out, notes = run(attack, Trap(model, x), x, y)
    others = torch.ones(N, dtype=torch.bool)
    others[[6, 9]] = False
    assert torch.equal(notes["non_finite_gradient"], ~others)
    assert torch.equal(notes["fooled_by"][others], whole["fooled_by"][others])
    assert torch.allclose(out[others], expected[others], atol=1e-9)


def test_refusals_of_another_kind_are_not_swallowed() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Refuses(Fells):
        def __call__(self, model: nn.Module, x: Tensor, y: Tensor, **_: Any) -> Tensor:
            raise InputError("needs a summer's day")

    with pytest.raises(InputError, match="summer"):
        run(AutoAttack(eps=0.05, attacks=(Refuses(numbers=()),)), Painted(), *painted(2))


def test_warnings_once_a_kind_and_none_to_who_listens() -> None:
    model, x = Wrapped(network(), "probabilities"), images()
    y = predicted(model, x)
    with pytest.warns(RobustnessWarning) as caught:
        small()(model, x, y)
    said = [str(w.message) for w in caught if w.category is RobustnessWarning]
    assert sum("(probabilities, 12 of 12 images)" in text for text in said) == 1
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error", RobustnessWarning)
        run(small(), model, x, y)
        ordinary = network()
        small(queries=3)(ordinary, x, predicted(ordinary, x))


def test_black_box_first_beats_nobody() -> None:
    x, y = painted(3)
    for first, beaten in ((True, False), (False, True)):
        stages = [Fells(numbers=(1,), black_box=True), Fells(numbers=())]
        _, notes = run(AutoAttack(eps=0.05, attacks=tuple(stages if first else stages[::-1])), Painted(), x, y)
        assert bool(notes["black_box_beats_white_box"].any()) is beaten


# -------------------------------------------------------------------- randomness in the network


def test_averaged_has_the_mean_value_and_the_mean_gradient() -> None:
    x = images(3)
    factors = iter([1.0, 2.0, 6.0] * 2)

    def objective(point: Tensor, rows: Tensor) -> Tensor:
        return next(factors) * point.square().sum((1, 2, 3))

    leaf = x.clone().requires_grad_(True)
    with counted() as passes:
        values = averaged(objective, 3)(leaf, torch.arange(3))
    (slope,) = torch.autograd.grad(values.sum(), leaf)
    assert torch.allclose(values, 3 * x.square().sum((1, 2, 3)))
    assert torch.allclose(slope, 6 * x)
    assert passes.backward == 2 * 3
    with torch.no_grad():
        assert not averaged(objective, 3)(leaf, torch.arange(3)).requires_grad


def test_expectation_beats_one_sample_on_a_noisy_network() -> None:
    """Where every pass turns the gradient into noise of its own, only the mean of many points up."""

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.inner(x + 3 * torch.randn_like(x) * (x - x.detach()))
            return logits + 0.01 * torch.randn_like(logits)

    model, x = Masked(), images()
    y = predicted(model.inner, x)
    reached = []
    for samples in (1, 30):
        _, notes = run(small(eps=0.04, steps=10, version="rand", samples=samples), model, x, y)
        reached.append(int((notes["fooled_by"] >= 0).sum()))
        assert not notes["randomised"].any(), "rand is what a randomised network is to be attacked with"
    assert reached[1] > reached[0]


def test_a_network_with_noise_gets_the_same_noise_again_and_leaves_the_generator_alone() -> None:
    model, x = Wrapped(network(), "randomised"), images()
    y = predicted(model.inner, x)
    before = torch.get_rng_state()
    first, second = (run(small(eps=0.1), model, x, y)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())


# -------------------------------------------------------------------------------- few classes


@pytest.mark.parametrize("version", ["standard", "rand"])
@pytest.mark.parametrize(("classes", "fallback"), [(2, True), (3, True), (4, False), (10, False)])
def test_few_classes(classes: int, fallback: bool, version: str) -> None:
    model, x = network(classes), images()
    y = predicted(model, x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        out, notes = run(small(eps=0.03, version=version, samples=2), model, x, y)
    assert torch.equal(predicted(model, out) != y, notes["fooled_by"] >= 0)
    assert bool((notes["fooled_by"] == -1).any()), "or the second stage was never run"
    fallback = fallback if version == "standard" else classes == 2
    assert notes["dlr_fallback"].tolist() == [fallback] * N
    assert notes["fewer_targets"].tolist() == [version == "standard" and classes < 10] * N


def test_one_class_is_refused() -> None:
    with pytest.raises(InputError, match="two classes"):
        small()(network(1), images(2), torch.zeros(2, dtype=torch.int64))


# ------------------------------------------------------------------------------------- doors


@contextlib.contextmanager
def refused(words: str, kind: type[Exception] = SpecError) -> Iterator[None]:
    with pytest.raises(kind, match=words):
        yield


def test_refusals() -> None:
    with refused("not both"):
        AutoAttack(eps=0.1, version="rand", attacks=(PGD(eps=0.1),))
    with refused("in linf, but its pgd is in l2"):
        AutoAttack(eps=0.1, attacks=(PGD(eps=0.1, norm="l2"),))
    with refused("takes no targets", InputError):
        small()(network(), images(), torch.zeros(N, dtype=torch.int64), target=torch.ones(N, dtype=torch.int64))


def test_attacks_of_ones_own_are_moved_to_the_eps() -> None:
    attack = AutoAttack(eps=0.2, attacks=(FGSM(eps=0.1), PGD(eps=0.4, steps=3)))
    assert attack.stages() == (FGSM(eps=0.2), PGD(eps=0.2, steps=3))
    moved: Any = with_eps(attack, 0.3)
    assert [stage.eps for stage in moved.stages()] == [0.3, 0.3]
    assert from_dict(to_dict(attack)) == attack
    assert digest(from_dict(to_dict(attack))) == digest(attack)


def test_maximise_is_the_best_of_the_stages_that_can() -> None:
    model, x = network(), images()
    y = predicted(model, x)

    def objective(point: Tensor, rows: Tensor) -> Tensor:
        return cross_entropy(model(point), y[rows])

    rows = torch.arange(N)
    best = objective(small().maximise(objective, x, rng=Stream(4)), rows)
    for number, stage in enumerate((APGD(eps=0.05, steps=8), Square(eps=0.05, queries=60, schedule="authors"))):
        alone = objective(stage.maximise(objective, x, rng=Stream(4).child("stage", number)), rows)
        assert bool((best >= alone).all())
    with refused("fells climbs nothing", InputError):
        AutoAttack(eps=0.05, attacks=(Fells(numbers=()),)).maximise(objective, x)
    mixed = AutoAttack(eps=0.05, attacks=(Fells(numbers=()), APGD(eps=0.05, steps=8)))
    assert bool((objective(mixed.maximise(objective, x), rows) > objective(x, rows)).all())


def test_attacks_whose_eps_is_no_radius_are_refused():
    for other in (IteratedFGSM(eps=0.1), Gabor()):
        with pytest.raises(SpecError, match="not the size of a ball"):
            AutoAttack(eps=0.1, attacks=(other,))
