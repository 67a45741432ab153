"""Accuracy, clean and under attack: along epsilon, and from network to network."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pellucid.attacks import with_eps
from pellucid.errors import InputError
from pellucid.guard import batches, check_images, check_labels, check_logits, frozen
from pellucid.maths.notes import Notes, noted
from pellucid.maths.passes import Passes, counted
from pellucid.maths.resume import within
from pellucid.metrics.statistics import Interval, wilson
from pellucid.protocols import Attack
from pellucid.rng import Stream


def predict(model: nn.Module, x: Tensor, batch_size: int = 500) -> Tensor:
    """Return the predicted classes in eval mode: argmax_k f_k(x).

    x (N, C, H, W) in [0, 1] -> int64 (N,) on the device of x. The network is left as it was found.
    Raises InputError for images outside [0, 1] and logits that are not finite.

    >>> predict(nn.Flatten(), torch.tensor([[[[0.1, 0.9]]], [[[0.8, 0.2]]]]))
    tensor([1, 0])
    """
    x = check_images(x)
    with frozen(model), torch.no_grad():
        parts = [check_logits(model(part), part).argmax(1) for part in batches(x, batch_size)]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64, device=x.device)


def accuracy(predictions: Tensor, labels: Tensor, confidence: float = 0.95) -> Interval:
    """Return the share of right predictions with its Wilson interval; higher is better.

    (1/N) sum_n [prediction_n = y_n]; misclassified clean images count as errors.

    predictions (N,), labels (N,), both int64 -> three numbers in [0, 1], NaN for N = 0.
    Raises InputError where the shapes differ. Source: Ross & Doshi-Velez 2018, Figure 1; Wilson 1927.

    >>> accuracy(torch.tensor([0, 1, 1, 2]), torch.tensor([0, 1, 2, 2])).value
    0.75
    """
    if predictions.shape != labels.shape or predictions.ndim != 1:
        raise InputError(
            f"predictions and labels must both be (N,); got {tuple(predictions.shape)} and {tuple(labels.shape)}"
        )
    return wilson(int((predictions == labels.to(predictions.device)).sum()), len(labels), confidence)


def accuracy_curve(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attack: Attack,
    epsilons: Sequence[float],
    rng: Stream | None = None,
    batch_size: int = 500,
) -> Tensor:
    """Return the predictions under a white-box attack, for each epsilon: the curve is `accuracy` of each row.

    prediction_{e,n} = argmax_k f_k(attack_{eps_e}(f, x_n, y_n)); accuracy_e = (1/N) sum_n [prediction_{e,n} =
    y_n], higher is better.

    x (N, C, H, W) in [0, 1], y (N,), epsilons (E) ascending in the attack's unit -> int64 (E, N). Images
    leave the attack once they are misclassified, so one that is misclassified at any iterate counts as an
    error; at eps 0 no attack is run. Each eps is attacked from the clean images, but an image that a smaller eps
    fooled is not attacked again, since what fooled it lies in the larger ball too: the accuracy is that of
    separate runs or lower, and never rises with eps. (That is a convention where no ball is promised: fog of a
    larger eps need not be able to do what thinner fog did.) Random numbers depend on the position in x, not on
    the batch. Raises InputError for an attack without eps, and for epsilons that do not ascend.
    Source: Ross & Doshi-Velez 2018, Figure 1 (diagonal); Boopathy et al. 2020, Table 1. Deviation: the papers
    attack every image at every eps and judge the last iterate (`transfer_predictions` does).

    >>> from pellucid.attacks import FGSM
    >>> x, y = torch.tensor([[[[0.1, 0.9]]], [[[0.6, 0.4]]]]), torch.tensor([1, 0])
    >>> accuracy_curve(nn.Flatten(), x, y, FGSM(eps=0.0), [0.0, 0.2])
    tensor([[1, 0],
            [1, 1]])
    """
    _variants(attack, epsilons)  # refuse before anything is computed
    x = check_images(x)
    y = check_labels(y, len(x))
    out = torch.empty(len(epsilons), len(x), dtype=torch.int64, device=x.device)
    for rows in batches(torch.arange(len(x), device=x.device), batch_size):
        stream = (rng or Stream()).take(rows)
        made = adversarial_grid(model, x[rows], y[rows], attack, epsilons, rng=stream, stop_when_fooled=True)
        for number, found in enumerate(made):
            out[number, rows] = found.predictions
    return out


def transfer_predictions(
    makers: Sequence[nn.Module],
    judges: Sequence[nn.Module],
    x: Tensor,
    y: Tensor,
    attack: Attack,
    epsilons: Sequence[float],
    rng: Stream | None = None,
    batch_size: int = 500,
) -> Tensor:
    """Return what every network predicts for the adversarial images made on every network.

    prediction_{m,j,e,n} = argmax_k f^j_k(attack_{eps_e}(f^m, x_n, y_n)).

    x (N, C, H, W) in [0, 1], y (N,), epsilons (E) ascending -> int64 (makers, judges, E, N). Attacks run all
    their steps and hand over what they return by default (the last iterate), also where the maker is fooled
    early: examples made to transfer are not cut short. All networks lie on the device of x.
    Raises InputError for an attack without eps, and for epsilons that do not ascend.
    Source: Ross & Doshi-Velez 2018, Figures 1-3 (columns are makers, curves judges).

    >>> from pellucid.attacks import FGSM
    >>> x, y = torch.tensor([[[[0.1, 0.9]]], [[[0.6, 0.4]]]]), torch.tensor([1, 0])
    >>> makers, judges = [nn.Flatten()], [nn.Flatten(), nn.Flatten()]
    >>> transfer_predictions(makers, judges, x, y, FGSM(eps=0.1), [0.0, 0.2]).shape
    torch.Size([1, 2, 2, 2])
    """
    _variants(attack, epsilons)  # refuse before anything is computed
    x = check_images(x)
    y = check_labels(y, len(x))
    out = torch.empty(len(makers), len(judges), len(epsilons), len(x), dtype=torch.int64, device=x.device)
    for rows in batches(torch.arange(len(x), device=x.device), batch_size):
        for m, maker in enumerate(makers):
            stream = (rng or Stream()).take(rows)
            for e, found in enumerate(adversarial_grid(maker, x[rows], y[rows], attack, epsilons, rng=stream)):
                for j, judge in enumerate(judges):
                    out[m, j, e, rows] = predict(judge, found.x, batch_size)
    return out


def transfer_matrix(predictions: Tensor, labels: Tensor, confidence: float = 0.95) -> list[list[list[Interval]]]:
    """Return the accuracy of every judge on every maker's examples, `matrix[maker][judge][epsilon]`.

    (1/N) sum_n [prediction_{m,j,e,n} = y_n] with Wilson intervals; higher is better (for the judge).

    predictions (makers, judges, E, N), labels (N,) -> intervals in [0, 1]. Raises InputError for other
    shapes. Source: Ross & Doshi-Velez 2018, Figures 1-3.

    >>> matrix = transfer_matrix(torch.tensor([[[[0, 1], [1, 1]]]]), torch.tensor([0, 1]))
    >>> [point.value for point in matrix[0][0]]
    [1.0, 0.5]
    """
    if predictions.ndim != 4 or labels.shape != predictions.shape[3:]:
        raise InputError(
            "predictions must be (makers, judges, epsilons, N) and labels (N,); "
            f"got {tuple(predictions.shape)} and {tuple(labels.shape)}"
        )
    return [[[accuracy(row, labels, confidence) for row in judge] for judge in maker] for maker in predictions]


def _variants(attack: Attack, epsilons: Sequence[float]) -> list[Attack | None]:
    """Return the attack with each eps, None where it is 0 and nothing is to be done."""
    if any(b <= a for a, b in itertools.pairwise(epsilons)):
        raise InputError(f"epsilons must ascend, each once; got {', '.join(f'{e:g}' for e in epsilons)}")
    return [None if eps == 0 else with_eps(attack, eps) for eps in epsilons]


class Attacked(NamedTuple):
    """One batch at one eps: the images, what their network predicts for them, the attack's passes and notes."""

    x: Tensor
    predictions: Tensor
    passes: Passes
    notes: Notes


def adversarial_grid(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attack: Attack | None,
    epsilons: Sequence[float] | None,
    *,
    rng: Stream | None = None,
    stop_when_fooled: bool = False,
) -> Iterator[Attacked]:
    """Yield the adversarial images of one batch for each eps, x itself where eps is 0 or there is no attack.

    The one place that sees all epsilons of a batch at once: work that they share belongs here. An attack with a
    method `grid` (FGSM: one gradient serves every eps) makes them all from one run. epsilons None is the attack as
    it is described, once. stop_when_fooled is white-box accuracy: images that are misclassified, before any
    attack or at a smaller eps, are left as they are (a random start must not mend them). Raises SpecError for
    epsilons of an attack without eps, and InputError for epsilons that do not ascend.
    """
    if attack is None or epsilons is None:
        variants: list[Attack | None] = [attack] * (1 if epsilons is None else len(epsilons))
    else:
        variants = _variants(attack, epsilons)
    rng = rng or Stream()
    images, predictions = x, torch.zeros_like(y)
    notes: Notes = {}
    rows = torch.arange(len(x), device=x.device)
    if stop_when_fooled or None in variants:
        predictions = predict(model, x)
    if stop_when_fooled:
        rows = rows[predictions == y]
    shared, started = None, rows
    if attack is not None and epsilons is not None and hasattr(attack, "grid"):
        sizes = [eps for eps in epsilons if eps > 0]
        shared = attack.grid(model, x[rows], y[rows], sizes, rng=rng.take(rows))
    for number, variant in enumerate(variants):
        if variant is None or not len(rows):
            yield Attacked(images, predictions, Passes(), notes)
            continue
        with counted() as passes, noted() as said, within(f"eps-{number}"):
            if shared is not None:
                changed = next(shared)[torch.searchsorted(started, rows)]
            else:
                changed = variant(model, x[rows], y[rows], rng=rng.take(rows), stop_when_fooled=stop_when_fooled)
        images, predictions = images.clone(), predictions.clone()
        images[rows], predictions[rows] = changed, predict(model, changed)
        notes = {name: _among(values, rows, notes.get(name), len(x)) for name, values in said.items()}
        yield Attacked(images, predictions, passes, notes)
        if stop_when_fooled:
            rows = rows[predictions[rows] == y[rows]]


def _among(values: Tensor, rows: Tensor, before: Tensor | None, n: int) -> Tensor:
    """Return the notes (n,) of a batch of which only some rows were attacked; the others keep what was noted."""
    everyone = unnoted(values, n) if before is None else before.clone()
    everyone[rows] = values
    return everyone


def unnoted(like: Tensor, n: int) -> Tensor:
    """Return what stands for images that an attack was not run on: False, -2 or NaN."""
    empty = False if like.dtype == torch.bool else torch.nan if like.is_floating_point() else -2
    return like.new_full((n,), empty)
