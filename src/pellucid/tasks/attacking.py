"""What attacks need around a measurement: to be taught, and their passes, notes and warnings written down."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pellucid.attacks import Taught, is_learner, with_eps
from pellucid.attacks.masking import MASKING, REPLACED
from pellucid.metrics.robustness import unnoted
from pellucid.models import Classifier
from pellucid.protocols import Attack, Data
from pellucid.rng import Stream, derive
from pellucid.tasks.io import Io

_NOTE = "note_"


def taught(
    io: Io, network: Classifier, attack: Attack | None, epsilons: Sequence[float] | None, data: Data, seed: int
) -> Attack | None:
    """Return an attack that is ready: one that learns has seen training images, at every eps, part by part."""
    if attack is None or not is_learner(attack):
        return attack
    learner: Any = attack
    split = io.data(data, "train")
    rows = torch.arange(min(len(split), learner.fit_images))
    x, y = split.images(rows).to(io.device), split.labels[rows].to(io.device)
    stream = Stream(derive(seed, "fit"), rows.to(io.device))
    states = {}
    for number, eps in enumerate([None] if epsilons is None else epsilons):
        if eps != 0:
            variant: Any = attack if eps is None else with_eps(attack, eps)
            found = io.part(f"fit-{number}", partial(variant.fit, network, x, y, rng=stream))
            states[eps] = {name: values.to(io.device) for name, values in found.items()}
    return Taught(learner, states)


def joined_notes(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the notes (E, N) of all parts, by name; where a part has none, as for images that were not attacked."""
    known = {name: values for part in parts for name, values in part.items() if name.startswith(_NOTE)}
    joined = {}
    for name, like in sorted(known.items()):  # a part that was read has its names in another order
        values = [part[name] if name in part else _blank(like, part["linf"].shape) for part in parts]
        joined[name.removeprefix(_NOTE)] = torch.cat([v.cpu() for v in values], 1)
    return joined


def _blank(like: Tensor, shape: torch.Size) -> Tensor:
    return unnoted(like, shape.numel()).view(shape)


def summary(
    epsilons: Sequence[float] | None,
    passes: Tensor,
    notes: dict[str, Tensor],
    ledger: Mapping[str, Mapping[str, float]] | None = None,
) -> dict[str, Any]:
    """Return what summary.json holds: passes (E, 3) in words, and a warning for each check that was not passed.

    ledger is the cost of each part; those of teaching an attack are added up.
    """
    taught_by = [cost for part, cost in (ledger or {}).items() if part.startswith("fit-") and "--" not in part]
    teaching = {way: int(sum(cost[way] for cost in taught_by)) for way in ("forward", "backward")}
    forward, backward, judging = passes.T.tolist()
    return {
        "epsilons": None if epsilons is None else list(epsilons),
        "passes": {"attack": {"forward": forward, "backward": backward}, "evaluation": {"forward": judging}}
        | ({"teaching": teaching} if taught_by else {}),
        "warnings": warnings_of(notes),
    }


def warnings_of(notes: dict[str, Tensor]) -> list[dict[str, Any]]:
    """Return what the notes (E, N) or (N,) warn about: the check, on how many of the images, and what it means."""
    return [
        {"check": name, "images": int(flags.any(0).sum()), "of": flags.shape[1], "meaning": meaning}
        for name, meaning in {**MASKING, **REPLACED}.items()
        if name in notes and bool((flags := notes[name].view(-1, notes[name].shape[-1])).any())
    ]


def warning_lines(warnings: list[dict[str, Any]]) -> list[str]:
    """Return the warnings as people read them."""
    return [
        f"warning: {said['check']} on {said['images']} of {said['of']} images: {said['meaning']}" for said in warnings
    ]
