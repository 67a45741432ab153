"""Every registered attack on one digit and one natural image: clean, adversarial, difference.

Not a paper's experiment but a picture book. It walks the registry, so that a new attack has its picture; at scale
smoke both images are digits, since no natural image is embedded.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pellucid.attacks import PGD, Square
from pellucid.data import MNIST, Digits
from pellucid.interpreters import CAM, Gradient
from pellucid.models import SmallCNN
from pellucid.optimisers import Adam
from pellucid.spec import entries
from pellucid.studies import unforeseen
from pellucid.studies.gallery_report import GalleryReport
from pellucid.tasks import Explain, Train

# How large a perturbation: of a digit, and of a natural image, whose networks fall for far smaller ones.
SIZES: Mapping[str, tuple[float, float]] = {"linf": (0.2, 8 / 255), "l2": (2.5, 0.75), "l1": (20.0, 15.0)}
STEPS: Mapping[str, tuple[float, float]] = {"iterated_fgsm": (0.02, 1 / 255), "iterated_tgsm": (0.05, 2 / 255)}


def specimen(name: str, cls: type, natural: bool) -> Any:
    """Return an attack as the gallery shows it: with its defaults, where it has them."""

    def eps(norm: str) -> float:
        return STEPS.get(name, SIZES[norm])[natural]

    given: dict[str, dict[str, Any]] = {
        "worst": {"attacks": (PGD(eps=eps("linf"), steps=20), Square(eps=eps("linf"), queries=500))},
        "restarts": {"inner": PGD(eps=eps("linf"), steps=20), "times": 3},
        "isa": {"interpreter": CAM()},
        "aai": {"interpreter": CAM(), "step_size": eps("linf") / 10},
        "universal_perturbation": {"together": 50, "passes": 3},  # one image at a time takes many minutes
        "generative_perturbation": {"steps": 500},
    }
    chosen = dict(given.get(name, {}))
    for field in dataclasses.fields(cls):
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed and field.name == "eps":
            norm = getattr(cls, "norm", "linf")
            chosen.setdefault("eps", eps(norm if isinstance(norm, str) else "linf"))
        elif needed and field.name == "interpreter":
            chosen.setdefault("interpreter", Gradient())
    return cls(**chosen)


def study(scale_name: str) -> GalleryReport:
    """Return the whole gallery as one task."""
    scale = unforeseen.SCALES[scale_name]
    digits: Any = Digits() if scale_name == "smoke" else MNIST()
    on_digits = Train(
        data=digits,
        model=SmallCNN(),
        optimiser=Adam(lr=1e-3),
        steps=300 if scale_name == "smoke" else 1500,
        batch_size=64,
        log_every=100,
    )
    natural = unforeseen.network(scale_name)
    names = tuple(name for name, _ in entries("attack"))
    return GalleryReport(
        names=names,
        summaries=tuple(first_sentence(cls) for _, cls in entries("attack")),
        digits=tuple(
            Explain(network=on_digits, data=digits, attack=specimen(name, cls, False), interpreters=(), images=1)
            for name, cls in entries("attack")
        ),
        natural=tuple(
            Explain(network=natural, data=scale.data, attack=specimen(name, cls, True), interpreters=(), images=1)
            for name, cls in entries("attack")
        ),
    )


def first_sentence(cls: type) -> str:
    """Return what a method is, as its documentation says first."""
    return " ".join((cls.__doc__ or "").split("\n\n")[0].split())
