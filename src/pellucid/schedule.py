"""Numbers that move during training."""

from dataclasses import dataclass

from pellucid.errors import SpecError
from pellucid.protocols import Context
from pellucid.spec import Real, Share, register


@register("ramp", "linear")
@dataclass(frozen=True, kw_only=True)
class Ramp:
    """A number that goes linearly from `start` to `stop` between two shares of the run, constant outside.

    value = start + (stop - start) * clip((progress - begin) / (until - begin), 0, 1)

    Source: the epsilon ramps of Boopathy et al. 2020 (authors' code).

    >>> ramp = Ramp(start=0.0, stop=0.3, begin=0.2, until=0.6)
    >>> [round(ramp(Context(progress=p)), 3) for p in (0.0, 0.2, 0.4, 1.0)]
    [0.0, 0.0, 0.15, 0.3]
    """

    start: Real
    stop: Real
    begin: Share = 0.0
    until: Share = 1.0

    def check(self) -> None:
        """Refuse a ramp that ends before it begins."""
        if self.until < self.begin:
            raise SpecError(f"a ramp must end after it begins; begin={self.begin}, until={self.until}")

    def __call__(self, ctx: Context) -> float:
        """Return the value at this point of the run."""
        if ctx.progress >= self.until:
            return self.stop
        if ctx.progress <= self.begin:
            return self.start
        return self.start + (self.stop - self.start) * (ctx.progress - self.begin) / (self.until - self.begin)
