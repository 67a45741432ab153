"""Sweeps: one network for each value of one field, and what every value costs and buys, as a task."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from pellucid.errors import SpecError
from pellucid.metrics import accuracy
from pellucid.protocols import AttackField, Part
from pellucid.report import Cell, Curve, CurveFigure, Panel, Table, to_markdown, to_png
from pellucid.spec import (
    Count,
    Reals,
    brief,
    digest,
    echo,
    fraction,
    from_dict,
    kind_of,
    member,
    name_of,
    read_number,
    register,
    title,
    to_dict,
)
from pellucid.store import write_atomic, write_json
from pellucid.tasks.io import Io
from pellucid.tasks.measuring import Evaluate
from pellucid.tasks.parquet import read_predictions
from pellucid.tasks.training import TaskField, Train, kept_row, network_name

LOGGED = {
    "validation_squared_gradient": ("Input gradient, true class", "mean squared norm"),
    "validation_squared_gradient_others": ("Input gradient, other classes", "mean squared norm"),
    "attacked_accuracy": ("Accuracy under attack", "accuracy"),
    "validation_accuracy": ("Clean accuracy", "accuracy"),
}


def read_values(text: Any) -> Any:
    """Read "0.1,1,10" as its parts; where there is a semicolon it parts them, so that "3,4,5;6,8,10" are two values.

    "none" is no value.

    >>> read_values("0.1, 1"), read_values("3,4,5; none")
    (('0.1', '1'), ('3,4,5', None))
    """
    if not isinstance(text, str):
        return tuple(text) if isinstance(text, list) else text
    parts = [part.strip() for part in text.split(";" if ";" in text else ",")]
    return tuple(None if part.lower() == "none" else part for part in parts if part)


def _trains(task: Any) -> Any:
    if not isinstance(task, Train):
        raise ValueError(f"a training (train) is needed, not {name_of(task)}")
    return task


@register("task", "sweep")
@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One network for each value of one field of a training, measured alike.

    `along` is the way to the field from the training: "defence.weight", "defence.attack.eps", "model.filters",
    "defence.defences.1.weight", or a whole part, as "defence". Every value is cast by the declared type of that field;
    what the base says there itself says nothing, and is set to the first value. Each network is measured on its own
    data: clean, and where there is an attack at every eps (without epsilons, the attack's own), fooled at any
    iterate. The default part is validation, since who sweeps chooses. networks and evaluations follow from the other
    fields: what is given for them is not read.

    The result is table.json (one row a value: accuracies with 95 % Wilson intervals, the logged figures of the network
    that is kept, seconds and passes of training), history.json (the logged figures of every network), table.md,
    sweep.png and sweep.svg (accuracies against the value) and curves.png (figures against the step).
    Source: Ross & Doshi-Velez 2018, Figures 7 and 9 (right); Boopathy et al. 2020, Appendix F (gamma, eps);
    Jakubovitz & Giryes 2018, Appendices C, D, F and G (layer, share of perturbed inputs, lambda).
    """

    base: Annotated[Any, AfterValidator(_trains), member("task")]
    along: str
    values: Annotated[tuple[Any, ...], BeforeValidator(read_values)]
    part: Part = "validation"
    attack: AttackField | None = None
    epsilons: Reals | None = None
    images: Count | None = None
    chunk: Count = 1000
    networks: tuple[TaskField, ...] = ()
    evaluations: tuple[TaskField, ...] = ()

    def check(self) -> None:
        """Train and measure every value; refuse none at all, and those that make the same network."""
        if not self.values:
            raise SpecError("task sweep.values: at least one value is needed")
        networks = tuple(with_value(self.base, self.along, value) for value in self.values)
        values = tuple(value_at(network, self.along) for network in networks)
        known: dict[str, Any] = {}
        for network, value in zip(networks, values):
            if digest(network) in known:
                one, other = (echo(label(twin), bare=True) for twin in (known[digest(network)], value))
                why = f"{one} is there twice" if one == other else f"{one} and {other} make the same network"
                raise SpecError(f"task sweep.values: {why}")
            known[digest(network)] = value
        evaluations = tuple(task for network in networks for task in self._measured(network))
        last = evaluations[-1]
        derived = {"base": networks[0], "values": values, "networks": networks, "evaluations": evaluations}
        measured = {"attack": last.attack, "epsilons": last.epsilons if last.attack is not None else None}
        for name, value in (derived | measured).items():
            object.__setattr__(self, name, value)

    def _measured(self, network: Train) -> tuple[Evaluate, ...]:
        """Return what measures a network, its clean accuracy first."""
        evaluate = partial(
            Evaluate, network=network, data=network.data, part=self.part, images=self.images, chunk=self.chunk
        )
        if self.attack is None:
            return (evaluate(epsilons=self.epsilons),)
        grid = self.epsilons
        if grid is None and hasattr(self.attack, "eps"):
            grid = (self.attack.eps,)
        if grid is None:  # an attack without eps
            return evaluate(), evaluate(attack=self.attack)
        return (evaluate(attack=self.attack, epsilons=(0.0, *grid) if grid and grid[0] > 0 else grid),)

    def title(self) -> str:
        """Name the work for people."""
        return f"sweep {self.along} over {', '.join(map(label, self.values))} of {network_name(self.base)}"

    def run(self, io: Io) -> list[str]:
        """Read what was measured, and write tables and figures."""
        rows = [self._row(io, place) for place in range(len(self.networks))]
        histories = [
            {"value": row["value"], "label": row["label"], "history": io.result(network).json("history.json")}
            for row, network in zip(rows, self.networks)
        ]
        found = {
            "along": self.along,
            "part": self.part,
            "attack": None if self.attack is None else to_dict(self.attack),
            "epsilons": None if self.epsilons is None else list(self.epsilons),
            "rows": rows,
        }
        write_json(io.scratch / "table.json", found)
        write_json(io.scratch / "history.json", histories)
        write_atomic(io.scratch / "table.md", to_markdown(sweep_table(found)))
        png, svg = sweep_figure(found)
        write_atomic(io.scratch / "sweep.png", png)
        write_atomic(io.scratch / "sweep.svg", svg)
        write_atomic(io.scratch / "curves.png", to_png(training_curves(self.along, histories)))
        return ["table.json", "history.json", "table.md", "sweep.png", "sweep.svg", "curves.png"]

    def _row(self, io: Io, place: int) -> dict[str, Any]:
        network, each = self.networks[place], len(self.evaluations) // len(self.networks)
        trained = io.result(network)
        measured: list[dict[str, Any]] = []
        warnings: list[dict[str, Any]] = []
        images = 0
        for task in self.evaluations[place * each : (place + 1) * each]:
            predictions, labels, epsilons = read_predictions(io.result(task).folder / "predictions.parquet")
            warnings += io.result(task).json("summary.json")["warnings"]
            images = len(labels)
            measured += [
                {"epsilon": None if math.isnan(eps) else eps, **accuracy(predicted, labels)._asdict()}
                for eps, predicted in zip(epsilons, predictions[0])
            ]
        return {
            "value": to_dict(self.values[place]),
            "label": label(self.values[place]),
            "network": digest(network),
            "images": images,
            "clean": {key: measured[0][key] for key in ("value", "low", "high")},
            "attacked": measured[1:],
            "figures": kept_row(trained),
            "seconds": trained.meta["wall_seconds"],
            "passes": trained.meta["passes"],
            "warnings": warnings,
        }


# ------------------------------------------------------------------------------------------- a field, and its values


def value_at(task: Any, along: str) -> Any:
    """Return what a description holds at a way such as "defence.attack.eps"; raise SpecError where there is nothing.

    Parts of a tuple are numbered from 0: "defence.defences.1.weight".
    """
    at, keys = task, along.split(".")
    for place, key in enumerate(keys):
        if kind_of(at):
            known = [field.name for field in fields(at)]
            if key not in known:
                raise SpecError(
                    f"{title(type(at))} has no field {echo(key)} to sweep along; its fields are {', '.join(known)}"
                )
            at = getattr(at, key)
        elif isinstance(at, tuple) and key in map(str, range(len(at))):
            at = at[int(key)]
        else:
            held = "none" if at is None else echo(at)
            raise SpecError(
                f"task sweep.along: there is no {echo(along)}, since {'.'.join(keys[:place])} of the base is {held}"
            )
    return at


def with_value(task: Train, along: str, value: Any) -> Train:
    """Return the training with another value at a way, cast by its declared type; SpecError where it does not fit.

    Teachers that the training named itself are named anew, so that they follow it; those that somebody gave stay.
    """
    value_at(task, along)
    keys = along.split(".")
    table = to_dict(task) if "teacher" in keys else _untaught(task)
    at: Any = table
    for key in keys[:-1]:
        at = at[int(key) if isinstance(at, list) else key]
    at[int(keys[-1]) if isinstance(at, list) else keys[-1]] = to_dict(value)
    changed: Train = from_dict(table, "task")
    return changed


def _untaught(task: Train) -> dict[str, Any]:
    """Return a training as a table, its teachers left out where it would name the same ones."""
    table: dict[str, Any] = to_dict(task)
    bare = table | {"defence": _without_teachers(table["defence"])}
    return bare if bare != table and from_dict(bare, "task") == task else table


def _without_teachers(table: Any) -> Any:
    if isinstance(table, list):
        return [_without_teachers(part) for part in table]
    if isinstance(table, dict):
        return {key: None if key == "teacher" else _without_teachers(part) for key, part in table.items()}
    return table


def label(value: Any) -> str:
    """Write a value for people, without making two values alike.

    >>> label(8 / 255), label(0.123456), label((3, 4)), label(True), label(None)
    ('8/255', '0.123456', '3,4', 'true', 'none')
    """
    if kind_of(value):
        return brief(value)
    if isinstance(value, tuple):
        return ",".join(map(label, value))
    if isinstance(value, float):
        return fraction(value) if read_number(fraction(value)) == value else repr(value)
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


# ------------------------------------------------------------------------------------------------ tables and figures


def eps_title(eps: float | None) -> str:
    """Name a column: "eps 8/255", or "attacked" for an attack that has no eps."""
    return "attacked" if eps is None else f"eps {fraction(eps)}"


def sweep_table(found: dict[str, Any]) -> Table:
    """Return the table of a sweep from its table.json."""
    rows = found["rows"]
    logged = [key for key in list(LOGGED)[:2] if all(key in row["figures"] for row in rows)]
    header = (
        found["along"],
        "clean",
        *(eps_title(cell["epsilon"]) for cell in rows[0]["attacked"]),
        *(LOGGED[key][0].lower() for key in logged),
        "training, s",
        "forward",
        "backward",
    )
    body = tuple(
        (
            row["label"],
            *(Cell(cell["value"], cell["low"], cell["high"]) for cell in (row["clean"], *row["attacked"])),
            *(Cell(row["figures"][key], style="number") for key in logged),
            Cell(float(row["seconds"]), style="number"),
            *(Cell(int(row["passes"][way])) for way in ("forward", "backward")),
        )
        for row in rows
    )
    attack = found["attack"]
    under = f" and under {attack['attack']} (fooled at any iterate counts)" if attack else ""
    notes = [f"Accuracy on {rows[0]['images']} {found['part']} images{under}, with 95 % Wilson intervals."]
    if logged:
        notes.append(
            "Input gradients: mean squared norm of that of log p, of the network that is kept, validation images."
        )
    notes += [
        f"{row['label']}: {said['check']} on {said['images']} of {said['of']} images: {said['meaning']}"
        for row in rows
        for said in row["warnings"]
    ]
    return Table(f"Sweep along {found['along']}", header, body, tuple(notes))


def places(values: Sequence[Any]) -> tuple[tuple[float, ...], bool] | None:
    """Return where values stand on an axis and whether it is logarithmic, None where they are words.

    It is where positive numbers span a decade or more. Numbers that do but for a 0 have no such axis: they are words.

    >>> places([1, 2, 3]), places([0.1, 10]), places([0, 0.1, 10]), places(["logits"])
    (((1.0, 2.0, 3.0), False), ((0.1, 10.0), True), None, None)
    """
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return None
    sizes = [abs(value) for value in values if value]
    wide = bool(sizes) and max(sizes) / min(sizes) >= 10
    if wide and min(values) <= 0:
        return None
    return tuple(float(value) for value in values), wide


def sweep_panel(found: dict[str, Any]) -> Panel:
    """Return accuracies against the value, clean and at every eps; words stand at 0, 1, 2 ..., not joined by lines."""
    rows = found["rows"]
    placed = places([row["value"] for row in rows])
    names = ["clean", *(eps_title(cell["epsilon"]) for cell in rows[0]["attacked"])]
    curves = []
    for number, name in enumerate(names):
        cells = [(row["clean"], *row["attacked"])[number] for row in rows]
        if placed is None:
            aside = 0.06 * (number - (len(names) - 1) / 2)  # so that no interval hides another
            curves += [_points(name, [(place + aside, cell)]) for place, cell in enumerate(cells)]
        else:
            curves.append(_points(name, sorted(zip(placed[0], cells), key=lambda point: point[0])))
    log_x = placed is not None and placed[1]
    return Panel(f"{found['part']} images", tuple(curves), found["along"], "accuracy", log_x=log_x)


def _points(name: str, points: Sequence[tuple[float, dict[str, float]]]) -> Curve:
    value, low, high = (tuple(cell[key] for _, cell in points) for key in ("value", "low", "high"))
    return Curve(name, tuple(x for x, _ in points), value, low, high)


def sweep_figure(found: dict[str, Any]) -> tuple[bytes, str]:
    """Return accuracies against the value as PNG and as SVG."""
    from pellucid.report.canvas import drawing, png, svg  # matplotlib takes long to import; only who draws pays
    from pellucid.report.curves import whole_figure

    figure = CurveFigure(f"Accuracy along {found['along']}", (sweep_panel(found),))
    with drawing():
        drawn = whole_figure(figure)
        if places([row["value"] for row in found["rows"]]) is None:
            names = [row["label"] for row in found["rows"]]
            long = sum(map(len, names)) > 40
            axes = drawn.axes[0]
            axes.set_xticks(range(len(names)), names, rotation=30 if long else 0, ha="right" if long else "center")
        inline = svg(drawn, "sweep", figure.caption)
        return png(drawn, 150), inline.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)


def training_curves(along: str, histories: Sequence[dict[str, Any]]) -> CurveFigure:
    """Return the logged figures of every network against the step; those that were not logged are left out."""
    panels = []
    for key, (heading, y_label) in LOGGED.items():
        log = y_label != "accuracy"
        curves = tuple(_curve(one["label"], one["history"], key, log) for one in histories)
        if any(curve.x for curve in curves):
            span = None if log else (0.0, 1.0)
            panels.append(Panel(heading, curves, "step", y_label, log_y=log, y_range=span))
    return CurveFigure(f"Training along {along}", tuple(panels), columns=2)


def _curve(name: str, history: Sequence[dict[str, float]], key: str, log: bool) -> Curve:
    points = [(row["step"], row[key]) for row in history if key in row]
    y = tuple(None if log and value <= 0 else value for _, value in points)  # a log axis has no place for 0
    return Curve(name, tuple(float(step) for step, _ in points), y)
