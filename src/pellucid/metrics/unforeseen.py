"""Robustness against attacks a network was not trained for, as a share of what training for them achieves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pellucid.errors import InputError

Benchmark = Literal["cifar10", "imagenet100"]


@dataclass(frozen=True)
class Calibration:
    """The sizes of one attack at which Kang et al. compare, and the best accuracy of networks trained against it.

    eps as they print it: pixels to 255 for linf, l2 and l1 (summed over the image), the unit of the attack for the
    others. ata: shares in [0, 1], one for each eps.
    """

    eps: tuple[float, ...]
    ata: tuple[float, ...]
    pixels: bool = False

    @property
    def sizes(self) -> tuple[float, ...]:
        """The eps to give to an attack of Pellucid: in units of [0, 1] for linf, l2 and l1, as printed for others."""
        return tuple(eps / 255 for eps in self.eps) if self.pixels else self.eps


def _calibration(eps: Sequence[float], percent: Sequence[float], pixels: bool = False) -> Calibration:
    return Calibration(tuple(eps), tuple(round(value / 100, 4) for value in percent), pixels)


# Kang et al. 2019, tables of calibrated distortion sizes and ATA values; JPEG l2 on CIFAR-10 from the authors' files.
# ResNet-56 on CIFAR-10, ResNet-50 on ImageNet-100 at 224 x 224; 200 steps each.
CALIBRATED: Mapping[Benchmark, Mapping[str, Calibration]] = {
    "cifar10": {
        "linf": _calibration((1, 2, 4, 8, 16, 32), (91.0, 87.8, 81.6, 71.3, 46.5, 23.1), True),
        "l2": _calibration((40, 80, 160, 320, 640, 2560), (90.1, 86.4, 79.6, 67.3, 49.9, 17.3), True),
        "l1": _calibration((195, 390, 780, 1560, 6240, 24960), (92.2, 90.0, 83.2, 73.8, 47.4, 35.3), True),
        "jpeg_linf": _calibration((0.03125, 0.0625, 0.125, 0.25, 0.5, 1), (89.7, 87.0, 83.1, 78.6, 69.7, 35.4)),
        "jpeg_l2": _calibration((0.25, 0.5, 1, 2, 4, 8), (92.2, 91.0, 88.4, 85.8, 81.3, 72.0)),
        "jpeg_l1": _calibration((2, 8, 64, 256, 512, 1024), (91.4, 88.1, 80.2, 68.9, 56.3, 37.7)),
        "elastic": _calibration((0.125, 0.25, 0.5, 1, 2, 8), (87.4, 81.3, 72.1, 58.2, 45.4, 27.8)),
    },
    "imagenet100": {
        "linf": _calibration((1, 2, 4, 8, 16, 32), (84.6, 82.1, 76.2, 66.9, 40.1, 12.9), True),
        "l2": _calibration((150, 300, 600, 1200, 2400, 4800), (85.0, 83.5, 79.6, 72.6, 59.1, 19.9), True),
        "l1": _calibration((9562.5, 19125, 76500, 153000, 306000, 612000), (84.4, 82.7, 76.3, 68.9, 56.4, 36.1), True),
        "jpeg_linf": _calibration((0.0625, 0.125, 0.25, 0.5, 1, 2), (85.0, 83.2, 79.3, 72.8, 34.8, 1.1)),
        "jpeg_l2": _calibration((8, 16, 32, 64, 128, 256), (84.8, 82.5, 78.9, 72.3, 47.5, 3.4)),
        "jpeg_l1": _calibration((256, 1024, 4096, 16384, 65536, 131072), (84.8, 81.8, 76.2, 67.1, 46.4, 41.8)),
        "elastic": _calibration((0.25, 0.5, 2, 4, 8, 16), (85.9, 83.2, 78.1, 75.6, 57.0, 22.5)),
        "fog": _calibration((128, 256, 512, 2048, 4096, 8192), (85.8, 83.8, 79.0, 68.4, 67.9, 64.7)),
        "gabor": _calibration((6.25, 12.5, 25, 400, 800, 1600), (84.0, 79.8, 79.8, 66.2, 44.7, 14.6)),
        "snow": _calibration((0.0625, 0.125, 0.25, 2, 4, 8), (84.0, 81.1, 77.7, 65.6, 59.5, 41.2)),
    },
}


def adversarial_test_accuracy(accuracies: Tensor) -> Tensor:
    """Return the best accuracy under an attack that training against this attack achieved, at each eps.

    ATA(A, eps_k) = max_m Acc(A, eps_k, M_m), M_m trained against A, each at a size of its own; higher is better.

    accuracies (networks, E), shares in [0, 1] -> (E,). Raises InputError for other shapes and values.
    Source: Kang et al. 2019, Testing robustness against unforeseen adversaries. Boopathy et al. 2020 use the same
    three letters for the plain accuracy under an attack (`accuracy`).

    >>> adversarial_test_accuracy(torch.tensor([[0.9, 0.4], [0.8, 0.6]]))
    tensor([0.9000, 0.6000])
    """
    if accuracies.ndim != 2 or not len(accuracies):
        raise InputError(f"accuracies must be (networks, epsilons), of one network at least; got {accuracies.shape}")
    return _shares(accuracies).amax(0)


def unforeseen_attack_robustness(accuracies: Tensor, ata: Sequence[float] | Tensor) -> Tensor:
    """Return the accuracy of a network under an attack, as a share of what training against that attack achieves.

    UAR(A, M) = sum_k Acc(A, eps_k, M) / sum_k ATA(A, eps_k); higher is better, 1 is as robust as if A had been
    foreseen. The sum runs over calibrated sizes, `CALIBRATED`; as there, every image is to be attacked at every size
    (an `Evaluate` with stop_when_fooled=False).

    accuracies (..., E), shares in [0, 1], ata (E) -> (...). Raises InputError where the sizes do not agree, for
    values outside [0, 1] (percentages, say) and where no ATA is above 0.
    Source: Kang et al. 2019, Testing robustness against unforeseen adversaries.

    >>> linf = CALIBRATED["cifar10"]["linf"]
    >>> [f"{eps:.4f}" for eps in linf.sizes[:2]], linf.ata[:2]
    (['0.0039', '0.0078'], (0.91, 0.878))
    >>> unforeseen_attack_robustness(torch.tensor([0.45, 0.15]), ata=(0.9, 0.3))
    tensor(0.5000)
    """
    best = _shares(torch.as_tensor(ata, dtype=accuracies.dtype, device=accuracies.device))
    if best.ndim != 1 or not accuracies.ndim or accuracies.shape[-1] != len(best):
        raise InputError(
            f"accuracies (..., E) and ata (E) must have the same epsilons; got {accuracies.shape} and {best.shape}"
        )
    if not float(best.sum()) > 0:
        raise InputError("unforeseen attack robustness needs an adversarial test accuracy above 0")
    return _shares(accuracies).sum(-1) / best.sum()


def _shares(values: Tensor) -> Tensor:
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise InputError("accuracies must be shares in [0, 1]; divide percentages by 100")
    return values
