"""Golden numbers: what every method gives on a fixed network and fixed images, in float64.

One file per class in golden/, with the class's `version`. After a change that is meant to change results,
raise `version` in the class and run

    PELLUCID_RENEW_GOLDEN=1 pytest tests/contract/test_golden.py

which writes files for new methods and raised versions, and refuses changed numbers under an old version.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pellucid.protocols import Context
from pellucid.rng import Stream, global_seed
from pellucid.spec import entries, kind_of, name_of

from .defence_checks import Teacher
from .tiny import has_field, in_norms, options
from .worlds import lively, numbers, pictures, refill, smooth

FOLDER = Path(__file__).parent / "golden"
RENEW = bool(os.environ.get("PELLUCID_RENEW_GOLDEN"))
KINDS = ("attack", "interpreter", "defence", "model", "transform")
COMMAND = "PELLUCID_RENEW_GOLDEN=1 pytest tests/contract/test_golden.py"
LABELS = torch.arange(4) % 3


def summary(values: Tensor) -> list[float]:
    """Return five numbers that move whenever a value does: mean, spread and three random projections."""
    flat = values.detach().double().flatten()
    weights = 2 * numbers(3, len(flat), seed=17) - 1
    figures = [flat.mean(), flat.std(), *(weights @ flat) / len(flat) ** 0.5]
    return [float(f"{float(value):.10g}") for value in figures]


def outcome(method: Any) -> list[float]:
    kind = kind_of(method)
    if kind == "model":
        with global_seed(0):
            model = method.build(2, (20, 16), 4)
        refill(model, seed=19, gain=1.5).double().eval()
        return summary(model(pictures(3, channels=2, size=(20, 16))))
    model, x = smooth(), pictures(4)
    if kind == "transform":
        return summary(method(pictures(4, channels=3), rng=Stream(4)))
    if kind == "attack":
        return summary(method(model, x, LABELS, rng=Stream(4)))
    if kind == "interpreter":
        model = lively(method)
        return summary(method(model, x, LABELS, rng=Stream(4)))
    ctx = Context(progress=0.7, step=3, seed=5, network=lambda task: Teacher(3))
    found = method(model.train(), x, LABELS, ctx)
    return [float(f"{value.item():.10g}") for _, value in sorted(found.items())]


def measured(cls: type) -> dict[str, list[float]]:
    """Return the numbers of a class in every norm and with every listed choice."""
    found = {}
    for method in in_norms(cls):
        base = f"norm={method.norm}" if has_field(cls, "norm") else "plain"
        found[base] = outcome(method)
        for name, variant in options(method):
            choice = name.rpartition("-")[2]
            found[f"{base}, {choice}" if base != "plain" else choice] = outcome(variant)
    return found


def differences(stored: dict[str, list[float]], found: dict[str, list[float]]) -> list[str]:
    """Return the names of the stored cases whose numbers are not the present ones."""
    return [
        name
        for name, values in stored.items()
        if name in found and found[name] != pytest.approx(values, rel=1e-5, abs=1e-5)
    ]


@pytest.mark.parametrize(
    "cls",
    [pytest.param(cls, id=f"{k}-{n}") for k in KINDS for n, cls in entries(k)],
)
def test_golden_numbers(cls: type) -> None:
    method, version = in_norms(cls)[0], getattr(cls, "version", 1)
    path = FOLDER / f"{kind_of(method)}_{name_of(method)}.json"
    found = measured(cls)
    kept = json.loads(path.read_text()) if path.exists() else None
    same_version = kept is not None and kept["version"] == version
    changed = differences(kept["numbers"], found) if same_version else []
    assert not changed, (
        f"behaviour changed ({'; '.join(changed)}): raise `version` of {cls.__name__} "
        f"and renew the golden file: {COMMAND}"
    )
    if RENEW and (not same_version or kept["numbers"].keys() != found.keys()):
        FOLDER.mkdir(exist_ok=True)
        path.write_text(json.dumps({"version": version, "numbers": found}, indent=1) + "\n")
        return
    assert kept is not None, f"{cls.__name__} has no golden numbers yet: look at what it gives, then {COMMAND}"
    assert same_version, f"the golden numbers are of version {kept['version']}, the class is {version}: {COMMAND}"
    assert kept["numbers"].keys() == found.keys(), f"the choices of {cls.__name__} changed: {COMMAND}"
