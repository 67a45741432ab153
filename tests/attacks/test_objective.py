import pytest
import torch
from scipy import stats

from pellucid.attacks.objective import choose_target
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
