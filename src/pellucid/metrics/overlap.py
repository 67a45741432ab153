"""Which networks an adversarial image fools together."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.errors import InputError


def misclassification_overlap(predictions: Tensor, labels: Tensor, names: Sequence[str]) -> dict[tuple[str, ...], int]:
    """Return how many images are misclassified by exactly these networks, for each group: a Venn diagram's regions.

    count_S = |{n : {j : prediction_{j,n} != y_n} = S}| for every S among the J networks.

    predictions (J, N) of the same images, labels (N,), names (J) -> 2^J counts, smallest groups first, each group in
    the order of `names`; () are the images that all classify correctly, and all counts add up to N. For the
    examples of several makers, call it with each maker's: `transfer_predictions(...)[maker, :, eps]`.
    Raises InputError where the shapes do not agree, names repeat, or there are more than 16 networks.
    Source: Ross & Doshi-Velez 2018, Figure 10.

    >>> predictions = torch.tensor([[0, 0, 1], [0, 1, 1]])
    >>> misclassification_overlap(predictions, torch.tensor([0, 0, 0]), ["plain", "trained"])
    {(): 1, ('plain',): 0, ('trained',): 1, ('plain', 'trained'): 1}
    """
    if predictions.ndim != 2 or labels.shape != predictions.shape[1:]:
        raise InputError(
            f"predictions must be (networks, N) and labels (N,); got {predictions.shape} and {labels.shape}"
        )
    count = len(predictions)
    if len(names) != count or len(set(names)) != count:
        raise InputError(f"each of the {count} networks needs a name of its own; got {', '.join(names) or 'none'}")
    if count > 16:
        raise InputError(f"{count} networks have {2**count} groups: choose 16 at most")
    wrong = predictions != labels.to(predictions.device)
    weights = 2 ** torch.arange(count, device=predictions.device)
    sizes = torch.bincount((wrong * weights[:, None]).sum(0), minlength=2**count).tolist()
    groups = (group for size in range(count + 1) for group in itertools.combinations(range(count), size))
    return {tuple(names[j] for j in group): sizes[sum(2**j for j in group)] for group in groups}
