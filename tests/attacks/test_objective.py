import pytest
import torch
from scipy import stats
from torch import nn

from pellucid.attacks import FGSM, PGD
from pellucid.attacks.objective import choose_target
from pellucid.errors import InputError, SpecError
from pellucid.interpreters import Gradient
from pellucid.metrics import gradient_norms, log_probabilities, predict
from pellucid.rng import Stream


@pytest.mark.parametrize("rule", ["next", "random", "runner_up", "least_likely"])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_target_is_never_the_true_label(rule, classes, generator):
    logits = torch.randn(300, classes, generator=generator)
    labels = torch.randint(0, classes, (300,), generator=generator)
    target = choose_target(rule, logits, labels, Stream(0))
    assert target.dtype == torch.int64
    assert (target != labels).all()
    assert ((target >= 0) & (target < classes)).all()


def test_rules_by_hand():
    logits, labels = torch.tensor([[5.0, 1.0, 3.0], [1.0, 9.0, 4.0]]), torch.tensor([0, 2])
    assert choose_target("next", logits, labels, Stream(0)).tolist() == [1, 0]
    assert choose_target("runner_up", logits, labels, Stream(0)).tolist() == [2, 1]
    assert choose_target("least_likely", logits, labels, Stream(0)).tolist() == [1, 0]


def test_random_targets_are_uniform_and_belong_to_the_sample():
    logits, labels = torch.zeros(9000, 4), torch.arange(9000) % 4
    target = choose_target("random", logits, labels, Stream(1))
    for label in range(4):
        counts = torch.bincount(target[labels == label], minlength=4)
        assert counts[label] == 0
        assert stats.chisquare(counts[counts > 0].numpy()).pvalue > 1e-3
        assert int((counts > 0).sum()) == 3
    rows = torch.tensor([5, 8000, 77])
    assert torch.equal(choose_target("random", logits[rows], labels[rows], Stream(1).take(rows)), target[rows])
    assert not torch.equal(choose_target("random", logits, labels, Stream(2)), target)


ATTACKS = (FGSM(eps=0.1), PGD(eps=0.1, steps=3), PGD(eps=0.1, norm="l2", steps=3))


class Detached(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x).detach()


class Broken(Detached):
    """NaN for the last image."""

    def forward(self, x):
        return torch.cat([self.inner(x[:-1]), self.inner(x[-1:]) * torch.nan])


class Rooted(Detached):
    """Finite logits, whose slope in a black image is 0 times infinity."""

    def forward(self, x):
        return self.inner(x) + 0 * (x - x.detach()).sqrt().sum((1, 2, 3))[:, None]


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize(
    ("flaw", "words"),
    [(Detached, "detached"), (Broken, "NaN or infinite for 1 of 5 images"), (Rooted, "gradient .* contains NaN")],
)
def test_attacks_refuse_networks_that_they_could_not_climb(linear, generator, attack, flaw, words):
    x = torch.rand(5, 1, 3, 4, generator=generator, dtype=torch.float64)
    with pytest.raises(InputError, match=words):
        attack(flaw(linear()), x, torch.zeros(5, dtype=torch.long))


def test_maps_of_a_detached_network_are_refused(linear):
    with pytest.raises(InputError, match="detached"):
        Gradient()(Detached(linear()), torch.zeros(5, 1, 3, 4, dtype=torch.float64), torch.zeros(5, dtype=torch.long))


def test_no_target_at_all_is_refused(linear):
    with pytest.raises(InputError, match=r"targets .*\(5, 0\)"):
        Gradient()(linear(), torch.zeros(5, 1, 3, 4, dtype=torch.float64), torch.zeros(5, 0, dtype=torch.long))


def test_predictions_need_finite_logits_and_a_batch(linear):
    x = torch.zeros(5, 1, 3, 4, dtype=torch.float64)
    with pytest.raises(InputError, match="NaN or infinite for 1 of 5 images"):
        predict(Broken(linear()), x)
    for measure in (
        predict,
        log_probabilities,
        lambda *given, **more: gradient_norms(*given, x[:, 0, 0, 0].long(), **more),
    ):
        with pytest.raises(InputError, match="batch_size must be at least 1"):
            measure(linear(), x, batch_size=0)


@pytest.mark.parametrize("given", [{"eps": 1e39}, {"eps": 0.1, "step_size": 1e39}])
def test_sizes_beyond_every_image_are_refused(given):
    with pytest.raises(SpecError, match="less than or equal to 10000"):
        PGD(**given)


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        (lambda point, rows: point.flatten(1), r"one value per row, \(2,\); got shape \(2, 4\)"),
        (lambda point, rows: point.sum(), r"one value per row, \(2,\); got shape \(\)"),
        (lambda point, rows: 3.0, r"one value per row, \(2,\); got float"),
        (lambda point, rows: torch.zeros(len(point)), "does not depend on the images"),
    ],
)
def test_an_objective_is_one_value_per_row_of_the_images(objective, words):
    with pytest.raises(InputError, match=words):
        PGD(eps=0.1, steps=2).maximise(objective, torch.full((2, 1, 2, 2), 0.5))
