"""Adversarial examples made for one network, and what other networks make of them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.metrics import adversarial_grid, predict
from pellucid.models.classifier import Classifier
from pellucid.protocols import Attack
from pellucid.rng import Stream


def make_and_judge(
    maker: Classifier,
    judges: Sequence[Classifier],
    x: Tensor,
    y: Tensor,
    attack: Attack | None,
    epsilons: Sequence[float] | None,
    rng: Stream,
    stop_when_fooled: bool,
) -> dict[str, Tensor]:
    """Attack `maker` at every eps and let it and the judges classify the results.

    Returns predictions int16 (1 + J, E, N), the maker's first; linf and l2 (E, N), the size of the perturbations
    as found in the images; unstable bool (E, N): the maker's prediction depended on the batch it was made in.
    stop_when_fooled is for white-box accuracy: images leave once they are fooled, and an unstable prediction
    counts as misclassified. Otherwise attacks run all their steps (transfer, the papers' protocols). At eps 0 the
    images are clean; epsilons None is the attack as it is described.
    """
    rows: dict[str, list[Tensor]] = {"predictions": [], "linf": [], "l2": [], "unstable": []}
    for changed in adversarial_grid(maker, x, y, attack, epsilons, rng=rng, stop_when_fooled=stop_when_fooled):
        own = predict(maker, changed)
        again = predict(maker, changed, batch_size=max(1, len(x) // 3))
        unstable = own != again
        if stop_when_fooled:
            own = torch.where(unstable & (own == y), again, own)
        difference = (changed - x).flatten(1)
        rows["predictions"].append(torch.stack([own, *(predict(judge, changed) for judge in judges)]).to(torch.int16))
        rows["linf"].append(difference.abs().amax(1))
        rows["l2"].append(difference.norm(dim=1))
        rows["unstable"].append(unstable)
    return {key: torch.stack(parts, 1 if key == "predictions" else 0) for key, parts in rows.items()}
