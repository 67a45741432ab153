"""pellucid train."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from pellucid.cli.common import Common, Place, export
from pellucid.cli.fields import apply_words, own_words, read_table
from pellucid.errors import SpecError


def train(
    *words: Annotated[
        str, Parameter(help="Fields: weight=1 (the defence's), model.hidden=64, attack=pgd attack.eps=0.1 ...")
    ],
    data: Annotated[str | None, Parameter(help="A data set (pellucid list data).")] = None,
    model: Annotated[str | None, Parameter(help="A network (pellucid list model).")] = None,
    defence: Annotated[str | None, Parameter(help="A defence (pellucid list defence) [standard].")] = None,
    optimiser: Annotated[str | None, Parameter(help="An optimiser [adam]; its fields as optimiser.lr=1e-3.")] = None,
    steps: Annotated[str | None, Parameter(help="Number of batches.")] = None,
    epochs: Annotated[
        str | None, Parameter(help="Number of passes through the training images, instead of steps.")
    ] = None,
    batch_size: Annotated[str | None, Parameter(help="Images in a batch [256].")] = None,
    seed: Annotated[str | None, Parameter(help="Seed of everything random [0].")] = None,
    init: Annotated[Place | None, Parameter(help="A checkpoint to start from (post-processing).")] = None,
    unlabelled: Annotated[str | None, Parameter(help="A data set whose images are used without labels.")] = None,
    augmentation: Annotated[
        str | None, Parameter(help="Random changes of the batches: crop_and_flip, flip, random_crop.")
    ] = None,
    average: Annotated[str | None, Parameter(help="Keep a mean of networks: ema, swa.")] = None,
    watch: Annotated[
        str | None, Parameter(help="The attack of the logged figures; its fields as watch.eps=0.1.")
    ] = None,
    stop: Annotated[str | None, Parameter(help="Stop early: target_accuracy, patience, sudden_overfitting.")] = None,
    keep: Annotated[
        str | None, Parameter(help="The logged figure whose best network is kept, such as validation_accuracy.")
    ] = None,
    resume: Annotated[
        bool,
        Parameter(
            help="Go on with the training that was interrupted last in the store, or with the one that is described; "
            "refuse to begin a new one.",
            negative="",
        ),
    ] = False,
    tensorboard: Annotated[Place | None, Parameter(help="Write the logged figures here for TensorBoard.")] = None,
    spec: Annotated[
        Place | None, Parameter(help="A JSON or YAML file with the fields; the command line overrides it.")
    ] = None,
    out: Annotated[Place | None, Parameter(help="Copy the checkpoint to this folder.")] = None,
    common: Common = Common(),
) -> None:
    """Train one network; the folder of its checkpoint is printed last. Run again to go on after an interruption.

    Every field of training that has no flag is a word: precision=bfloat16
    accumulate=4 images=1000 log_every=50 shuffle=no optimiser.schedule=cosine
    watch.eps=0.1 stop.accuracy=0.9 (all: pellucid list task train).
    """
    from pellucid.cli.units import in_both_units
    from pellucid.spec import digest, from_dict
    from pellucid.tasks.training import kept_row

    given = {
        "data": data, "model": model, "defence": defence, "optimiser": optimiser, "steps": steps, "epochs": epochs,
        "batch_size": batch_size, "seed": seed, "unlabelled": unlabelled, "augmentation": augmentation,
        "average": average, "watch": watch, "stop": stop, "keep": keep,
    }  # fmt: skip
    described = bool(words or spec or init or any(given.values()))
    task = from_dict(_table(words, given, spec, init), "task") if described else _interrupted(common, resume)
    if resume:
        _check_begun(common, task)
    result = common.run(task, tensorboard)
    folder = result.folder
    if out is not None:
        export(out, {name: (folder / name).read_bytes() for name in result.meta["files"]})
        folder = out.resolve()
    history, schedule = result.json("history.json"), result.json("card.json")["training"]["schedule"]
    units = in_both_units(task.defence, tuple(result.meta["data"]["train"]["value_range"]))
    common.say(
        {
            "checkpoint": str(folder),
            "digest": digest(task),
            "kept": schedule["kept"],
            "stopped": schedule["stopped"],
            "units": [dataclasses.asdict(both) for both in units],
            "history": history,
            "meta": result.meta,
        },
        [
            *(f"{key.replace('_', ' ')}: {value:.4g}" for key, value in kept_row(result).items()),
            *map(str, units),
            *([f"stopped: {schedule['stopped']}"] if schedule["stopped"] else []),
            *([f"kept: the network of step {schedule['kept']}"] if schedule["kept"] else []),
            f"took {result.meta['wall_seconds']:.1f} s",
            str(folder),
        ],
    )


def _table(words: Sequence[str], given: dict[str, str | None], spec: Path | None, init: Path | None) -> dict[str, Any]:
    """Return the training that is described, as a table."""
    from pellucid.tasks import Checkpoint

    table: dict[str, Any] = {"task": "train", "defence": "standard", "optimiser": "adam"}
    table |= read_table(spec) if spec is not None else {}
    table |= {key: value for key, value in given.items() if value is not None}
    for needed in ("data", "model"):
        if needed not in table:
            raise SpecError(f"pellucid train needs --{needed}; pellucid list {needed} shows what there is")
    own = own_words(words, table, (*given, "init"))
    table |= apply_words({"train": {}}, own, "train")["train"]
    table = apply_words(table, [word for word in words if word not in own], "defence")
    if init is not None:
        table["init"] = Checkpoint.of(init)
    return table


def _interrupted(common: Common, resume: bool) -> Any:
    """Return the training that was interrupted last in the store; raise SpecError if none was."""
    from pellucid.spec import digest, from_dict
    from pellucid.store import read_json
    from pellucid.tasks.graph import order
    from pellucid.tasks.io import DESCRIPTION

    if not resume:
        raise SpecError("pellucid train needs --data and --model; pellucid list data shows what there is")
    store = common.open_store()
    signed = (store.root / "scratch").glob(f"*/{DESCRIPTION}")
    for path in sorted(signed, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        table = read_json(path)
        task = from_dict(table, "task") if table.get("task") == "train" else None
        for part in order(task) if task is not None else ():
            if digest(part) == path.parent.name:
                with store.claim(part) as free:  # not while another process is at work on it
                    if free:
                        return task
    raise SpecError(f"there is no interrupted training in {store.root}; describe one (--data, --model)")


def _check_begun(common: Common, task: Any) -> None:
    """Refuse to begin what was to be resumed: neither it nor a teacher of its defence is there."""
    from pellucid.tasks.graph import inputs

    store = common.open_store()
    if not any(store.has(part) or store.scratch(part).is_dir() for part in (task, *inputs(task.defence))):
        raise SpecError(f"nothing of this training is in {store.root} to resume; leave --resume out to begin it")
