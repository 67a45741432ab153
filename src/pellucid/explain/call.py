"""Explaining images in Python, in one call."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.attacks import Taught, is_learner
from pellucid.errors import InputError, SpecError
from pellucid.explain.classes import numbered, targets_of
from pellucid.explain.decisions import deciding
from pellucid.explain.explanation import Explanation, titles
from pellucid.explain.pairs import explain_pairs, joined, logits_of, probabilities, refusal
from pellucid.guard import batches, check_images, check_labels
from pellucid.models import Classifier, adapt
from pellucid.protocols import Attack, Interpreter
from pellucid.rng import Stream
from pellucid.spec import Member


def explain(
    model: nn.Module,
    images: Tensor,
    interpreters: str | Sequence[str | Mapping[str, Any] | Interpreter] = ("gradient",),
    *,
    classes: str | Sequence[str | int] = ("predicted",),
    labels: Tensor | None = None,
    attack: str | Attack | None = None,
    rng: Stream | None = None,
    names: Sequence[str] = (),
    batch_size: int = 64,
) -> Explanation:
    """Explain images by several interpreters, for several classes each, before and after an attack.

    model: any network from images to logits (N, K); one that is no Classifier is adapted without normalisation
    (`models.adapt` gives it one, and a head). images: float (N, C, H, W) in [0, 1], on the model's device.
    interpreters: names, names with fields ("smooth_grad inner=gradient samples=20"), or descriptions; one
    alone will do, as for classes; an attack may be spelled like that, too ("pgd eps=0.1").
    classes: see `targets_of`; `names` are those of the K classes. The attack moves images away from `labels`, without
    them from the predicted class; one that learns from many images learns from these. The result does not depend on
    batch_size beyond rounding; the model is left as it was found. Raises InputError for images, labels and classes
    that do not fit, SpecError for unknown interpreters, and what an interpreter refuses, before the attack begins.

    >>> from pellucid.models import SmallCNN
    >>> network = SmallCNN().build(1, (28, 28), 10)
    >>> found = explain(network, torch.rand(2, 1, 28, 28), ("gradient", "cam"), classes=("predicted", "runner_up"))
    >>> found.maps["gradient"].shape, found.maps["cam"].shape
    (torch.Size([2, 2, 1, 28, 28]), torch.Size([2, 2, 7, 7]))
    """
    network, x, rng = adapt(model), check_images(images).detach(), rng or Stream(0)
    attack = _read(attack, "attack") if isinstance(attack, str) else attack
    chosen = tuple(
        _interpreter(value) for value in ((interpreters,) if isinstance(interpreters, str) else interpreters)
    )
    titles(chosen)  # refuses two that are the same
    words = tuple(str(word) for word in ((classes,) if isinstance(classes, str) else classes))
    labels = None if labels is None else check_labels(labels, len(x), single=True).to(x.device)
    if len(x):
        _try(network, x[:1], chosen, words, None if labels is None else labels[:1], names)
    attack = _taught(attack, network, x, labels, rng)
    found, count = [], 0
    with deciding() as decisions:
        for rows in batches(torch.arange(len(x), device=x.device), batch_size) or (torch.arange(0, device=x.device),):
            y = None if labels is None else labels[rows]
            targets, count = _targets(network, x[rows], words, y, names)
            found.append(explain_pairs(network, x[rows], targets, attack, chosen, rng.take(rows), y))
    tensors = joined(found) | ({} if labels is None else {"labels": labels})
    return Explanation.of(tensors, chosen, words, tuple(names) or numbered(count), decisions)


def _try(
    network: Classifier,
    x: Tensor,
    interpreters: Sequence[Interpreter],
    classes: Sequence[str],
    labels: Tensor | None,
    names: Sequence[str],
) -> None:
    """Raise, on one image, what the classes or an interpreter will refuse."""
    _targets(network, x, classes, labels, names)
    for interpreter in interpreters:
        if (error := refusal(network, x, interpreter)) is not None:
            raise error


def _targets(
    network: Classifier, x: Tensor, classes: Sequence[str], labels: Tensor | None, names: Sequence[str]
) -> tuple[Tensor, int]:
    scores = logits_of(network, x)
    if names and len(names) != scores.shape[1]:
        raise InputError(f"{len(names)} names were given for the {scores.shape[1]} classes of the network")
    return targets_of(scores, classes, labels, names), scores.shape[1]


def _interpreter(value: str | Mapping[str, Any] | Interpreter) -> Interpreter:
    if isinstance(value, Interpreter) and not isinstance(value, (str, Mapping)):
        return value  # also somebody's own, which is not registered
    found: Interpreter = _read(value, "interpreter")
    return found


def _read(value: Any, kind: str) -> Any:
    try:
        return Member(kind).read(value)
    except ValueError as error:
        raise SpecError(str(error)) from None


def _taught(attack: Attack | None, network: Classifier, x: Tensor, labels: Tensor | None, rng: Stream) -> Attack | None:
    if attack is None or not is_learner(attack):
        return attack
    learner: Any = attack
    aim = probabilities(network, x).argmax(1) if labels is None else labels
    return Taught(learner, {None: learner.fit(network, x, aim, rng=rng)})
