"""Accuracy along the levels of transformations, and as tables: the form of Zhang & Zhu 2019, Figures 5 and 7."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pellucid.metrics.statistics import Interval
from pellucid.report.content import Cell, Curve, CurveFigure, Number, Panel, Style, Table
from pellucid.report.looks import COLOURS, MARKERS
from pellucid.spec import fraction, kind_of, name_of

Results = Mapping[str, Sequence[Interval]]
"""For each network one share a transformation, in the order of the transformations."""

_AXES = {
    ("saturation", "p"): "p (2 changes nothing)",
    ("patch_shuffle", "k"): "k (k × k patches)",
    ("low_pass", "radius"): "cycles per image that are kept",
    ("low_pass", "share"): "share of the modes that is kept",
    ("high_pass", "radius"): "cycles per image that are removed",
    ("high_pass", "share"): "share of the modes that is kept",
    ("random_fourier", "drop"): "share of the modes that is removed",
    ("gaussian_noise", "sigma"): "standard deviation of the noise",
    ("blur", "sigma"): "σ of the blur, pixels",
}


@dataclass(frozen=True, kw_only=True)
class Levels:
    """The levels of one transformation: `places` says which transformation has which of the ascending values."""

    title: str
    label: str
    values: tuple[float, ...]
    places: tuple[int, ...]

    @property
    def log(self) -> bool:
        """Whether a log axis can show the levels, which papers choose by factors."""
        return self.values[0] > 0


def transform_title(transform: Any) -> str:
    """Name a transformation for people, with its level and the fields in which it differs from its defaults.

    >>> from pellucid.transforms import Saturation
    >>> transform_title(Saturation(p=1024))
    'saturation p=1024'
    """
    return " ".join((_spoken(name_of(transform)), *_words(transform)))


def levels_of(transforms: Sequence[Any]) -> tuple[Levels, ...]:
    """Return a scale for each number along which transformations of one kind differ, all else alike.

    Those that stand alone, such as grayscale, are on no scale.
    """
    found: dict[tuple[Any, ...], dict[float, int]] = {}
    for place, transform in enumerate(transforms):
        for field in dataclasses.fields(transform):
            value = getattr(transform, field.name)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and _said(field):
                others = tuple(_words(transform, but=field.name))
                found.setdefault((name_of(transform), field.name, others), {})[float(value)] = place
    return tuple(
        Levels(
            title=" ".join((_spoken(name), *others)),
            label=_AXES.get((name, field), field.replace("_", " ")),
            values=tuple(sorted(places)),
            places=tuple(places[value] for value in sorted(places)),
        )
        for (name, field, others), places in found.items()
        if len(places) > 1
    )


def bias_curves(
    levels: Sequence[Levels],
    results: Results,
    *,
    printed: Mapping[str, Sequence[Number]] | None = None,
    settings: Mapping[str, str] | None = None,
    caption: str = "Accuracy on correctly classified images",
    label: str = "accuracy on correct",
) -> CurveFigure:
    """Return a panel for each scale, with a line and its interval for each network.

    Networks of one family (see `looks_of`) share a colour. printed holds a paper's shares and settings the key of the
    settings behind the numbers of a network.
    """
    looks = looks_of(tuple(results))
    panels = []
    for scale in levels:
        curves = []
        for name, shares in results.items():
            own = [shares[place] for place in scale.places]
            paper = None if printed is None or name not in printed else tuple(printed[name][p] for p in scale.places)
            curves.append(
                Curve(
                    name,
                    scale.values,
                    tuple(share.value for share in own),
                    tuple(share.low for share in own),
                    tuple(share.high for share in own),
                    paper,
                    *looks[name],
                    settings=None if settings is None else settings.get(name),
                )
            )
        panels.append(Panel(scale.title, tuple(curves), scale.label, label, log_x=scale.log))
    return CurveFigure(caption, tuple(panels))


def looks_of(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return colour and marker of each network: a colour a family, a marker a network.

    The family is what is left of a name without its numbers.

    >>> looks = looks_of(("normal", "PGD-linf: 8", "PGD-linf: 4", "PGD-l2: 8"))
    >>> [looks[name][0] == looks["PGD-linf: 8"][0] for name in looks]
    [False, True, True, False]
    """
    found: dict[str, tuple[str, str]] = {}
    colours: dict[str, str] = {}
    for place, name in enumerate(names):
        colour = colours.setdefault(_family(name), COLOURS[len(colours) % len(COLOURS)])
        found[name] = (colour, MARKERS[place % len(MARKERS)])
    return found


def bias_table(
    transforms: Sequence[str],
    results: Results,
    *,
    caption: str,
    style: Style = "percent",
    settings: Mapping[str, str] | None = None,
    notes: tuple[str, ...] = (),
) -> Table:
    """Return a row for each transformation and a column for each network, numbers with their intervals."""
    keys = settings or {}
    rows: tuple[tuple[Cell | str, ...], ...] = tuple(
        (title, *(Cell(*own[place], settings=keys.get(name), style=style) for name, own in results.items()))
        for place, title in enumerate(transforms)
    )
    return Table(caption, ("images", *results), rows, notes)


def _spoken(name: str) -> str:
    return {"random_fourier": "random Fourier", "gaussian_noise": "Gaussian noise"}.get(name, name.replace("_", " "))


def _family(name: str) -> str:
    letters = re.sub(r"(?<![a-z\d])\d*\.?\d+(e-?\d+)?(/\d+)?(?![a-z\d])", " ", name.lower())
    return " ".join(re.findall(r"[^\W_]+", letters)) or name


def _said(field: dataclasses.Field[Any]) -> bool:
    """Whether a field says what a transformation does, not where its files lie, which its settings tell."""
    return field.metadata.get("hashed", True) and not field.name.endswith("sha256")


def _words(transform: Any, but: str | None = None) -> list[str]:
    """Return the level and the fields that are not at their defaults, but for one, as people write them."""
    said = []
    for field in dataclasses.fields(transform):
        value = getattr(transform, field.name)
        level = (name_of(transform), field.name) in _AXES and value is not None
        if field.name == but or not _said(field) or kind_of(value) == "task" or (value == field.default and not level):
            continue
        said.append(f"{field.name}={fraction(value) if isinstance(value, float) else value}")
    return said
