"""What the Jakubovitz & Giryes study measures of its networks: clean accuracy, boundaries, and three attacks."""

from collections.abc import Iterable
from typing import Any

from pellucid.attacks import FGSM, JSMA, AutoAttack
from pellucid.studies.jakubovitz2018_scales import Half
from pellucid.tasks import Evaluate
from pellucid.tasks.boundaries import Boundaries

CHUNK = 100


def clean(
    half: Half, networks: Iterable[Any], images: int | None = None, known: Iterable[Any] = ()
) -> tuple[Evaluate, ...]:
    """Return clean accuracy on the first test images; of `known` networks, and where no number is given, on all."""
    whole = tuple(known)
    return tuple(
        Evaluate(network=network, data=half.data, images=None if network in whole else images) for network in networks
    )


def boundaries(
    half: Half, networks: Iterable[Any], images: int | None = None, known: Iterable[Any] = ()
) -> tuple[Boundaries, ...]:
    """Return DeepFool's distances and Jacobian norms, of the first test images; of `known` networks as many as ever."""
    whole = tuple(known)

    def count(network: Any) -> int:
        return half.measured if images is None or network in whole else images

    return tuple(Boundaries(network=n, data=half.data, images=count(n), chunk=CHUNK) for n in networks)


def fgsm(half: Half, networks: Iterable[Any]) -> tuple[Evaluate, ...]:
    """Return accuracy under FGSM over the grid of Figure 1, every image at every eps."""
    return tuple(
        Evaluate(
            network=network,
            data=half.data,
            attack=FGSM(eps=half.fgsm[-1]),
            epsilons=half.fgsm,
            stop_when_fooled=False,
            images=half.fgsm_images,
            chunk=CHUNK,
        )
        for network in networks
    )


def jsma(half: Half, networks: Iterable[Any]) -> tuple[Evaluate, ...]:
    """Return accuracy under the 1-pixel JSMA, for each network every size of a change of Figure 2 in turn."""
    return tuple(
        Evaluate(
            network=network,
            data=half.data,
            attack=JSMA(pixels="single", steps=half.jsma_steps, theta=theta, again=True),
            stop_when_fooled=False,
            images=half.jsma_images,
            chunk=CHUNK,
        )
        for network in networks
        for theta in half.jsma
    )


def autoattack(half: Half, networks: Iterable[Any]) -> tuple[Evaluate, ...]:
    """Return accuracy under AutoAttack at the eps of adversarial training."""
    images, steps, targets, queries = half.autoattack
    attack = AutoAttack(norm="linf", eps=half.eps, steps=steps, targets=targets, queries=queries)
    return tuple(
        Evaluate(network=network, data=half.data, attack=attack, images=images, chunk=CHUNK) for network in networks
    )
