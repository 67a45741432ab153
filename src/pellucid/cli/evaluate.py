"""pellucid evaluate."""

import dataclasses
import math
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table as Grid

from pellucid.cli.common import Common, screen
from pellucid.cli.fields import apply_words, data_fields, split_words
from pellucid.errors import SpecError


def evaluate(
    *words: Annotated[
        str,
        Parameter(
            help="Networks (checkpoint folders, or package.module:attribute; the first makes the examples, all judge "
            "them) and fields: steps=20 model.mean=0.5 ..."
        ),
    ],
    data: Annotated[str, Parameter(help="A data set (pellucid list data).")],
    attack: Annotated[
        str | None, Parameter(help="An attack (pellucid list attack); without one, clean accuracy.")
    ] = None,
    epsilons: Annotated[
        str | None, Parameter(help="Sizes of the perturbation, such as 0,0.1,8/255 [the attack's eps].")
    ] = None,
    part: Annotated[str, Parameter(help="train, validation or test.")] = "test",
    images: Annotated[str | None, Parameter(help="Only the first so many images.")] = None,
    seed: Annotated[str, Parameter(help="Seed of the attack.")] = "0",
    common: Common = Common(),
) -> None:
    """Measure accuracy, clean and under attack, with 95 % intervals.

    Several networks give a column of the transfer matrix: the first makes the examples, all judge them.
    """
    from pellucid.cli.networks import named_networks
    from pellucid.cli.units import OF_IMAGES
    from pellucid.data import converted_eps
    from pellucid.metrics import accuracy
    from pellucid.spec import digest, fraction, from_dict, lookup, read_sequence
    from pellucid.tasks.attacking import warning_lines
    from pellucid.tasks.parquet import read_predictions

    paths, fields = split_words(words)
    if not paths:
        raise SpecError(
            "pellucid evaluate needs the folder of a checkpoint (pellucid train prints it), or package.module:attribute"
        )
    networks, fields = named_networks(paths, fields)
    data_set, fields = data_fields(data, fields)
    table: dict[str, Any] = {"task": "evaluate", "data": data_set, "part": part, "images": images, "seed": seed}
    if attack is not None:
        table |= with_attack(attack, fields)
        grid = read_sequence(epsilons) if epsilons is not None else None
        if grid and "eps" in {f.name for f in dataclasses.fields(lookup("attack", attack))}:
            table["attack"].setdefault("eps", grid[-1])  # a grid says how large the perturbation may be
        table["epsilons"] = grid
    elif epsilons or fields:
        raise SpecError("epsilons and fields belong to an attack: add --attack (pellucid list attack)")
    task = from_dict(table | {"network": networks[0], "judges": tuple(networks[1:])}, "task")
    result = common.run(task)
    predictions, labels, sizes = read_predictions(result.folder / "predictions.parquet")
    low, high = result.meta["data"][part]["value_range"]
    width = high - low if hasattr(task.attack, "norm") else math.nan  # else eps is no distance between images
    rows = [
        {
            "network": path,
            "epsilon": eps,
            "epsilon_of_data": None if math.isnan(eps * width) else eps * width,
            **accuracy(predictions[judge, index], labels)._asdict(),
            "images": len(labels),
        }
        for judge, path in enumerate(paths)
        for index, eps in enumerate(sizes)
    ]
    summary = result.json("summary.json")
    if common.json:
        common.say(
            {"digest": digest(task), "folder": str(result.folder), "accuracy": rows, **summary, "meta": result.meta}
        )
        return
    counts = " (fooled at any iterate counts)" if task.stop_when_fooled else " (last iterate)" if attack else ""
    print(f"accuracy on {len(labels)} {part} images of {data}" + (f" under {attack}{counts}" if attack else ""))
    for judge, path in enumerate(paths):
        print(path)
        grid = Grid(box=None, padding=(0, 0, 0, 2), show_header=False)
        for r in rows[judge * len(sizes) : (judge + 1) * len(sizes)]:
            size = "as described" if math.isnan(r["epsilon"]) else f"eps {fraction(r['epsilon'])}"
            if (low, high) != OF_IMAGES and r["epsilon_of_data"] is not None:
                size = str(converted_eps(r["epsilon_of_data"], (low, high)))
            grid.add_row(size, f"{r['value']:6.1%}", f"{r['low']:.1%} - {r['high']:.1%}")
        screen().print(grid)
    for line in warning_lines(summary["warnings"]):
        print(line)
    if task.attack is not None:
        spent = summary["passes"]
        forward, backward = (sum(spent["attack"][way]) for way in ("forward", "backward"))
        judging = sum(spent["evaluation"]["forward"])
        print(f"passes: {forward:,} forward and {backward:,} backward to attack, {judging:,} forward to judge")
        if "teaching" in spent:
            taught = spent["teaching"]
            print(f"        {taught['forward']:,} forward and {taught['backward']:,} backward to teach it beforehand")
    print(f"predictions image by image: {result.folder}")


def with_attack(attack: str, fields: list[str]) -> dict[str, Any]:
    """Return the table of an attack with its fields set."""
    table = apply_words({"attack": {"attack": attack}}, fields, "attack")
    return {"attack": table["attack"]}
