import dataclasses
import enum
import hashlib
import json
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from pellucid import spec
from pellucid.attacks import FGSM, PGD
from pellucid.defences import AdversarialTraining, DoubleBackprop
from pellucid.errors import SpecError
from pellucid.interpreters import CAM
from pellucid.models import SmallCNN
from pellucid.schedule import Ramp
from pellucid.spec import (
    NOT_HASHED,
    Count,
    Flag,
    Real,
    Reals,
    Whole,
    Wholes,
    digest,
    entries,
    fraction,
    from_dict,
    kind_of,
    lookup,
    member,
    name_of,
    names,
    preset,
    presets,
    read_number,
    read_sequence,
    register,
    to_dict,
)

KINDS = ("attack", "interpreter", "defence", "model", "ramp")


@pytest.fixture
def registry(monkeypatch):
    """A registry of the test's own: what it registers is forgotten afterwards."""
    for kind in spec._REGISTRY:
        monkeypatch.setitem(spec._REGISTRY, kind, dict(spec._REGISTRY[kind]))
        monkeypatch.setitem(spec.HOMES, kind, "pellucid.schedule")
    return spec._REGISTRY


@dataclass(frozen=True, kw_only=True)
class Everything:
    real: Real = 0.5
    whole: Whole = 3
    flag: Flag = True
    reals: Reals = (0.0, 0.1)
    wholes: Wholes = (1, 2)
    word: Literal["a", "b"] = "a"
    maybe: Real | None = None
    attack: Annotated[Any, member("attack")] = FGSM(eps=0.1)  # noqa: RUF009 - frozen
    place: Path = field(default=Path("here"), metadata=NOT_HASHED)


@pytest.fixture
def everything(registry):
    register("data", "everything")(Everything)
    return Everything


@dataclass(frozen=True, kw_only=True)
class Job:
    size: Count = 1
    before: Annotated[Any, member("task")] | None = None
    method: Annotated[Any, member("attack")] | None = None


@pytest.fixture
def job(registry):
    register("task", "job")(Job)
    return Job


def refused(kind: str, **fields: Any) -> str:
    """Give the same fields as a dictionary and to Python: both are refused, naming the same field."""
    name = fields.pop("name")
    with pytest.raises(SpecError) as by_dictionary:
        from_dict({kind: name} | fields)
    with pytest.raises(SpecError) as by_python:
        lookup(kind, name)(**fields)
    assert str(by_dictionary.value).split(":")[0] == str(by_python.value).split(":")[0]
    return str(by_python.value)


# ------------------------------------------------------------------------------------------------ round trips


@pytest.mark.parametrize("kind", KINDS)
def test_everything_registered_comes_back_from_json(kind):
    for name, cls in entries(kind):
        required = [
            f.name
            for f in dataclasses.fields(cls)
            if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        ]
        if not set(required) <= {"eps", "start", "stop"}:
            continue  # composed methods: the contract suite builds them
        value = cls(**dict.fromkeys(required, 0.1))
        back = from_dict(json.loads(json.dumps(to_dict(value))))
        assert back == value
        assert type(back) is cls
        assert digest(back) == digest(value)
        assert pickle.loads(pickle.dumps(value)) == value
        assert (kind_of(value), name_of(value)) == (kind, name)


def test_dictionary_names_kind_and_all_fields_with_their_defaults():
    assert to_dict(FGSM(eps=0.25)) == {
        "attack": "fgsm",
        "eps": 0.25,
        "labels": "true",
        "target": None,
        "mode": "eval",
    }


def test_descriptions_inside_descriptions():
    value = AdversarialTraining(
        attack=PGD(eps=0.3, steps=7), eps=Ramp(start=0.0, stop=0.3, begin=0.1, until=0.5), share=1
    )
    stored = to_dict(value)
    assert stored["attack"]["attack"] == "pgd"
    assert stored["eps"]["ramp"] == "linear"
    assert from_dict(json.loads(json.dumps(stored))) == value


def test_a_name_with_fields_stands_for_what_it_spells():
    """As `brief` writes it; the command line has no other way to describe several at once."""
    from pellucid.attacks import FGSM, PGD, Worst

    found = from_dict({"attack": "worst", "attacks": "fgsm eps=0.1, pgd eps=8/255 steps=5"}, "attack")
    assert found == Worst(attacks=(FGSM(eps=0.1), PGD(eps=8 / 255, steps=5)))
    for text in ("fgsm eps", "fgsm =0.1", "fgsm eps=0.1 fields=2"):
        with pytest.raises(SpecError, match="field"):
            from_dict({"attack": "worst", "attacks": text}, "attack")


def test_a_name_or_a_table_stand_for_what_they_name():
    assert from_dict("cam", "interpreter") == CAM()
    assert from_dict({"defence": "adversarial_training", "attack": {"attack": "fgsm", "eps": 0.1}}).attack == FGSM(
        eps=0.1
    )
    assert from_dict({"attack": "fgsm", "eps": "8/255"}, "attack") == FGSM(eps=8 / 255)


def test_a_path_is_stored_as_text_and_read_again(everything):
    value = everything(place=Path("some/where"))
    assert to_dict(value)["place"] == "some/where"


# -------------------------------------------------------------------------------------------- numbers as text


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("8/255", 8 / 255),
        ("1e-3", 1e-3),
        ("0.5", 0.5),
        ("-1", -1.0),
        (" 2 / 4 ", 0.5),
        ("+3", 3.0),
        (".5", 0.5),
    ],
)
def test_numbers_may_be_written_as_text(everything, text, number):
    read = everything(real=text).real
    assert read == number
    assert type(read) is float


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').getcwd()",
        "1+1",
        "8/255/2",
        "2**3",
        "1/0",
        "8 / zero",
        "",
        "0x10",
        "eight",
        "[1]",
        "1,5",
        "None",
        "inf",
        "-inf",
        "nan",
        "1e999",
        "1/1e-999",
    ],
)
def test_text_is_never_evaluated_and_odd_numbers_are_refused(everything, text):
    assert "real" in refused("data", name="everything", real=text)


def test_numbers_too_large_for_a_float_are_refused(everything):
    assert "real" in refused("data", name="everything", real=10**400)
    assert "real" in refused("data", name="everything", real="1" + "0" * 400)


def test_text_for_whole_numbers(everything):
    read = everything(whole="12").whole
    assert read == 12
    assert type(read) is int
    for text in ("12.0", "1e1", "12/4", "-1", "twelve"):
        assert "whole" in refused("data", name="everything", whole=text)


@pytest.mark.parametrize(("text", "flag"), [("true", True), ("No", False), ("ON", True), ("false", False)])
def test_flags_may_be_written_as_words(everything, text, flag):
    assert everything(flag=text).flag is flag


def test_sequences_may_be_written_with_commas(everything):
    assert everything(reals="0, 8/255,1e-1").reals == (0.0, 8 / 255, 0.1)
    assert everything(wholes="3,4").wholes == (3, 4)
    assert everything(reals=[1, 2]).reals == (1.0, 2.0)
    assert everything(reals="").reals == ()
    assert read_sequence("a, b,") == ("a", "b")
    assert read_sequence([1, [2]]) == (1, [2])
    for wrong in ("1;2", "1,true", [True], 0.5, [[1.0]], ["__import__('os')"], {1.0}):
        assert "reals" in refused("data", name="everything", reals=wrong)


# ------------------------------------------------------------------------------------------------ wrong types


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("real", True),
        ("real", None),
        ("real", [0.5]),
        ("real", b"1"),
        ("real", 1j),
        ("whole", False),
        ("whole", 3.0),
        ("whole", 2.5),
        ("whole", -1),
        ("whole", None),
        ("flag", 1),
        ("flag", "1"),
        ("flag", "maybe"),
        ("flag", None),
        ("wholes", (1, 2.0)),
        ("wholes", (1, -2)),
        ("word", "c"),
        ("word", 1),
        ("maybe", "x"),
        ("maybe", True),
    ],
)
def test_wrong_types_are_refused_and_named(everything, name, value):
    message = refused("data", name="everything", **{name: value})
    assert message.startswith(f"data everything.{name}: ")


def test_the_message_shows_the_value_and_what_would_do(everything):
    message = refused("data", name="everything", word="c")
    assert "'a' or 'b'" in message
    assert "got 'c'" in message
    assert "not a truth value" in refused("data", name="everything", real=True)


@pytest.mark.parametrize("value", [CAM(), "nothing", {"interpreter": "cam"}, {"epsilon": 0.1}, 0.3, None])
def test_a_field_holds_descriptions_of_its_own_kind_only(everything, value):
    message = refused("data", name="everything", attack=value)
    assert message.startswith("data everything.attack: ")


def test_errors_inside_nested_descriptions_name_the_inner_field():
    with pytest.raises(SpecError, match=r"attack pgd\.steps"):
        from_dict({"defence": "adversarial_training", "attack": {"attack": "pgd", "eps": 0.1, "steps": "many"}})
    with pytest.raises(SpecError, match="no field 'epsilon'; its fields are norm, eps"):
        from_dict({"defence": "adversarial_training", "attack": {"attack": "pgd", "epsilon": 0.1}})


def test_unknown_names_list_the_known_ones():
    with pytest.raises(SpecError, match=r"no attack called 'pdg'; known: .*fgsm.*pgd"):
        from_dict({"attack": "pdg", "eps": 0.1})
    with pytest.raises(SpecError, match=r"no kind 'colour'; known kinds: attack"):
        lookup("colour", "red")


def test_unknown_and_missing_fields_are_named():
    assert "no field 'epsilon'; its fields are eps, labels, target, mode" in refused(
        "attack", name="fgsm", eps=0.1, epsilon=0.2
    )
    assert refused("attack", name="fgsm") == "attack fgsm needs eps"
    with pytest.raises(SpecError, match="its fields are none"):
        CAM(weight=1)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"eps": 0.1},
        {"attack": 3},
        {"attack": None},
        {"colour": "red"},
        ["pgd"],
        3,
        None,
        {"interpreter": "cam"},
    ],
)
def test_what_is_no_description_is_refused(value):
    with pytest.raises(SpecError):
        from_dict(value, "attack")


def test_a_check_of_the_class_runs_after_the_cast():
    with pytest.raises(SpecError, match="end after it begins"):
        from_dict({"ramp": "linear", "start": 0, "stop": 1, "begin": "3/4", "until": "1/2"})


# ---------------------------------------------------------------------------------------------------- digests


def test_numbers_that_are_equal_are_one_digest(everything):
    same = [everything(real=zero) for zero in (0, 0.0, -0.0, "0", "0.0", "-0", "0/3")]
    assert len({digest(value) for value in same}) == 1
    assert len({json.dumps(to_dict(value)) for value in same}) == 1
    assert digest(everything(reals=[0, -0.0])) == digest(everything(reals="0.0,0"))
    assert digest(PGD(eps="8/255")) == digest(PGD(eps=8 / 255))


def test_defaults_count(everything, registry):
    @dataclass(frozen=True, kw_only=True)
    class Other:
        eps: Real = 0.1

    register("attack", "other")(Other)
    before = digest(Other())
    assert before == digest(Other(eps=0.1))

    @dataclass(frozen=True, kw_only=True)
    class Changed:
        eps: Real = 0.2

    del registry["attack"]["other"]
    register("attack", "other")(Changed)
    assert digest(Changed()) != before
    assert digest(Changed(eps=0.1)) == before


def test_every_field_counts_but_those_that_only_say_where_something_lies(everything):
    changes = {
        "real": 0.6,
        "whole": 4,
        "flag": False,
        "reals": (0.1, 0.0),
        "wholes": (1, 2, 3),
        "word": "b",
        "maybe": 0.0,
        "attack": FGSM(eps=0.2),
    }
    digests = [digest(everything())] + [digest(everything(**{key: value})) for key, value in changes.items()]
    assert len(set(digests)) == len(changes) + 1
    assert digest(everything(place=Path("elsewhere"))) == digests[0]


def test_the_version_counts_where_it_was_raised(job):
    before = spec._canonical(job())

    @dataclass(frozen=True, kw_only=True)
    class Newer(Job):
        version = 2

    Newer._registered_as = ("task", "job")
    after = spec._canonical(Newer())
    assert (before["version"], after["version"]) == (1, 2)
    assert digest(Newer()) != digest(job())


def test_kind_and_name_count(registry):
    @dataclass(frozen=True)
    class One:
        pass

    @dataclass(frozen=True)
    class Two:
        pass

    register("attack", "one")(One)
    register("attack", "two")(Two)
    assert digest(One()) != digest(Two())


def test_nested_tasks_count_by_their_digest_and_methods_in_full(job):
    inner = job(size=2, method=FGSM(eps=0.1))
    canonical = spec._canonical(job(before=inner))
    assert canonical["fields"]["before"] == digest(inner)
    assert spec._canonical(inner)["fields"]["method"]["fields"]["eps"] == 0.1
    assert digest(job(before=inner)) != digest(job(before=job(size=3, method=FGSM(eps=0.1))))


def test_the_digest_is_sha256_of_canonical_json_fixed_for_ever():
    fields = '{"eps":0.25,"labels":"true","mode":"eval","target":null}'
    text = '{"fields":' + fields + ',"is":["attack","fgsm"],"version":1}'
    assert digest(FGSM(eps=0.25)) == hashlib.sha256(text.encode()).hexdigest()
    assert digest(FGSM(eps=0.25)) == "f65ad829e08fa1324a26dd5c63e9e0fa78f2c3a0ec7d0bf1e5b45ebbe894eca8"


def test_the_order_in_which_fields_are_given_does_not_count():
    assert digest(from_dict({"steps": 3, "attack": "pgd", "eps": 0.1})) == digest(PGD(eps=0.1, steps=3))


# -------------------------------------------------------------------------------------------------- immutable


def test_descriptions_cannot_be_changed():
    value = PGD(eps=0.1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.eps = 0.2
    with pytest.raises(SpecError, match="steps"):
        dataclasses.replace(value, steps=0)
    assert dataclasses.replace(value, eps="1/4").eps == 0.25


def test_nothing_mutable_is_kept(everything):
    reals = [0.1, 0.2]
    value = everything(reals=reals)
    reals.append(0.3)
    assert value.reals == (0.1, 0.2)
    stored = {"model": "small_cnn", "filters": [2, 3, 4]}
    network = from_dict(stored)
    stored["filters"].append(5)
    assert network == SmallCNN(filters=(2, 3, 4))
    for each in (value, network, AdversarialTraining(), DoubleBackprop()):
        assert hash(each) == hash(dataclasses.replace(each))


def test_only_frozen_dataclasses_are_registered(registry):
    @dataclass
    class Loose:
        pass

    class Plain:
        pass

    class Colour(enum.Enum):
        RED = 1

    for cls in (Loose, Plain, Colour):
        with pytest.raises(TypeError, match="frozen dataclass"):
            register("attack", "loose")(cls)
    with pytest.raises(TypeError, match="no kind"):
        register("colour", "red")(Everything)

    @dataclass(frozen=True)
    class Ambiguous:
        attack: str = "fgsm"

    with pytest.raises(TypeError, match="a field of Ambiguous must not be called 'attack'"):
        register("attack", "ambiguous")(Ambiguous)
    register("task", "ambiguous")(Ambiguous)  # of another kind it may


def test_nested_tables_are_read_by_the_field_that_holds_them(everything, job):
    """The field knows its kind: a description of another kind is refused there, one of its own is taken."""
    assert from_dict({"task": "job", "method": {"attack": "fgsm", "eps": 0.2}}).method == FGSM(eps=0.2)
    with pytest.raises(SpecError, match="method"):
        from_dict({"task": "job", "method": {"model": "small_cnn"}})
    with pytest.raises(SpecError, match=r"size"):  # no table is made something where a number is due
        from_dict({"task": "job", "size": {"attack": "fgsm", "eps": 0.2}})


def test_a_name_is_given_once(registry):
    with pytest.raises(TypeError, match="already"):
        register("attack", "pgd")(Job)
    assert lookup("attack", "pgd") is PGD


def test_names_are_sorted_and_match_entries():
    for kind in KINDS:
        assert names(kind) == sorted(names(kind)) == [name for name, _ in entries(kind)]
        assert all(entry._registered_as == (kind, name) for name, entry in entries(kind))


# --------------------------------------------------------------------------------------------------- fraction


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (8 / 255, "8/255"),
        (1 / 255, "1/255"),
        (2.5 / 255, "2.5/255"),
        (0.25 / 255, "0.25/255"),
        (0.0313725490, "8/255"),
        (0.0313726, "0.03137"),
        (0.0, "0"),
        (0, "0"),
        (1.0, "1"),
        (0.1, "0.1"),
        (0.3, "0.3"),
        (0.003, "0.003"),
        (-8 / 255, "-8/255"),
        (0.012345678, "0.01235"),
        (1e-12, "1e-12"),
    ],
)
def test_numbers_are_written_as_people_in_the_field_do(value, text):
    assert fraction(value) == text


@pytest.mark.parametrize("value", [k / 255 for k in range(1, 256)])
def test_what_is_written_as_a_fraction_reads_back(value):
    assert read_number(fraction(value)) == pytest.approx(value, abs=1e-9)


# -------------------------------------------------------------------------------------------------- presets


@pytest.fixture
def named(registry, monkeypatch):
    """A name of the test's own: a PGD with other fields than its defaults."""
    for kind in spec._PRESETS:
        monkeypatch.setitem(spec._PRESETS, kind, dict(spec._PRESETS[kind]))
    return preset("attack", "gentle", PGD(eps=0.01, steps=3))


def test_a_name_stands_for_a_description_and_its_fields_may_be_changed(named):
    assert from_dict("gentle", "attack") == from_dict({"attack": "gentle"}) == named == PGD(eps=0.01, steps=3)
    changed = from_dict({"attack": "gentle", "steps": "7", "norm": "l2"})
    assert changed == PGD(eps=0.01, steps=7, norm="l2")
    assert digest(changed) == digest(from_dict({"attack": "pgd", "eps": 0.01, "steps": 7, "norm": "l2"}))
    assert named == PGD(eps=0.01, steps=3)
    assert to_dict(changed)["attack"] == "pgd"
    assert from_dict({"attack": "gentle", "eps": "1/2"}) == PGD(eps=0.5, steps=3)


def test_the_name_is_read_wherever_a_description_is_held(named, everything):
    assert everything(attack="gentle").attack == named
    assert everything(attack="gentle steps=9").attack == PGD(eps=0.01, steps=9)
    assert everything(attack={"attack": "gentle", "eps": 0.2}).attack == PGD(eps=0.2, steps=3)


def test_the_name_is_no_class_but_leads_to_one(named):
    assert lookup("attack", "gentle") is PGD
    assert "gentle" not in names("attack")
    assert presets("attack")["gentle"] is named
    assert list(presets("attack")) == sorted(presets("attack"))
    with pytest.raises(SpecError, match=r"no attack called 'gental'; known: .*fgsm.*gentle.*pgd"):
        from_dict("gental", "attack")
    with pytest.raises(SpecError, match="attack pgd has no field 'epsilon'"):
        from_dict({"attack": "gentle", "epsilon": 0.1})
    with pytest.raises(SpecError, match=r"attack pgd\.steps"):
        from_dict({"attack": "gentle", "steps": 0})


def test_a_name_is_of_one_kind_and_means_one_thing(named):
    assert preset("attack", "gentle", PGD(eps=0.01, steps=3)) == named  # the same again, as when a module is reloaded
    for name, value in (("gentle", PGD(eps=0.02)), ("pgd", PGD(eps=0.01)), ("mild", CAM()), ("mild", "pgd")):
        with pytest.raises(TypeError, match="cannot stand for this attack"):
            preset("attack", name, value)
    with pytest.raises(TypeError, match=r"'gentle' is already a name for pgd eps=0\.01 steps=3"):
        register("attack", "gentle")(Job)
    with pytest.raises(SpecError, match="no interpreter called 'gentle'"):
        from_dict("gentle", "interpreter")


def test_a_table_that_names_nothing_changes_fields_of_the_default():
    changed = from_dict({"defence": "trades", "attack": {"eps": "0.1"}})
    assert changed.attack == PGD(eps=0.1, steps=40, step_size=0.01)
    named = from_dict({"defence": "int2", "attack": {"steps": 2}, "weight": 0.5})
    assert (named.attack, named.inner, named.weight) == (PGD(eps=0.3, steps=2, step_size=0.01), "cross_entropy", 0.5)
    with pytest.raises(SpecError, match="needs its kind"):
        from_dict({"defence": "trades", "eps": {"start": 0}})  # no ramp is there to change
