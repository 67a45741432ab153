"""Every registered method and network as a description: JSON and back, digests, pickles, docstrings."""

import copy
import dataclasses
import json
import os
import pickle
import re
import subprocess
import sys
from typing import Any

import pytest

from pellucid.errors import SpecError
from pellucid.spec import digest, entries, from_dict, kind_of, name_of, to_dict

from .tiny import choices, has_field, in_norms, option_cases, tiny

METHODS = ("attack", "interpreter", "defence", "model", "transform")
KINDS = (*METHODS, "optimiser", "ramp", "schedule", "augmentation", "average", "stop")
ALL = [
    pytest.param(method, id=f"{kind}-{name}-{getattr(method, 'norm', '')}".rstrip("-"))
    for kind in KINDS
    for name, cls in entries(kind)
    for method in in_norms(cls)
]
CHOICES = [case for kind in KINDS for case in option_cases(kind)]
CLASSES = [pytest.param(cls, id=f"{kind}-{name}") for kind in KINDS for name, cls in entries(kind)]


@pytest.mark.parametrize("method", [*ALL, *CHOICES])
def test_json_round_trip(method: Any) -> None:
    text = json.dumps(to_dict(method), allow_nan=False)
    back = from_dict(json.loads(text))
    assert back == method
    assert type(back) is type(method)
    assert digest(back) == digest(method)
    assert from_dict(json.loads(text), kind_of(method)) == method
    assert to_dict(method)[kind_of(method)] == name_of(method)


@pytest.mark.parametrize("method", ALL)
def test_pickle_and_copies(method: Any) -> None:
    for twin in (pickle.loads(pickle.dumps(method)), copy.deepcopy(method), dataclasses.replace(method)):
        assert twin == method
        assert hash(twin) == hash(method)
        assert digest(twin) == digest(method)


@pytest.mark.parametrize("method", ALL)
def test_frozen(method: Any) -> None:
    for field in dataclasses.fields(method):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(method, field.name, getattr(method, field.name))


@pytest.mark.parametrize("cls", CLASSES)
def test_every_choice_has_a_digest_of_its_own(cls: type) -> None:
    method, seen = tiny(cls), {}
    for field in dataclasses.fields(cls):
        for value in choices(cls, field.name) if field.metadata.get("hashed", True) else ():
            try:
                variant = dataclasses.replace(method, **{field.name: value})
            except SpecError:
                continue
            twin = seen.setdefault(digest(variant), variant)
            assert twin == variant, f"{twin} and {variant} have one digest"


@pytest.mark.parametrize("cls", CLASSES)
def test_wrong_fields_are_refused_by_name(cls: type) -> None:
    made = to_dict(tiny(cls))
    with pytest.raises(SpecError, match="no_such_field"):
        from_dict(made | {"no_such_field": 1})
    for field in dataclasses.fields(cls):
        with pytest.raises(SpecError, match=field.name):
            from_dict(made | {field.name: {"neither": "this", "nor": ["that"]}})


@pytest.mark.parametrize("cls", CLASSES)
def test_docstring_says_where_it_comes_from(cls: type) -> None:
    text = cls.__doc__ or ""
    first = text.strip().split("\n\n")[0]
    assert first.endswith("."), "the first paragraph is a sentence"
    assert "Source:" in text, "name the paper and the equation after 'Source:'"
    assert "Deviations" in text, "say after 'Deviations' what differs from the paper, or that nothing does"
    about_images = cls._registered_as[0] in METHODS  # type: ignore[attr-defined]
    assert re.search(r"\(N[,)]", text) or not about_images, "say the shapes, such as x (N, C, H, W)"
    if about_images and "eps" in text and has_field(cls, "eps"):
        assert "[0, 1]" in text, "say the range in which eps is measured"


def test_digests_are_the_same_in_another_process() -> None:
    tags = [json.dumps(to_dict(case.values[0])) for case in ALL]
    script = (
        "import json, sys\nfrom pellucid.spec import digest, from_dict\n"
        "print(*(digest(from_dict(json.loads(line))) for line in sys.stdin), sep='\\n')"
    )
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    found = subprocess.run(
        [sys.executable, "-c", script],
        input="\n".join(tags),
        text=True,
        capture_output=True,
        env=environment,
        check=True,
    )
    assert found.stdout.split() == [digest(case.values[0]) for case in ALL]
