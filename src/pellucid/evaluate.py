"""Adversarial examples made for one network, and what other networks make of them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pellucid.metrics import predict
from pellucid.models.classifier import Classifier
from pellucid.protocols import Attack
from pellucid.rng import Stream


def at_eps(attack: Attack, eps: float) -> Attack:
    """Return the attack with another eps; any other field stays as it is."""
    moved: Any = attack
    changed: Attack = replace(moved, eps=eps)
    return changed


def make_and_judge(
    maker: Classifier,
    judges: Sequence[Classifier],
    x: Tensor,
    y: Tensor,
    attack: Attack | None,
    epsilons: Sequence[float],
    rng: Stream,
) -> dict[str, Tensor]:
    """Attack `maker` at every eps and let it and the judges classify the results.

    Returns predictions int16 (1 + J, E, N), the maker's first; linf and l2 (E, N), the size of the perturbations
    as found in the images; unstable bool (E, N): the maker's prediction depended on the batch it was made in.
    Such a point counts as misclassified. With judges, attacks run all their steps (transfer); without, images
    leave once they are fooled (white-box accuracy). At eps 0 the images are clean.
    """
    rows: dict[str, list[Tensor]] = {"predictions": [], "linf": [], "l2": [], "unstable": []}
    for eps in epsilons:
        if attack is None or eps == 0:
            changed = x
        else:
            changed = at_eps(attack, eps)(maker, x, y, rng=rng, stop_when_fooled=not judges)
        own = predict(maker, changed)
        again = predict(maker, changed, batch_size=max(1, len(x) // 3))
        unstable = own != again
        own = torch.where(unstable & (own == y), again, own)
        difference = (changed - x).flatten(1)
        rows["predictions"].append(torch.stack([own, *(predict(judge, changed) for judge in judges)]).to(torch.int16))
        rows["linf"].append(difference.abs().amax(1))
        rows["l2"].append(difference.norm(dim=1))
        rows["unstable"].append(unstable)
    return {key: torch.stack(parts, 1 if key == "predictions" else 0) for key, parts in rows.items()}
