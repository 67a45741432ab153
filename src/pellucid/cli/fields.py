"""Fields of methods on the command line (`eps=8/255 attack.steps=20`) and in files, as tables for `from_dict`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pellucid.errors import SpecError
from pellucid.spec import HOMES


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return (paths or names, key=value words)."""
    return [w for w in words if "=" not in w], [w for w in words if "=" in w]


def apply_words(table: dict[str, Any], words: Sequence[str], main: str) -> dict[str, Any]:
    """Set fields: `weight=1` on the part called `main`, `model.hidden=64` on the part called model.

    A part that is still a bare name becomes a table: {"attack": "fgsm"}. "none" is no value. Values stay text;
    the descriptions cast them by their declared types. Raises SpecError for words without a key or a value.
    """
    for word in words:
        path, _, value = word.partition("=")
        keys = path.split(".")
        if not all(keys):
            raise SpecError(f"{word!r} is not a field; write key=value, such as eps=0.1 or attack.eps=0.1")
        if not (len(keys) > 1 and keys[0] in table):
            keys = [main, *keys]
        at = table
        for key in keys[:-1]:
            held = at.get(key)
            if not isinstance(held, dict):
                held = {key: held} if isinstance(held, str) and key in HOMES else {}
                at[key] = held
            at = held
        at[keys[-1]] = None if value.lower() == "none" else value
    return table


def data_fields(data: str, fields: Sequence[str]) -> tuple[Any, list[str]]:
    """Return the data set with its `data.train=50` set, and the other words."""
    own = [word for word in fields if word.startswith("data.")]
    return apply_words({"data": data}, own, "data")["data"], [word for word in fields if word not in own]


def read_table(path: Path) -> dict[str, Any]:
    """Read a description from a JSON or YAML file; raise SpecError if it is not a table."""
    try:
        text = path.read_text()
        table = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise SpecError(f"{path} cannot be read ({error.strerror})") from None
    except (json.JSONDecodeError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(
            f"{path} is not valid {path.suffix.lstrip('.') or 'YAML'} ({' '.join(str(error).split())})"
        ) from None
    if not isinstance(table, dict):
        raise SpecError(f"{path} must hold a table of fields, not {type(table).__name__}")
    return table
