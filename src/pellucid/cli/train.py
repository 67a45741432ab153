"""pellucid train."""

from typing import Annotated, Any

from cyclopts import Parameter

from pellucid.cli.common import Common, Place, export
from pellucid.cli.fields import apply_words, read_table
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
    spec: Annotated[
        Place | None, Parameter(help="A JSON or YAML file with the fields; the command line overrides it.")
    ] = None,
    out: Annotated[Place | None, Parameter(help="Copy the checkpoint to this folder.")] = None,
    common: Common = Common(),
) -> None:
    """Train one network; the folder of its checkpoint is printed last. Run again to go on after an interruption."""
    from pellucid.spec import digest, from_dict
    from pellucid.tasks import Checkpoint

    task_table: dict[str, Any] = read_table(spec) if spec is not None else {}
    given = {
        "data": data, "model": model, "defence": defence, "optimiser": optimiser, "steps": steps,
        "epochs": epochs, "batch_size": batch_size, "seed": seed,
    }  # fmt: skip
    task_table = {"task": "train", "defence": "standard", "optimiser": "adam"} | task_table
    task_table |= {key: value for key, value in given.items() if value is not None}
    for needed in ("data", "model"):
        if needed not in task_table:
            raise SpecError(f"pellucid train needs --{needed}; pellucid list {needed} shows what there is")
    task_table = apply_words(task_table, words, "defence")
    if init is not None:
        task_table["init"] = Checkpoint.of(init)
    task = from_dict(task_table, "task")
    result = common.run(task)
    folder = result.folder
    if out is not None:
        export(out, {name: (folder / name).read_bytes() for name in result.meta["files"]})
        folder = out.resolve()
    history = result.json("history.json")
    last = history[-1]
    common.say(
        {"checkpoint": str(folder), "digest": digest(task), "history": history, "meta": result.meta},
        [
            *(f"{key.replace('_', ' ')}: {value:.4g}" for key, value in last.items()),
            f"took {result.meta['wall_seconds']:.1f} s",
            str(folder),
        ],
    )
