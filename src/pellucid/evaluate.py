"""Adversarial examples made for one network, and what other networks make of them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.maths.passes import counted
from pellucid.metrics import adversarial_grid, predict
from pellucid.metrics.robustness import unnoted
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
    as found in the images; unstable bool (E, N): the maker's prediction depended on the batch it was made in; passes
    int64 (E, 3): the attack's forward and backward ones, and the forward ones of judging; and the attack's notes
    about each image as "note_NAME" (E, N).
    stop_when_fooled is for white-box accuracy: images leave once they are fooled, also for larger eps, and an
    unstable prediction counts as misclassified. Otherwise attacks run all their steps (transfer, the papers'
    protocols). At eps 0 the images are clean; epsilons None is the attack as it is described.
    """
    rows: dict[str, list[Tensor]] = {"predictions": [], "linf": [], "l2": [], "unstable": [], "passes": []}
    notes: list[dict[str, Tensor]] = []
    grid = adversarial_grid(maker, x, y, attack, epsilons, rng=rng, stop_when_fooled=stop_when_fooled)
    while True:
        with counted() as passes:
            found = next(grid, None)
            if found is None:
                break
            own = found.predictions
            again = predict(maker, found.x, batch_size=max(1, len(x) // 3))
            unstable = own != again
            if stop_when_fooled:
                own = torch.where(unstable & (own == y), again, own)
            rows["predictions"].append(torch.stack([own, *(predict(judge, found.x) for judge in judges)]).short())
        difference = (found.x - x).flatten(1)
        rows["linf"].append(difference.abs().amax(1))
        rows["l2"].append(difference.norm(dim=1))
        rows["unstable"].append(unstable)
        spent = found.passes
        rows["passes"].append(torch.tensor([spent.forward, spent.backward, passes.forward - spent.forward]))
        notes.append(found.notes)
    result = {key: torch.stack(parts, 1 if key == "predictions" else 0) for key, parts in rows.items()}
    for name, like in {name: values for said in notes for name, values in said.items()}.items():
        result[f"note_{name}"] = torch.stack([said.get(name, unnoted(like, len(x))) for said in notes])
    return result
