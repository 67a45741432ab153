"""pellucid sweep."""

import dataclasses
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table as Grid

from pellucid.cli.common import Common, Place, export, screen
from pellucid.cli.fields import apply_words, own_words, read_table
from pellucid.errors import SpecError

_FLAGS = (
    "data", "model", "defence", "optimiser", "steps", "epochs", "batch_size", "log_every", "watch", "seed", "init",
    "images",
)  # fmt: skip


def sweep(
    *words: Annotated[
        str,
        Parameter(
            help="Fields: weight=1 (the defence's), model.hidden=64, defence.attack=pgd, attack.steps=20 (of "
            "--attack), watch.eps=0.1 ..."
        ),
    ],
    data: Annotated[str | None, Parameter(help="A data set (pellucid list data).")] = None,
    model: Annotated[str | None, Parameter(help="A network (pellucid list model).")] = None,
    defence: Annotated[str | None, Parameter(help="A defence (pellucid list defence) [standard].")] = None,
    along: Annotated[
        str | None, Parameter(help="The field that is varied: defence.weight, defence.attack.eps, optimiser.lr ...")
    ] = None,
    values: Annotated[
        str | None, Parameter(help='Its values: 0.1,1,10; those with commas of their own as "3,4,5;6,8,10".')
    ] = None,
    attack: Annotated[
        str | None, Parameter(help="The attack that networks are measured under; without one, clean accuracy.")
    ] = None,
    epsilons: Annotated[
        str | None, Parameter(help="Sizes of the perturbation, such as 0.1,8/255 [the attack's eps].")
    ] = None,
    part: Annotated[
        str | None, Parameter(help="train, validation or test [validation, since a sweep is there to choose].")
    ] = None,
    images: Annotated[str | None, Parameter(help="Measure only the first so many images.")] = None,
    select: Annotated[
        bool,
        Parameter(
            help="Choose a network by Ross & Doshi-Velez's rule: best on validation examples made for an undefended "
            "network (FGSM at 0.1,0.2,0.3, or --attack where it has an eps), among those that keep 97 % of its clean "
            "accuracy. Its fields: select.keep_share=0.95 select.relation=absolute select.part=test.",
            negative="",
        ),
    ] = False,
    optimiser: Annotated[str | None, Parameter(help="An optimiser [adam]; its fields as optimiser.lr=1e-3.")] = None,
    steps: Annotated[str | None, Parameter(help="Number of batches.")] = None,
    epochs: Annotated[
        str | None, Parameter(help="Number of passes through the training images, instead of steps.")
    ] = None,
    batch_size: Annotated[str | None, Parameter(help="Images in a batch [256].")] = None,
    log_every: Annotated[str | None, Parameter(help="Steps between the points of the training curves [100].")] = None,
    watch: Annotated[str | None, Parameter(help="An attack whose accuracy is in the training curves.")] = None,
    seed: Annotated[str | None, Parameter(help="Seed of everything random in training [0].")] = None,
    init: Annotated[Place | None, Parameter(help="A checkpoint that every training starts from.")] = None,
    spec: Annotated[
        Place | None,
        Parameter(help="A JSON or YAML file with base (a training), along, values ...; the command line overrides it."),
    ] = None,
    out: Annotated[Place | None, Parameter(help="Copy tables, figures and the chosen network to this folder.")] = None,
    common: Common = Common(),
) -> None:
    """Train a network for each value of a field, and measure them alike; run again to go on after an interruption."""
    from pellucid.defences import Standard
    from pellucid.spec import digest, from_dict
    from pellucid.tasks import Checkpoint
    from pellucid.tasks.attacking import warning_lines
    from pellucid.tasks.selecting import Selection
    from pellucid.tasks.sweeping import Sweep  # noqa: F401 - makes the name "sweep" known

    table: dict[str, Any] = {"task": "sweep"} | (read_table(spec) if spec is not None else {})
    base = _base(table.get("base", {}), data=data, model=model, defence=defence, optimiser=optimiser, steps=steps,
                 epochs=epochs, batch_size=batch_size, log_every=log_every, watch=watch, seed=seed)  # fmt: skip
    given = {"along": along, "values": values, "attack": attack, "epsilons": epsilons, "part": part, "images": images}
    table |= {key: value for key, value in given.items() if value is not None}
    for needed in ("along", "values"):
        if needed not in table:
            raise SpecError(f"pellucid sweep needs --{needed}, such as --along defence.weight --values 0.1,1,10")
    rule = [word for word in words if word.startswith("select.")]
    if rule and not select:
        raise SpecError(f"{rule[0]} is a field of the rule that --select asks for")
    _with_words(table, base, tuple(word for word in words if word not in rule))
    if init is not None:
        base["init"] = Checkpoint.of(init)
    _begin(base, str(table["along"]), table["values"])
    task = from_dict(table | {"base": base}, "task")
    chosen = None
    if select:
        own = apply_words({"select": {}}, rule, "select")["select"]
        if task.epsilons is not None:
            own = {"attack": task.attack, "epsilons": tuple(eps for eps in task.epsilons if eps > 0)} | own
        normal = dataclasses.replace(task.base, defence=Standard())
        chosen = Selection(
            candidates=task.networks, normal=normal, data=task.base.data, images=task.images, chunk=task.chunk,
            **own,
        )  # fmt: skip
    result = common.run(task)
    found = result.json("table.json")
    selection, network = None, None
    if chosen is not None:
        network = common.run(chosen)
        selection = network.json("selection.json")
    folder = result.folder
    if out is not None:
        files = {name: (folder / name).read_bytes() for name in result.meta["files"]}
        if network is not None:
            files |= {f"chosen/{name}": (network.folder / name).read_bytes() for name in network.meta["files"]}
        export(out, files)
        folder = out.resolve()
    if common.json:
        told = {"digest": digest(task), "folder": str(folder), **found, "meta": result.meta}
        if network is not None:
            told["selection"] = {"folder": str(folder / "chosen" if out else network.folder), **(selection or {})}
        common.say(told)
        return
    _show(found, str(table["along"]))
    for row in found["rows"]:
        for line in warning_lines(row["warnings"]):
            print(f"{row['label']}: {line}")
    if network is not None and selection is not None:
        print(f"chosen: {found['rows'][selection['chosen']]['label']} ({selection['reason']})")
        print(f"rule: {selection['rule']}")
        print(f"chosen network: {folder / 'chosen' if out else network.folder}")
    print(f"table, figures and training curves: {folder}")


def _base(start: Any, **given: str | None) -> dict[str, Any]:
    """Return the training that the sweep starts from, as a table."""
    if not isinstance(start, dict):
        raise SpecError("base must be a table of the fields of a training")
    base = {"task": "train", "defence": "standard", "optimiser": "adam"} | start
    base |= {key: value for key, value in given.items() if value is not None}
    for needed in ("data", "model"):
        if needed not in base:
            raise SpecError(f"pellucid sweep needs --{needed}; pellucid list {needed} shows what there is")
    return base


def _with_words(table: dict[str, Any], base: dict[str, Any], words: tuple[str, ...]) -> None:
    """Set the fields that words name: of the attack that measures, where there is one, and of the training."""
    from pellucid.spec import lookup, read_sequence

    measured = {"attack": table["attack"]} if table.get("attack") else {}
    own = own_words(words, base, _FLAGS)
    base |= apply_words({"train": {}}, own, "train")["train"]
    whole = apply_words(base | measured, [word for word in words if word not in own], "defence")
    if measured:
        attack = whole.pop("attack")
        table["attack"] = attack = attack if isinstance(attack, dict) else {"attack": attack}
        grid = read_sequence(table.get("epsilons"))
        name = str(attack.get("attack"))
        if grid and "eps" in {f.name for f in dataclasses.fields(lookup("attack", name))}:
            attack.setdefault("eps", grid[-1])  # a grid says how large the perturbation may be
    base.update(whole)


def _begin(base: dict[str, Any], along: str, values: Any) -> None:
    """Give the base the first value where its description is named: the field may be one that must be given."""
    from pellucid.spec import HOMES, echo
    from pellucid.tasks import Train
    from pellucid.tasks.sweeping import read_values

    *way, last = along.split(".")
    known, first = [f.name for f in dataclasses.fields(Train)], along.partition(".")[0]
    if first not in known:
        advice = f"its fields are {', '.join(known)}" if way else f"one of the defence is written defence.{first}"
        raise SpecError(f"task train has no field {echo(first)} to sweep along; {advice}")
    at: Any = base
    for key in way:
        held = at.get(key)
        if isinstance(held, str) and key in HOMES:
            at[key] = held = {key: held}
        if not isinstance(held, dict):
            return
        at = held
    read = read_values(values)
    if isinstance(read, tuple) and read:
        at.setdefault(last, read[0])


def _show(found: dict[str, Any], along: str) -> None:
    from pellucid.tasks.sweeping import eps_title

    rows, attack = found["rows"], found["attack"]
    under = f" under {attack['attack']} (fooled at any iterate counts)" if attack else ""
    print(f"accuracy on {rows[0]['images']} {found['part']} images{under}")
    grid = Grid(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    grid.add_column(along, overflow="fold")
    for name in ("clean", *(eps_title(cell["epsilon"]) for cell in rows[0]["attacked"])):
        grid.add_column(name, justify="right")
    grid.add_column("training", justify="right", no_wrap=True)
    for row in rows:
        cells = (row["clean"], *row["attacked"])
        shares = (f"{cell['value']:.1%} ({100 * cell['low']:.1f} - {100 * cell['high']:.1f})" for cell in cells)
        grid.add_row(row["label"], *shares, f"{row['seconds']:.1f} s")
    screen().print(grid)
