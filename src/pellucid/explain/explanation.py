"""What explaining images gives, as one object."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from pellucid.errors import SpecError
from pellucid.protocols import Interpreter
from pellucid.spec import brief, echo, kind_of, name_of


@dataclass(frozen=True, eq=False, kw_only=True)
class Explanation:
    """What `explain` found for N images of K classes, M classes explained for each.

    images (N, C, H, W); probabilities (N, K); targets (N, M), the classes that the maps speak for; maps by
    interpreter, raw, (N, M, h, w) or (N, M, C, H, W). After an attack the same of the adversarial images, for the
    same classes; tau (N, M) by interpreter, Kendall's tau-b between the raw maps, NaN where one is constant; and
    notes, what the attack noted. Without one these are None or empty. classes are the words that were asked for,
    names those of the K classes, decisions what interpreters said they chose (such as a layer).
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    images: Tensor
    probabilities: Tensor
    targets: Tensor
    maps: dict[str, Tensor]
    labels: Tensor | None = None
    adversarial: Tensor | None = None
    probabilities_adversarial: Tensor | None = None
    maps_adversarial: dict[str, Tensor] = field(default_factory=dict)
    tau: dict[str, Tensor] = field(default_factory=dict)
    notes: dict[str, Tensor] = field(default_factory=dict)
    decisions: tuple[str, ...] = ()

    @property
    def kept(self) -> Tensor | None:
        """Which images (N,) kept their prediction under attack; None without one."""
        if self.probabilities_adversarial is None:
            return None
        return self.probabilities.argmax(1) == self.probabilities_adversarial.argmax(1)

    @classmethod
    def of(
        cls,
        found: Mapping[str, Tensor],
        interpreters: Sequence[Interpreter],
        classes: Sequence[str],
        names: Sequence[str],
        decisions: Sequence[str] = (),
    ) -> "Explanation":
        """Return what `explain_pairs` found, or a task stored of it, by the interpreters' names."""

        def by_name(key: str) -> dict[str, Tensor]:
            chosen = {name: found.get(key.format(number)) for number, name in enumerate(titles(interpreters))}
            return {name: values for name, values in chosen.items() if values is not None}

        return cls(
            classes=tuple(classes),
            names=tuple(names),
            images=found["clean"],
            probabilities=found["probabilities_clean"],
            targets=found["targets"],
            maps=by_name("maps_{}_clean"),
            labels=found.get("labels"),
            adversarial=found.get("adversarial"),
            probabilities_adversarial=found.get("probabilities_adversarial"),
            maps_adversarial=by_name("maps_{}_adversarial"),
            tau=by_name("tau_{}"),
            notes={key.removeprefix("note_"): value for key, value in found.items() if key.startswith("note_")},
            decisions=tuple(decisions),
        )


def titles(interpreters: Sequence[Interpreter]) -> tuple[str, ...]:
    """Return a name for each interpreter, with its fields where a name alone stands for two; SpecError for twins."""

    def name(interpreter: Interpreter) -> str:
        return name_of(interpreter) if kind_of(interpreter) else type(interpreter).__name__

    known = [name(interpreter) for interpreter in interpreters]
    found = [
        brief(interpreter) if known.count(own) > 1 and kind_of(interpreter) else own
        for own, interpreter in zip(known, interpreters)
    ]
    twin = next((own for own in found if found.count(own) > 1), None)
    if twin is not None:
        raise SpecError(f"the interpreter {echo(twin, bare=True)} is named twice")
    return tuple(found)
