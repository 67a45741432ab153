"""How the contract suite makes a small instance of any registered class, without being told about it.

`tiny(cls)` fills required fields: those that hold another description get a small one of that kind, the
others come from NEEDED by their name. Fields named in COSTS are lowered, also inside nested descriptions;
all other fields keep their defaults. `cases(kind)` walks the
registry; `options(method)` changes one choice at a time.
A new method joins by being registered; only a required field with a new name needs an entry here.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from pellucid.errors import SpecError
from pellucid.spec import Member, entries, kind_of, lookup, name_of

from .worlds import stylizer_file

_LOOPS = ("steps", "iterations", "max_steps", "max_iterations")
COSTS = dict.fromkeys((*_LOOPS, "samples", "points", "passes"), 3)
COSTS |= {"blocks": 1, "depth": 10, "widen": 1}  # of networks
COSTS |= {"queries": 20, "max_queries": 20, "search_steps": 2, "restarts": 1, "times": 2, "adam_steps": 3, "width": 4}
COSTS |= {"refine": 3}
REAL: dict[str, float] = dict.fromkeys(_LOOPS, 20)
REAL |= {"queries": 500, "max_queries": 500, "search_steps": 5, "adam_steps": 80, "learning_rate": 0.1, "width": 16}

EPS: Mapping[str | None, float] = {"linf": 0.1, "l2": 1.0, "l1": 4.0}
NEEDED: Mapping[str, Any] = {
    "eps": 0.1,
    "step_size": 0.05,
    "theta": 0.3,
    "gamma": 0.25,
    "sigma": 0.1,
    "weight": 1.0,
    "temperature": 5.0,
    "until": (0.5,),
    "start": 0.0,
    "stop": 1.0,
    "at": (0.5,),
    "factors": (0.1,),
    "accuracy": 0.8,
    "p": 8.0,
    "k": 2,
    "radius": 2.0,
    "weights": stylizer_file,  # made where it is needed
    **COSTS,
}
MEMBERS = {
    "attack": "pgd",
    "interpreter": "gradient",
    "defence": "double_backprop",
    "model": "small_cnn",
    "ramp": "linear",
    "schedule": "cosine",
    "augmentation": "crop_and_flip",
    "transform": "saturation",
    "data": "digits",
    "average": "ema",
    "stop": "patience",
}
MORE_VALUES: Mapping[str, tuple[Any, ...]] = {"restarts": (2,)}
# A class that has all fields of a group, each None by default, is given the first.
EITHER = (("radius", "share"), ("accuracy", "like"), ("weights", "fitted"))
# What a class fills in by itself where it is not given, and may depend on another choice.
FILLED: Mapping[str, Any] = {"eps": None, "styles_sha256": ""}


def tiny(cls: type, **given: Any) -> Any:
    """Return a small instance of a registered class; fail with what to do if one cannot be made."""
    filled = dict(given)
    hints = get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        no_default = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if no_default and field.init and field.name not in filled:
            norm = filled.get("norm", getattr(cls, "norm", None))  # a field, or one norm for the whole class
            filled[field.name] = _value(cls, field.name, hints[field.name], norm)
    for names in EITHER:
        if all(has_field(cls, name) for name in names) and filled.keys().isdisjoint(names):
            filled[names[0]] = _needed(names[0])
    try:
        return resized(cls(**filled), COSTS, only_down=True)
    except SpecError as error:
        pytest.fail(f"the contract suite cannot make a tiny {cls.__name__}: {error}. See tests/contract/tiny.py")


def _value(cls: type, name: str, hint: Any, norm: str | None) -> Any:
    kind = _member_kind(hint)
    if kind is not None:
        small = tiny(lookup(kind, MEMBERS[kind]))
        return (small, small) if _holds_tuple(hint) else small
    if name == "eps":
        return EPS.get(norm, NEEDED["eps"])
    if name not in NEEDED:
        pytest.fail(
            f"{cls.__name__}.{name} has no default and no small value for it is known: "
            "give it a default, or add the name to NEEDED in tests/contract/tiny.py"
        )
    return _needed(name)


def _needed(name: str) -> Any:
    value = NEEDED[name]
    return value() if callable(value) else value


def _member_kind(hint: Any) -> str | None:
    """Return the kind of description a field holds, alone or in a tuple."""
    for part in (*getattr(hint, "__metadata__", ()), *get_args(hint)):
        holder = getattr(getattr(part, "func", None), "__self__", None)
        found = holder.kind if isinstance(holder, Member) else _member_kind(part)
        if found is not None:
            return found
    return None


def _holds_tuple(hint: Any) -> bool:
    return get_origin(hint) is tuple or any(_holds_tuple(part) for part in get_args(hint))


def resized(value: Any, sizes: Mapping[str, float], only_down: bool = False) -> Any:
    """Return a description with its cost fields, and those of the descriptions in it, set to `sizes`."""
    if isinstance(value, tuple):
        return tuple(resized(part, sizes, only_down) for part in value)
    if not (kind_of(value) and dataclasses.is_dataclass(value)):
        return value
    changed = {}
    for field in dataclasses.fields(value):
        old = getattr(value, field.name)
        if field.name in sizes and (type(old) in (int, float) or old is None):  # None: by the image's size
            changed[field.name] = min(old, sizes[field.name]) if only_down and old is not None else sizes[field.name]
        else:
            changed[field.name] = resized(old, sizes, only_down)
    return dataclasses.replace(value, **{k: v for k, v in changed.items() if v != getattr(value, k)})


def substituted(value: Any, kind: str, stub: Any) -> Any:
    """Return a description in which every field that holds a description of `kind` holds `stub` instead."""
    if isinstance(value, tuple):
        return tuple(substituted(part, kind, stub) for part in value)
    if kind_of(value) == kind:
        return stub
    if not (kind_of(value) and dataclasses.is_dataclass(value)):
        return value
    new = {f.name: substituted(getattr(value, f.name), kind, stub) for f in dataclasses.fields(value)}
    return dataclasses.replace(value, **{k: v for k, v in new.items() if v is not getattr(value, k)})


def choices(cls: type, name: str) -> tuple[Any, ...]:
    """Return the values a field may take if its type lists them: a Literal or a truth value."""

    def walk(hint: Any) -> Iterator[Any]:
        if hint is bool:
            yield from (False, True)
        elif get_origin(hint) is Literal:
            yield from get_args(hint)
        elif get_origin(hint) is not tuple:
            for part in get_args(hint):
                yield from walk(part)

    return (*walk(get_type_hints(cls, include_extras=True)[name]), *MORE_VALUES.get(name, ()))


def has_field(cls: type, name: str) -> bool:
    return any(field.name == name for field in dataclasses.fields(cls))


def in_norms(cls: type) -> list[Any]:
    """Return one tiny instance, or one per norm where the class has a field `norm`."""
    if not has_field(cls, "norm"):
        return [tiny(cls)]
    with_eps = has_field(cls, "eps")
    return [tiny(cls, norm=n, **({"eps": EPS[n]} if with_eps else {})) for n in choices(cls, "norm")]


def label(method: Any) -> str:
    """Return a readable test id, such as "pgd-l2"."""
    norm = f"-{method.norm}" if has_field(type(method), "norm") else ""
    return name_of(method) + norm


def cases(kind: str) -> list[Any]:
    """Return a test parameter per registered class (and norm)."""
    return [pytest.param(m, id=label(m)) for _, cls in entries(kind) for m in in_norms(cls)]


def options(method: Any) -> Iterator[tuple[str, Any]]:
    """Yield (label, variant) with one listed choice changed at a time; what a class refuses is left out.

    What the class fills in where it is not given, such as an eps, may depend on the choice, and is filled in anew.
    """
    fields = dataclasses.fields(method)
    own = {f.name: f.default for f in fields if f.name in FILLED and f.default == FILLED[f.name]}
    for field in dataclasses.fields(method):
        for value in choices(type(method), field.name) if field.name != "norm" else ():
            if value == getattr(method, field.name):
                continue
            try:
                yield (
                    f"{label(method)}-{field.name}={value}",
                    dataclasses.replace(method, **own | {field.name: value}),
                )
            except SpecError:
                continue


def option_cases(kind: str) -> list[Any]:
    """Return a test parameter per variant of every registered class."""
    return [
        pytest.param(variant, id=name)
        for _, cls in entries(kind)
        for method in in_norms(cls)
        for name, variant in options(method)
    ]
