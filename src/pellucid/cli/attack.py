"""pellucid attack."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from pellucid.cli.common import Common, Place, export
from pellucid.cli.fields import data_fields, split_words
from pellucid.errors import SpecError


def attack(
    *words: Annotated[
        str,
        Parameter(
            help="A network (checkpoint folder, or package.module:attribute) and fields of the attack: eps=0.1 ..., "
            "of an imported network: model.mean=0.5 ..."
        ),
    ],
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
    and labels (N,); images without labels are moved away from the class predicted. The sheet's path is printed last.
    """
    from pellucid.cli.evaluate import with_attack
    from pellucid.cli.networks import named_networks
    from pellucid.report import to_png
    from pellucid.report.explained import changes_of
    from pellucid.spec import from_dict
    from pellucid.tasks.attacking import warning_lines, warnings_of
    from pellucid.tasks.explaining import MAPS, explanation

    paths, fields = split_words(words)
    if len(paths) != 1:
        raise SpecError("pellucid attack needs the folder of one checkpoint, or one package.module:attribute")
    networks, fields = named_networks(paths, fields)
    data_set, fields = data_fields(data, fields)
    table = {"task": "explain", "data": data_set, "part": part, "images": images, "seed": seed, "interpreters": ()}
    table |= {"classes": ("predicted",), "network": networks[0]}
    task = from_dict(table | with_attack(attack, fields), "task")
    result = common.run(task)
    found = explanation(task, result)
    said, lines = _numbers(found)
    warnings = warnings_of(found.notes)
    sheet = to_png(changes_of(found, result.json("explained.json")["images"] or ()))
    export(out, {"attack.png": sheet, "attack.safetensors": (result.folder / MAPS).read_bytes()})
    path = str((out / "attack.png").resolve())
    common.say(
        {"sheet": path, **said, "warnings": warnings, "meta": result.meta},
        [*lines, *warning_lines(warnings), path],
    )


def _numbers(found: Any) -> tuple[dict[str, Any], list[str]]:
    """Return what an attack did, for programs and for people."""
    n, size = len(found.images), (found.adversarial - found.images).flatten(1)
    largest = {"linf": float(size.abs().amax()), "l2": float(size.norm(dim=1).amax())}
    said: dict[str, Any] = {"images": n, "largest": largest}
    if found.labels is None:
        said["kept"] = int(found.kept.sum())
        what = f"{n} images: {said['kept']} kept their prediction"
    else:
        scores = {"clean": found.probabilities, "adversarial": found.probabilities_adversarial}
        right = {k: float((v.argmax(1) == found.labels).float().mean()) for k, v in scores.items()}
        said["accuracy"] = right
        what = f"{n} images: {right['clean']:.1%} right before, {right['adversarial']:.1%} after"
    return said, [what, f"largest perturbation: linf {largest['linf']:.4g}, l2 {largest['l2']:.4g}"]
