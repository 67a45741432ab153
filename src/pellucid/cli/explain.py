"""pellucid explain."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from pellucid.cli.common import Common, Place
from pellucid.cli.fields import apply_words, data_fields, split_words
from pellucid.errors import SpecError

USUAL = ("gradient", "integrated_gradients", "grad_cam", "cam")  # as far as the network can do it


def explain(
    *words: Annotated[
        str,
        Parameter(
            help="A network (checkpoint folder, or package.module:attribute, which is imported); an image or a folder "
            "of images, unless "
            "--data names a data set; and fields: score=log_probability (of the only interpreter), "
            "smooth_grad.samples=20, attack.eps=0.1, data.fit=crop, and model.mean=0.5 model.std=0.2,0.3,0.2 "
            "model.feature_layer=layer4 model.head=fc of an imported network."
        ),
    ],
    data: Annotated[str | None, Parameter(help="A data set (pellucid list data), instead of a path.")] = None,
    interpreters: Annotated[
        str | None,
        Parameter(
            name=("--interpreters", "--interpreter"),
            help="Interpreters (pellucid list interpreter), with commas between: gradient,cam or 'smooth_grad "
            "inner=gradient samples=20, cam' [gradient, integrated_gradients, grad_cam, cam: what the network can do].",
        ),
    ] = None,
    classes: Annotated[
        str | None,
        Parameter(
            help="Classes to explain, with commas between: true, predicted, runner_up, least_likely, names, numbers "
            "[true; predicted where there are no labels]."
        ),
    ] = None,
    attack: Annotated[str | None, Parameter(help="Also explain the images after this attack.")] = None,
    part: Annotated[str, Parameter(help="train, validation or test.")] = "test",
    images: Annotated[str, Parameter(help="How many images.")] = "16",
    size: Annotated[
        str | None, Parameter(help="Height and width of pictures, such as 224,224 [the network's, or their own].")
    ] = None,
    seed: Annotated[str, Parameter(help="Seed of everything random.")] = "0",
    out: Annotated[Place, Parameter(help="Folder for explain.png, .html and .safetensors.")] = Path("explain"),
    common: Common = Common(),
) -> None:
    """Map what speaks for a class in an image, a folder of images or a data set.

    With an attack, adversarial images are explained beside the clean ones, for the same classes, and Kendall's tau
    between the two maps says how stable the explanation is. explain.html and explain.png show image, prediction and a
    map per interpreter and class; explain.safetensors holds images, maps, probabilities and tau. An attack moves
    images without labels away from the class predicted. The contact sheet's path is printed last.
    """
    from pellucid.cli.explained import deliver, numbers
    from pellucid.cli.networks import named_networks
    from pellucid.spec import from_dict
    from pellucid.tasks.explaining import explanation

    paths, fields = split_words(words)
    if not paths:
        raise SpecError("pellucid explain needs the folder of a checkpoint, or package.module:attribute")
    if len(paths) - 1 + (data is not None) != 1:
        raise SpecError("pellucid explain needs one network and one path of an image or folder, or --data NAME")
    networks, fields = named_networks(paths[:1], fields)
    if data is not None:
        if size is not None:
            raise SpecError("--size is for pictures given by their path; a data set has its own (data.size=32,32)")
        data_set, fields = data_fields(data, fields)
    else:
        data_set, fields = _pictures(paths[1], networks[0], size, fields)
    table = {"task": "explain", "data": data_set, "part": part, "images": images, "seed": seed, "network": networks[0]}
    table |= _methods(interpreters, attack, fields)
    task = from_dict(table | ({} if classes is None else {"classes": classes}), "task")
    task = _completed(task, interpreters is None, classes is None, common)
    result = common.run(task)
    found = explanation(task, result)
    sheet = deliver(found, task, result, out, paths[0])
    said, lines = numbers(found, result.json("explained.json")["images"])
    common.say(
        {"sheet": str(sheet), "page": str(sheet.with_suffix(".html")), "arrays": str(sheet.with_suffix(".safetensors"))}
        | {**said, "meta": result.meta},
        [*lines, str(sheet.with_suffix(".html")), str(sheet)],
    )


def _pictures(path: str, network: Any, size: str | None, fields: list[str]) -> tuple[Any, list[str]]:
    """Return the table of pictures at a path, in the size and channels that a checkpoint says it takes."""
    from pellucid.cli.networks import own_shape

    table: dict[str, Any] = {"data": "pictures", "path": path}
    if (shape := own_shape(network)) is not None:
        table |= {"channels": shape[0], "size": shape[1:]}
    if size is not None:
        table["size"] = size
    return _data_fields_of(table, fields)


def _data_fields_of(table: dict[str, Any], fields: Sequence[str]) -> tuple[Any, list[str]]:
    """Return a table of data with its `data.fit=crop` set, and the other words."""
    own = [word for word in fields if word.startswith("data.")]
    return apply_words({"data": table}, own, "data")["data"], [word for word in fields if word not in own]


def _methods(interpreters: str | None, attack: str | None, fields: list[str]) -> dict[str, Any]:
    """Return the tables of interpreters and attack; `name.field=value` belongs to the interpreter of that name."""
    from pellucid.spec import read_sequence

    spelled = read_sequence(interpreters) if interpreters is not None else ()
    if interpreters is not None and not spelled:
        raise SpecError("--interpreters names none; pellucid list interpreter shows what there is")
    table = {_key(number, spelled): _table(text) for number, text in enumerate(spelled)}
    parts: dict[str, Any] = {**table, **({"attack": {"attack": attack}} if attack is not None else {})}
    only = next(iter(table)) if len(table) == 1 else None
    parts = apply_words(parts, [_addressed(word, only, parts) for word in fields], only or "interpreter")
    found: dict[str, Any] = {"interpreters": tuple(parts[key] for key in table)}
    return found | ({"attack": parts["attack"]} if attack is not None else {})


def _addressed(word: str, only: str | None, parts: Mapping[str, Any]) -> str:
    """Return a field with the part that it belongs to; raise SpecError if there is none."""
    from pellucid.spec import echo

    first, dot, _ = word.partition("=")[0].partition(".")
    if first == "interpreter" and not dot:
        raise SpecError(f"{echo(word)} would name the interpreter anew; name it by --interpreters")
    if only is not None:
        return word.replace("interpreter.", f"{only}.", 1) if first == "interpreter" else word
    if not dot or first not in parts:
        raise SpecError(
            f"{echo(word)} belongs to nothing here; write attack.eps=0.1 of --attack, or cam.field=value of one of "
            "--interpreters (with one interpreter, field=value is enough)"
        )
    return word


def _key(number: int, spelled: Sequence[str]) -> str:
    """Return the word under which fields address an interpreter: its name, where no other has it."""
    names = [text.split()[0] for text in spelled]
    return names[number] if names.count(names[number]) == 1 else f"{names[number]} {number}"


def _table(text: str) -> dict[str, Any]:
    """Return "smooth_grad inner=gradient samples=20" as a table."""
    name, *words = text.split()
    table: dict[str, Any] = apply_words({name: {"interpreter": name}}, words, name)[name]
    return table


def _completed(task: Any, all_usual: bool, any_class: bool, common: Common) -> Any:
    """Return the task with what was left open: the interpreters that the network can do, the class there is."""
    from pellucid.cli.networks import live
    from pellucid.explain import refusal
    from pellucid.spec import lookup
    from pellucid.tasks.io import first_scores

    common.open_store()  # which says where data sets are
    split = task.data.load(task.part)
    if hasattr(task.data, "sha256"):  # pictures at a path: others may lie there next time, and are explained anew
        task = replace(task, data=replace(task.data, sha256=split.sha256))
    if any_class and not split.labelled:
        task = replace(task, classes=("predicted",))
    if not all_usual:
        return task
    network, device = live(task.network, common), common.options().resolved_device()
    first_scores(network, split, device)
    x = split.images(slice(1)).to(device)
    able, why = [], None
    for interpreter in (lookup("interpreter", name)() for name in USUAL):
        refused = refusal(network, x, interpreter)
        why = why or refused
        able += [interpreter] if refused is None else []
    if not able and why is not None:
        raise why
    return replace(task, interpreters=tuple(able))
