"""pellucid explain."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from pellucid.cli.common import Common, Place
from pellucid.cli.fields import apply_words, data_fields, split_words
from pellucid.errors import SpecError


def explain(
    *words: Annotated[
        str,
        Parameter(help="A checkpoint folder and fields: score=log_probability (the interpreter's), attack.eps=0.1 ..."),
    ],
    data: Annotated[str, Parameter(help="A data set (pellucid list data).")],
    interpreter: Annotated[str, Parameter(help="An interpreter (pellucid list interpreter).")] = "gradient",
    attack: Annotated[str | None, Parameter(help="Also explain the images after this attack.")] = None,
    part: Annotated[str, Parameter(help="train, validation or test.")] = "test",
    images: Annotated[str, Parameter(help="How many images.")] = "16",
    seed: Annotated[str, Parameter(help="Seed of everything random.")] = "0",
    out: Annotated[Place, Parameter(help="Folder for explain.png and explain.safetensors.")] = Path("explain"),
    common: Common = Common(),
) -> None:
    """Map what speaks for the true class, on clean images and, with an attack, on adversarial ones beside them.

    With an attack, Kendall's tau between the two maps says how stable the explanation is. explain.safetensors holds
    images, maps, probabilities and tau. The contact sheet's path is printed last.
    """
    from pellucid.cli.pairs import deliver, gallery
    from pellucid.metrics import stability
    from pellucid.spec import from_dict
    from pellucid.tasks import Checkpoint

    paths, fields = split_words(words)
    if len(paths) != 1:
        raise SpecError("pellucid explain needs the folder of one checkpoint, as pellucid train prints it")
    data_set, fields = data_fields(data, fields)
    parts: dict[str, Any] = {"interpreter": interpreter} | ({"attack": attack} if attack else {})
    parts = apply_words(parts, fields, "interpreter")
    table: dict[str, Any] = {"task": "explain", "data": data_set, "part": part, "images": images, "seed": seed}
    table |= {"interpreters": (from_dict(parts["interpreter"], "interpreter"),), "network": Checkpoint.of(paths[0])}
    task = from_dict(table | ({"attack": parts["attack"]} if attack else {}), "task")
    result = common.run(task)
    maps = result.tensors("maps.safetensors")
    classes = common.open_store().open(task.network).json("config.json")["classes"]
    path = deliver(result, "explain", gallery(maps, task.interpreters, classes, attack is not None, 16), out)
    found: dict[str, Any] = {"sheet": str(path), "images": len(maps["labels"]), "meta": result.meta}
    lines = []
    if attack is not None:
        kept = maps["probabilities_clean"].argmax(1) == maps["probabilities_adversarial"].argmax(1)
        stable = stability(maps["tau_0"], kept)
        found |= {"tau": stable.tau._asdict(), "kept": stable.kept}
        lines = [
            f"tau {stable.tau.value:.3f} [{stable.tau.low:.3f}, {stable.tau.high:.3f}] over the {stable.kept} of "
            f"{len(kept)} images whose prediction stayed"
        ]
    common.say(found, [*lines, str(path)])
