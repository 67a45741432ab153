"""pellucid attack."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pellucid.cli.common import Common, Place
from pellucid.cli.fields import data_fields, split_words
from pellucid.errors import SpecError


def attack(
    *words: Annotated[str, Parameter(help="A checkpoint folder and fields of the attack: eps=0.1 steps=20 ...")],
    data: Annotated[str, Parameter(help="A data set (pellucid list data).")],
    attack: Annotated[str, Parameter(help="An attack (pellucid list attack).")],
    part: Annotated[str, Parameter(help="train, validation or test.")] = "test",
    images: Annotated[str, Parameter(help="How many images.")] = "16",
    seed: Annotated[str, Parameter(help="Seed of the attack.")] = "0",
    out: Annotated[Place, Parameter(help="Folder for attack.png and attack.safetensors.")] = Path("attack"),
    common: Common = Common(),
) -> None:
    """Make adversarial images and save them, with a contact sheet: clean, adversarial, difference.

    attack.safetensors holds clean, adversarial (N, C, H, W), probabilities_clean, probabilities_adversarial (N, K)
    and labels (N,). The sheet's path is printed last.
    """
    from pellucid.cli.evaluate import with_attack
    from pellucid.cli.pairs import deliver, gallery
    from pellucid.spec import from_dict
    from pellucid.tasks import Checkpoint
    from pellucid.tasks.attacking import warning_lines, warnings_of

    paths, fields = split_words(words)
    if len(paths) != 1:
        raise SpecError("pellucid attack needs the folder of one checkpoint, as pellucid train prints it")
    data_set, fields = data_fields(data, fields)
    table = {"task": "explain", "data": data_set, "part": part, "images": images, "seed": seed, "interpreters": ()}
    task = from_dict(table | with_attack(attack, fields) | {"network": Checkpoint.of(paths[0])}, "task")
    result = common.run(task)
    maps = result.tensors("maps.safetensors")
    classes = common.open_store().open(task.network).json("config.json")["classes"]
    right = {
        k: float((maps[f"probabilities_{k}"].argmax(1) == maps["labels"]).float().mean())
        for k in ("clean", "adversarial")
    }
    size = (maps["adversarial"] - maps["clean"]).flatten(1)
    path = deliver(result, "attack", gallery(maps, (), classes, True, 16), out)
    largest = {"linf": float(size.abs().amax()), "l2": float(size.norm(dim=1).amax())}
    warnings = warnings_of({k.removeprefix("note_"): v for k, v in maps.items() if k.startswith("note_")})
    said = {"sheet": str(path), "accuracy": right, "images": len(maps["labels"]), "largest": largest}
    common.say(
        said | {"warnings": warnings, "meta": result.meta},
        [
            f"{len(maps['labels'])} images: {right['clean']:.1%} right before, {right['adversarial']:.1%} after",
            f"largest perturbation: linf {largest['linf']:.4g}, l2 {largest['l2']:.4g}",
            *warning_lines(warnings),
            str(path),
        ],
    )
