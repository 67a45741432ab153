import pytest
import torch

from pellucid.errors import InputError
from pellucid.metrics import CALIBRATED, adversarial_test_accuracy, unforeseen_attack_robustness


def test_by_hand():
    ata = adversarial_test_accuracy(torch.tensor([[0.9, 0.5, 0.1], [0.8, 0.6, 0.2], [0.7, 0.1, 0.0]]))
    assert ata.tolist() == pytest.approx([0.9, 0.6, 0.2])
    robustness = unforeseen_attack_robustness(torch.tensor([[0.9, 0.6, 0.2], [0.5, 0.34, 0.01]]), ata)
    assert robustness.tolist() == pytest.approx([1.0, 0.85 / 1.7])


def test_it_is_a_ratio_of_sums_not_a_mean_of_ratios():
    assert float(unforeseen_attack_robustness(torch.tensor([0.8, 0.1]), (0.8, 0.2))) == pytest.approx(0.9)


def test_the_calibration_has_six_ascending_sizes_for_each_attack():
    assert {name: len(attacks) for name, attacks in CALIBRATED.items()} == {"cifar10": 7, "imagenet100": 10}
    for attacks in CALIBRATED.values():
        for name, found in attacks.items():
            assert len(found.eps) == len(found.ata) == len(found.sizes) == 6
            assert list(found.eps) == sorted(set(found.eps))
            assert list(found.ata) == sorted(found.ata, reverse=True)
            assert all(0 < value < 1 for value in found.ata)
            assert found.pixels == (name in ("linf", "l2", "l1"))


def test_units():
    cifar = CALIBRATED["cifar10"]
    assert cifar["linf"].sizes[3] == pytest.approx(8 / 255)
    assert cifar["l2"].sizes[0] == pytest.approx(40 / 255)
    # the authors' program takes the l1 size by pixel and channel: 0.0634766 of 255 for the smallest
    assert cifar["l1"].sizes[0] == pytest.approx(0.0634766 * 32 * 32 * 3 / 255, rel=1e-5)
    assert cifar["jpeg_l1"].sizes == cifar["jpeg_l1"].eps
    assert CALIBRATED["imagenet100"]["l1"].sizes[5] == pytest.approx(4.065689 * 224 * 224 * 3 / 255, rel=1e-5)


def test_the_sum_of_the_printed_accuracies_is_one_robustness():
    for attacks in CALIBRATED.values():
        for found in attacks.values():
            assert float(unforeseen_attack_robustness(torch.tensor(found.ata), found.ata)) == pytest.approx(1)


def test_refusals():
    with pytest.raises(InputError, match="divide percentages by 100"):
        unforeseen_attack_robustness(torch.tensor([91.0, 87.8]), (0.91, 0.88))
    with pytest.raises(InputError, match="divide percentages by 100"):
        unforeseen_attack_robustness(torch.tensor([0.91, torch.nan]), (0.91, 0.88))
    with pytest.raises(InputError, match="same epsilons"):
        unforeseen_attack_robustness(torch.tensor([0.9]), (0.91, 0.88))
    with pytest.raises(InputError, match="above 0"):
        unforeseen_attack_robustness(torch.tensor([0.0]), (0.0,))
    with pytest.raises(InputError, match="networks, epsilons"):
        adversarial_test_accuracy(torch.tensor([0.9]))
    with pytest.raises(InputError, match="one network at least"):
        adversarial_test_accuracy(torch.empty(0, 3))
