"""Descriptions: frozen dataclasses that are at once what one reads, what is stored and what is hashed.

`register` files a dataclass under a kind and a name, and makes its constructor check and cast every field.
`to_dict` / `from_dict` turn it into JSON and back, `digest` into the key under which its results are stored.
"""

import dataclasses
import functools
import hashlib
import importlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass
from fractions import Fraction as Ratio
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

from annotated_types import Ge, Gt, Le
from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from pellucid.errors import SpecError

# Where the methods of a kind live: imported when a name of that kind is first looked up.
HOMES = {
    "attack": "pellucid.attacks",
    "interpreter": "pellucid.interpreters",
    "defence": "pellucid.defences",
    "model": "pellucid.models",
    "data": "pellucid.data",
    "optimiser": "pellucid.optimisers",
    "ramp": "pellucid.schedule",
    "schedule": "pellucid.schedule",
    "augmentation": "pellucid.data",
    "transform": "pellucid.transforms",
    "average": "pellucid.averaging",
    "stop": "pellucid.stopping",
    "visualisation": "pellucid.feature_visualisation",
    "task": "pellucid.studies",
}

_REGISTRY: dict[str, dict[str, type]] = {kind: {} for kind in HOMES}
_PRESETS: dict[str, dict[str, Any]] = {kind: {} for kind in HOMES}
_C = TypeVar("_C", bound=type)


# ---------------------------------------------------------------------------------------------- field types


def read_number(value: Any) -> Any:
    """Read text such as "8/255" or "1e-3" as a number, without evaluating it; refuse True as a number."""
    if isinstance(value, bool):
        raise ValueError("a number is needed, not a truth value")
    if isinstance(value, str):
        above, slash, below = value.partition("/")
        try:
            number = float(above) / float(below) if slash else float(above)
        except (ValueError, ZeroDivisionError):
            raise ValueError(f"{echo(value)} is not a number (written like 0.1, 1e-3 or 8/255)") from None
        return int(above) if not slash and above.strip().lstrip("+-").isdigit() else number
    return value


def _finite(value: Any) -> Any:
    value = read_number(value)
    if not isinstance(value, (int, float)):
        return value
    try:
        value = value + 0.0  # -0.0 becomes 0.0: one digest
    except OverflowError:  # an integer beyond every float
        value = math.inf
    if not math.isfinite(value):
        raise ValueError("a finite number is needed")
    return value


def _whole(value: Any) -> Any:
    value = read_number(value)
    if isinstance(value, int) and value.bit_length() > 64:  # Python cannot even print it, if it is very long
        raise ValueError("a whole number of at most 64 bits is needed")
    return value


def read_flag(value: Any) -> Any:
    """Read the words true/false, yes/no, on/off as a truth value."""
    words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    return words.get(value.lower(), value) if isinstance(value, str) else value


def read_sequence(value: Any) -> Any:
    """Read "0,0.1,0.2" as a tuple of its parts; lists become tuples."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return tuple(value) if isinstance(value, list) else value


Real = Annotated[float, BeforeValidator(_finite)]
NonNegative = Annotated[float, Ge(0), BeforeValidator(_finite)]
Positive = Annotated[float, Gt(0), BeforeValidator(_finite)]
Share = Annotated[float, Ge(0), Le(1), BeforeValidator(_finite)]
Whole = Annotated[int, Ge(0), BeforeValidator(_whole)]
Count = Annotated[int, Ge(1), BeforeValidator(_whole)]
Flag = Annotated[bool, BeforeValidator(read_flag)]
Reals = Annotated[tuple[Real, ...], BeforeValidator(read_sequence)]
Wholes = Annotated[tuple[Whole, ...], BeforeValidator(read_sequence)]

# A field that says where something lies, not what it is: recorded, not hashed.
NOT_HASHED: Mapping[str, bool] = {"hashed": False}


@dataclass(frozen=True)
class Member:
    """Marks a field that holds a registered description.

    Its bare name, its name with fields ("pgd eps=0.1 steps=20"), or its dictionary are read as well.
    """

    kind: str

    def read(self, value: Any) -> Any:
        """Return the description that `value` is, names, or spells out."""
        if isinstance(value, (str, Mapping)):
            try:
                return from_dict(_spelled(value, self.kind), self.kind)
            except SpecError as error:
                raise ValueError(str(error)) from None
        if kind_of(value) != self.kind:
            raise ValueError(f"one of these is needed: {', '.join(names(self.kind))}")
        return value


def _spelled(value: str | Mapping[str, Any], kind: str) -> str | Mapping[str, Any]:
    """Return "pgd eps=0.1 steps=20" as a table; what has no fields, or is a table, as it is."""
    name, *words = value.split() if isinstance(value, str) else [""]
    if not words:
        return value
    pairs = [word.partition("=") for word in words]
    wrong = next((word for word, (key, _, field) in zip(words, pairs) if not key or not field), None)
    if wrong is not None:
        raise SpecError(f"{echo(wrong)} is not a field of {kind} {name}; write key=value, such as eps=0.1")
    return {kind: name} | {key: field for key, _, field in pairs}


def echo(value: Any, bare: bool = False) -> str:
    """Return what was given as it is said in a refusal: quoted, unless bare, and never longer than a line."""
    try:
        text = str(value) if bare else repr(value)
    except (ValueError, RecursionError):  # a number of too many digits, lists in lists without end
        return f"a huge {type(value).__name__}"
    return text if len(text) <= 64 else text[:60] + "..."


def member(kind: str) -> Any:
    """Return the annotation of a field that holds one registered description of `kind`."""
    return BeforeValidator(Member(kind).read)


# ------------------------------------------------------------------------------------------------- registry


def register(kind: str, name: str) -> Callable[[_C], _C]:
    """File a frozen dataclass under `kind` and `name`, and have its constructor check and cast its fields.

    A method `check(self)` of the class, where there is one, runs after the fields were cast.
    """

    def file(cls: _C) -> _C:
        if not dataclasses.is_dataclass(cls) or not cls.__dataclass_params__.frozen:  # type: ignore[attr-defined]
            raise TypeError(f"{cls.__name__} must be a frozen dataclass to be registered")
        if kind not in _REGISTRY:
            raise TypeError(f"there is no kind {kind!r}; kinds are {', '.join(_REGISTRY)}")
        if any(f.name == kind for f in dataclasses.fields(cls)):
            raise TypeError(f"a field of {cls.__name__} must not be called {kind!r}: that key names the class in JSON")
        if name in _PRESETS[kind]:
            raise TypeError(f"the {kind} {name!r} is already a name for {brief(_PRESETS[kind][name])}")
        known = _REGISTRY[kind].get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(f"the {kind} {name!r} is already {known.__module__}.{known.__qualname__}")
        _REGISTRY[kind][name] = cls
        cls._registered_as = (kind, name)  # type: ignore[attr-defined]
        cls.__init__ = _checked(cls)  # type: ignore[method-assign]
        return cls

    return file


def _checked(cls: type) -> Callable[..., None]:
    plain = cls.__init__  # type: ignore[misc]

    @functools.wraps(plain)
    def construct(self: Any, *args: Any, **given: Any) -> None:
        known = [f.name for f in dataclasses.fields(cls) if f.init]
        unknown = [key for key in given if key not in known]
        if unknown:
            raise SpecError(
                f"{title(cls)} has no field {echo(unknown[0])}; its fields are {', '.join(known) or 'none'}"
            )
        required = [f.name for f in dataclasses.fields(cls) if f.default is MISSING and f.default_factory is MISSING]
        missing = [key for key in required if key not in given] if not args else []
        if missing:
            raise SpecError(f"{title(cls)} needs {', '.join(missing)}")
        plain(self, *args, **given)
        for key, adapter in _adapters(cls).items():
            object.__setattr__(self, key, _cast(cls, key, adapter, getattr(self, key)))
        if hasattr(self, "check"):
            self.check()

    return construct


@functools.cache
def _adapters(cls: type) -> dict[str, TypeAdapter[Any]]:
    hints = get_type_hints(cls, include_extras=True)
    strict = ConfigDict(strict=True, arbitrary_types_allowed=True)
    return {f.name: TypeAdapter(hints[f.name], config=strict) for f in dataclasses.fields(cls)}


def _cast(cls: type, key: str, adapter: TypeAdapter[Any], value: Any) -> Any:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        why = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ").removeprefix("Input ")
        known = kind_of(value) or isinstance(value, Mapping) or echo(value) in why
        shown = "" if known else f" (got {echo(value)})"
        raise SpecError(f"{title(cls)}.{key}: {why}{shown}") from None


def title(cls: type) -> str:
    """Return the name under which a registered class is addressed, such as "attack pgd"."""
    return " ".join(getattr(cls, "_registered_as", (cls.__name__,)))


def kind_of(value: Any) -> str | None:
    """Return the kind of a description, None for anything else."""
    return getattr(type(value), "_registered_as", (None,))[0]


def name_of(value: Any) -> str:
    """Return the name under which a description's class is registered."""
    return str(type(value)._registered_as[1])


def names(kind: str) -> list[str]:
    """Return the registered names of a kind, sorted."""
    importlib.import_module(HOMES[kind])
    return sorted(_REGISTRY[kind])


def entries(kind: str) -> Iterator[tuple[str, type]]:
    """Yield (name, class) of everything registered under a kind."""
    for name in names(kind):
        yield name, _REGISTRY[kind][name]


def preset(kind: str, name: str, value: Any) -> Any:
    """File a description under a name of its own, under which its fields may still be changed; returns it.

    A preset is read as what it stands for: its digest is that of the description spelled out.
    """
    if kind_of(value) != kind or name in _REGISTRY[kind] or _PRESETS[kind].get(name, value) != value:
        raise TypeError(f"{name!r} cannot stand for this {kind}: it must be one, and the name be free")
    _PRESETS[kind][name] = value
    return value


def presets(kind: str) -> dict[str, Any]:
    """Return the descriptions of a kind that have a name of their own, sorted by name."""
    importlib.import_module(HOMES[kind])
    return dict(sorted(_PRESETS[kind].items()))


def lookup(kind: str, name: str) -> type:
    """Return the class registered under `kind` and `name`; raise SpecError that lists the known names."""
    if kind not in HOMES:
        raise SpecError(f"there is no kind {kind!r}; known kinds: {', '.join(HOMES)}")
    known = names(kind)
    if name in _PRESETS[kind]:
        return type(_PRESETS[kind][name])
    if name not in _REGISTRY[kind]:
        known = sorted([*known, *_PRESETS[kind]])
        raise SpecError(f"there is no {kind} called {echo(name)}; known: {', '.join(known)}")
    return _REGISTRY[kind][name]


def _made(kind: str, name: str, fields: Mapping[str, Any]) -> Any:
    """Return the description called `name` with these fields; a preset keeps its others."""
    cls = lookup(kind, name)
    ready = _PRESETS[kind].get(name)
    own = {} if ready is None else {f.name: getattr(ready, f.name) for f in dataclasses.fields(cls)}
    return cls(**own | {key: _completed(cls, own, key, value) for key, value in fields.items()})


def _completed(cls: type, own: Mapping[str, Any], key: str, value: Any) -> Any:
    """Return a table of fields that names no description as the field's default with these fields changed."""
    field = next((f for f in dataclasses.fields(cls) if f.name == key), None)
    if field is None or not isinstance(value, Mapping):
        return value
    default = own.get(key, field.default_factory() if field.default_factory is not MISSING else field.default)
    kind = kind_of(default)
    return value if kind is None or kind in value else to_dict(default) | dict(value)


# ---------------------------------------------------------------------------------------------- dictionaries


def to_dict(value: Any) -> Any:
    """Turn a description into plain JSON values: `{"attack": "pgd", "eps": ...}`, defaults included."""
    if kind_of(value):
        kind, name = type(value)._registered_as
        return {kind: name} | {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [to_dict(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def from_dict(value: Any, kind: str | None = None) -> Any:
    """Turn what `to_dict` gave, or the bare name of a description of `kind`, into the description.

    Raises SpecError for unknown names (known ones listed), unknown fields, wrong types and missing kinds.
    """
    try:
        return _read(value, kind)
    except RecursionError:  # lists in lists, or a table that holds itself
        raise SpecError(f"a {kind or 'description'} is nested too deeply") from None


def _read(value: Any, kind: str | None) -> Any:
    if isinstance(value, str) and kind is not None:
        return _made(kind, value, {})
    if not isinstance(value, Mapping):
        raise SpecError(f"a {kind or 'description'} must be a name or a table of fields, not {echo(value)}")
    tag = kind if kind in value else next((key for key in value if key in HOMES and isinstance(value[key], str)), None)
    if tag is None or (kind is not None and tag != kind) or not isinstance(value[tag], str):
        raise SpecError(
            f"a description needs its kind, such as {{{kind or 'attack'!r}: NAME}}; got {echo(dict(value))}"
        )
    if odd := [key for key in value if not isinstance(key, str)]:
        raise SpecError(f"fields have names, not {echo(odd[0])}")
    fields = {key: _inner(part) for key, part in value.items() if key != tag}
    return _made(tag, value[tag], fields)


def _inner(value: Any) -> Any:
    """Turn lists into tuples; tables inside are read by the fields that hold them, which know their kind."""
    return tuple(_inner(part) for part in value) if isinstance(value, (list, tuple)) else value


# -------------------------------------------------------------------------------------------------- digests


@functools.lru_cache(maxsize=4096)
def digest(value: Any) -> str:
    """Return the SHA-256 (hex) of a description's canonical JSON.

    All fields with their defaults count, and the class's `version` (default 1, raised when its behaviour
    changes); nested tasks count by their own digest. Fields marked NOT_HASHED do not count.
    """
    text = json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: Any, inside: bool = False) -> Any:
    if not kind_of(value):
        return [_canonical(part, True) for part in value] if isinstance(value, (tuple, list)) else to_dict(value)
    if inside and kind_of(value) == "task":
        return digest(value)
    hashed = [f for f in dataclasses.fields(value) if f.metadata.get("hashed", True)]
    fields = {f.name: _canonical(getattr(value, f.name), True) for f in hashed}
    return {"is": list(type(value)._registered_as), "version": getattr(value, "version", 1), "fields": fields}


def fraction(value: float) -> str:
    """Write a number as people in the field do: 0.031372549 as "8/255", others with up to four digits.

    >>> fraction(8 / 255), fraction(0.1), fraction(0.25)
    ('8/255', '0.1', '0.25')
    """
    if value and abs(value - round(value, 4)) > 1e-9:
        ratio = Ratio(value * 255).limit_denominator(4)
        if abs(float(ratio) / 255 - value) < 1e-9:
            return f"{ratio}/255" if ratio.denominator == 1 else f"{float(ratio):g}/255"
    return f"{value:.4g}"


def brief(value: Any) -> str:
    """Name a description with the fields in which it differs from its defaults, for people.

    >>> from pellucid.attacks import PGD
    >>> brief(PGD(eps="8/255", steps=40))
    'pgd eps=8/255'
    """
    words = [name_of(value)]
    for f in dataclasses.fields(value):
        held = getattr(value, f.name)
        default = f.default_factory() if f.default_factory is not MISSING else f.default
        if held == default or kind_of(held) == "task":
            continue
        if isinstance(held, tuple) and held and all(kind_of(part) for part in held):
            shown = f"({', '.join(brief(part) for part in held)})"
        else:
            shown = fraction(held) if isinstance(held, float) else brief(held) if kind_of(held) else str(held)
        words.append(f"{f.name}={shown}")
    return " ".join(words)
