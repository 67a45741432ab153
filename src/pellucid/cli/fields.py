"""Fields of methods on the command line (`eps=8/255 attack.steps=20`) and in files, as tables for `from_dict`."""

import json
import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from pellucid.errors import SpecError
from pellucid.spec import HOMES, echo


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return (paths, key=value words); what exists is a path, whatever its name."""
    fields = [word for word in words if "=" in word and not os.path.exists(word)]
    return [word for word in words if word not in fields], fields


def apply_words(table: dict[str, Any], words: Sequence[str], main: str) -> dict[str, Any]:
    """Set fields: `weight=1` on the part called `main`, `model.hidden=64` on the part called model.

    A part that is still a bare name becomes a table: {"attack": "fgsm"}. "none" is no value. Values stay text;
    the descriptions cast them by their declared types. Raises SpecError for words without a key or a value, for a
    field that is given twice, and for words that name the part itself, which is what its flag is for.
    """
    given: dict[tuple[str, ...], str] = {}
    for word in words:
        path, _, value = word.partition("=")
        keys = tuple(path.split("."))
        if not all(keys) or not value:
            raise SpecError(f"{echo(word)} is not a field; write key=value, such as eps=0.1 or attack.eps=0.1")
        if not (len(keys) > 1 and keys[0] in table):
            keys = (main, *keys)
        if keys[0] == keys[1]:
            raise SpecError(
                f"{echo(word)} would name the {keys[0]} anew; name it by --{keys[0]} {echo(value, bare=True)}"
            )
        if keys in given:
            raise SpecError(f"{echo(path)} is given twice")
        given[keys] = value
    for keys, value in sorted(given.items(), key=lambda item: len(item[0])):  # a part's name before its fields
        at = table
        for key in keys[:-1]:
            held = at.get(key)
            if isinstance(held, str) and key not in HOMES and keys[-2] == key and "," not in held:
                at[key] = f"{held} {keys[-1]}={value}"  # inner=pgd inner.eps=0.1: as it would be spelled in words
                break
            if not isinstance(held, dict):
                held = {key: held} if isinstance(held, str) and key in HOMES else {}
                at[key] = held
            at = held
        else:
            at[keys[-1]] = None if value.lower() == "none" else value
    return table


def own_words(words: Sequence[str], table: dict[str, Any], flags: Sequence[str]) -> list[str]:
    """Return the words that set fields of training itself, none of the defence's; refuse those that have a flag."""
    from pellucid.spec import lookup
    from pellucid.tasks import Train

    defence = table["defence"].get("defence") if isinstance(table["defence"], dict) else table["defence"]
    theirs = fields(lookup("defence", defence.partition(" ")[0])) if isinstance(defence, str) else ()
    mine = {field.name for field in fields(Train)} - {field.name for field in theirs}
    for word in words:
        path, _, value = word.partition("=")
        name = path.partition(".")[0]
        flag = f"name it by --{name.replace('_', '-')}"
        if not value or name not in mine or name not in flags:
            continue
        if name == path:
            raise SpecError(f"{echo(word)} has a flag; {flag} {echo(value, bare=True)}")
        if table.get(name) is None:
            raise SpecError(f"{echo(word)} belongs to nothing that is there; {flag} NAME")
    return [word for word in words if word.partition("=")[0] in mine]


def data_fields(data: str, fields: Sequence[str]) -> tuple[Any, list[str]]:
    """Return the data set with its `data.train=50` set, and the other words."""
    own = [word for word in fields if word.startswith("data.")]
    return apply_words({"data": data}, own, "data")["data"], [word for word in fields if word not in own]


def read_table(path: Path) -> dict[str, Any]:
    """Read a description from a JSON or YAML file; raise SpecError if it is not a table."""
    try:
        text = path.read_text()
        table = json.loads(text, object_pairs_hook=_once) if path.suffix == ".json" else _Yaml(text).get_single_data()
    except OSError as error:
        raise SpecError(f"{path} cannot be read ({error.strerror})") from None
    except RecursionError:
        raise SpecError(f"{path} is nested too deeply") from None
    except Exception as error:  # what PyYAML raises for a tag that does not fit its value is not declared anywhere
        told = isinstance(error, (ValueError, yaml.YAMLError))
        why = " ".join(str(error).split()) if told else "a value does not fit its tag"
        raise SpecError(f"{path} is not valid {path.suffix.lstrip('.') or 'YAML'} ({why})") from None
    if not isinstance(table, dict):
        raise SpecError(f"{path} must hold a table of fields, not {type(table).__name__}")
    return table


def _once(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return pairs as a table; raise ValueError for a key that is there twice, of which one would be lost."""
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"{echo(key)} is there twice")
    return dict(pairs)


class _Yaml(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        _once([(str(key.value), None) for key, _ in node.value])
        return node
