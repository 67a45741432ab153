"""Numbers of papers whose data have a range of their own, in the units of images in [0, 1]."""

from dataclasses import dataclass

from pellucid.errors import InputError


@dataclass(frozen=True)
class Converted:
    """One number in the units of the data (`theirs`) and in those of images in [0, 1] (`ours`); `str` shows both."""

    name: str
    theirs: float
    ours: float
    value_range: tuple[float, float]

    def __str__(self) -> str:
        low, high = self.value_range
        return f"{self.name} {self.theirs:.4g} on [{low:.4g}, {high:.4g}], {self.ours:.4g} on [0, 1]"


def converted_eps(eps: float, value_range: tuple[float, float], name: str = "eps") -> Converted:
    """Return a distance between values, such as eps or JSMA's theta: eps / (high - low), as x = (v - low)/(high - low).

    Raises InputError for a range without width.

    >>> print(converted_eps(0.3, (-2.0, 4.0)))
    eps 0.3 on [-2, 4], 0.05 on [0, 1]
    """
    return Converted(name, eps, eps / _width(value_range), value_range)


def converted_weight(weight: float, value_range: tuple[float, float], name: str = "lambda") -> Converted:
    """Return the weight of a squared input gradient: lambda / (high - low)^2, as dL/dx = (high - low) dL/dv.

    Raises InputError for a range without width.

    >>> print(converted_weight(18.0, (-2.0, 4.0)))
    lambda 18 on [-2, 4], 0.5 on [0, 1]
    """
    return Converted(name, weight, weight / _width(value_range) ** 2, value_range)


def _width(value_range: tuple[float, float]) -> float:
    low, high = value_range
    if not high > low:
        raise InputError(f"a range of values needs a width, [{low}, {high}] has none")
    return high - low
