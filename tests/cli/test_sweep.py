"""pellucid sweep: one digest through every door, what is printed, what is refused."""

import json

import pytest
import torch

from pellucid.attacks import FGSM
from pellucid.data import Digits
from pellucid.defences import DoubleBackprop, Standard
from pellucid.models import SmallCNN, load_classifier
from pellucid.optimisers import Adam
from pellucid.spec import digest, to_dict
from pellucid.tasks import Train
from pellucid.tasks.selecting import Selection
from pellucid.tasks.sweeping import Sweep

from .conftest import SMALL

SWEEP = (
    "sweep", *SMALL, "--model", "small_cnn", "model.filters=3,4,5", "--steps", "6", "--batch-size", "20",
    "optimiser.lr=1e-2", "--defence", "double_backprop", "--along", "defence.weight", "--values", "0.1,10",
    "--attack", "fgsm", "--epsilons", "0.1,0.2", "--quiet", "--threads", "1",
)  # fmt: skip
BASE = Train(
    data=Digits(train=60, validation=20, test=20),
    model=SmallCNN(filters=(3, 4, 5)),
    defence=DoubleBackprop(weight=3),
    optimiser=Adam(lr=0.01),
    steps=6,
    batch_size=20,
)
TASK = Sweep(base=BASE, along="defence.weight", values=(0.1, 10), attack=FGSM(eps=0.2), epsilons=(0.1, 0.2))
HAVE = ("sweep", "--data", "digits", "--model", "small_cnn", "--steps", "3", "--quiet")


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A folder for a store that the tests of this file share."""
    return ("--store", str(tmp_path_factory.mktemp("swept") / "store"))


def test_one_digest_through_every_door(say, place, stored):
    told = say(*SWEEP, *stored, "--json").json()
    assert told["digest"] == digest(TASK)
    assert told["folder"].endswith(digest(TASK))
    (place / "sweep.json").write_text(json.dumps(to_dict(TASK)))
    assert say("sweep", "--spec", "sweep.json", *stored, "--json", "--quiet").json() == told
    (place / "sweep.yaml").write_text(
        "base:\n"
        "  data: {data: digits, train: 60, validation: 20, test: 20}\n"
        "  model: {model: small_cnn, filters: [3, 4, 5]}\n"
        "  defence: double_backprop\n"
        "  optimiser: {optimiser: adam, lr: 0.01}\n"
        "  steps: 9\n  batch_size: 20\n"
        "along: defence.weight\nvalues: [0.1, 10]\nattack: fgsm\nepsilons: [0.1, 0.2]\n"
    )
    words = ("sweep", "--spec", "sweep.yaml", "--steps", "6", *stored, "--json", "--quiet")
    assert say(*words).json() == told  # the command line overrides the file


def test_the_table_for_people(say, stored):
    table = say(*SWEEP, *stored, "--json").json()
    lines = say(*SWEEP, *stored).out.splitlines()
    assert lines[0] == "accuracy on 20 validation images under fgsm (fooled at any iterate counts)"
    assert lines[1].split() == ["defence.weight", "clean", "eps", "0.1", "eps", "0.2", "training"]
    for line, row in zip(lines[2:4], table["rows"]):
        assert line.split()[0] == row["label"]
        for cell in (row["clean"], *row["attacked"]):
            assert f"{cell['value']:.1%} ({100 * cell['low']:.1f} - {100 * cell['high']:.1f})" in line
    assert lines[4] == f"table, figures and training curves: {table['folder']}"


def test_the_attack_that_measures_and_the_attack_inside_the_defence(say, stored):
    words = list(SWEEP)
    words[words.index("double_backprop")] = "adversarial_training"
    words[words.index("defence.weight")] = "defence.attack.eps"
    words[words.index("0.1,10")] = "0.1,0.3"
    words[words.index("fgsm")] = "pgd"
    task = say(
        *words, "attack.steps=2", "defence.attack=fgsm", "--watch", "fgsm", "watch.eps=0.2", *stored, "--json"
    ).json()["meta"]["task"]  # fmt: skip
    assert [network["defence"]["attack"]["eps"] for network in task["networks"]] == [0.1, 0.3]
    assert {network["defence"]["attack"]["attack"] for network in task["networks"]} == {"fgsm"}
    assert (task["attack"]["attack"], task["attack"]["steps"], task["attack"]["eps"]) == ("pgd", 2, 0.2)
    assert (task["base"]["watch"]["attack"], task["base"]["watch"]["eps"]) == ("fgsm", 0.2)


def test_select_trains_an_undefended_network_alike_and_copies_the_choice(say, stored):
    told = say(*SWEEP, *stored, "--select", "--part", "test", "--out", "out", "--json").json()
    assert told["part"] == "test"  # what is measured; the choice is made on validation images
    expected = Selection(
        candidates=TASK.networks,
        normal=Train(**{f: getattr(BASE, f) for f in ("data", "model", "optimiser", "steps", "batch_size")}),
        data=BASE.data,
        attack=FGSM(eps=0.2),
        epsilons=(0.1, 0.2),
    )
    assert expected.normal.defence == Standard()
    chosen = told["selection"]
    assert chosen["part"] == "validation"
    assert chosen["normal"]["network"] == digest(expected.normal)
    assert [one["network"] for one in chosen["candidates"]] == [digest(task) for task in TASK.networks]
    stored_at = f"{stored[1]}/selection/{digest(expected)}"
    x = torch.rand(3, 1, 28, 28)
    network = load_classifier(chosen["folder"])
    assert torch.equal(network(x), load_classifier(stored_at)(x))
    assert torch.equal(network(x), load_classifier(f"{stored[1]}/train/{chosen['network']}")(x))
    lines = say(*SWEEP, *stored, "--select").out.splitlines()
    assert lines[-4].startswith(f"chosen: {told['rows'][chosen['chosen']]['label']} (")
    assert lines[-3] == f"rule: {chosen['rule']}"
    assert lines[-2] == f"chosen network: {stored_at}"


def test_words_as_values_and_an_attack_without_eps(say, stored, place):
    told = say(
        *HAVE, "data.train=60", "data.validation=20", "data.test=20", "model.filters=3,4,5", "--along", "defence",
        "--values", "standard,double_backprop weight=2", "--attack", "deepfool", "attack.steps=2", "--images", "4",
        *stored, "--json", "--out", "out",
    ).json()  # fmt: skip
    assert [row["label"] for row in told["rows"]] == ["standard", "double_backprop weight=2"]
    assert [[cell["epsilon"] for cell in row["attacked"]] for row in told["rows"]] == [[None], [None]]
    assert told["rows"][0]["images"] == 4
    assert (place / "out" / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert (place / "out" / "table.md").read_text().startswith("**Sweep along defence**")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (HAVE, "pellucid sweep needs --along, such as --along defence.weight --values 0.1,1,10"),
        ((*HAVE, "--along", "seed"), "pellucid sweep needs --values"),
        (("sweep", "--data", "digits", "--along", "seed", "--values", "1"), "pellucid sweep needs --model"),
        (("sweep", "--model", "small_cnn", "--along", "seed", "--values", "1"), "pellucid sweep needs --data"),
        ((*HAVE, "--along", "weight", "--values", "1"), "no field 'weight' to sweep along; one of the defence is wri"),
        ((*HAVE, "--along", "defense.weight", "--values", "1"), "no field 'defense' to sweep along; its fields are d"),
        ((*HAVE, "--along", "defence.weight", "--values", "1"), "defence standard has no field 'weight'"),
        ((*HAVE, "--along", "optimiser.lr", "--values", "fast"), "optimiser adam.lr: 'fast' is not a number"),
        ((*HAVE, "--along", "model.filters", "--values", "3,4"), "model small_cnn.filters"),
        ((*HAVE, "--along", "seed", "--values", "1,2,1"), "task sweep.values: 1 is there twice"),
        ((*HAVE, "--along", "seed", "--values", ","), "at least one value is needed"),
        ((*HAVE, "--along", "init.steps", "--values", "1"), "there is no 'init.steps', since init of the base is none"),
        ((*HAVE, "--along", "epochs", "--values", "1"), "exactly one of steps and epochs"),
        ((*HAVE, "--along", "seed", "--values", "1", "--epsilons", "0.1"), "needs an attack for any eps but 0"),
        ((*HAVE, "--along", "seed", "--values", "1", "--attack", "pgdd"), "no attack called 'pgdd'; known: "),
        ((*HAVE, "--along", "seed", "--values", "1", "--attack", "pgd", "attack.stps=1"), "has no field 'stps'"),
        ((*HAVE, "--along", "seed", "--values", "1", "--part", "dev"), "task sweep.part"),
    ],
    ids=lambda value: " ".join(value[8:])[:50] if isinstance(value, tuple) else None,
)
def test_refused(refused, words, said):
    assert said in refused(*words)


@pytest.mark.parametrize("content", ["base: small_cnn\nalong: seed\nvalues: [1]\n", "base: [1]\n"])
def test_a_file_whose_base_is_no_table(say, place, content):
    (place / "sweep.yaml").write_text(content)
    spoken = say("sweep", "--spec", "sweep.yaml", "--json")
    assert spoken.code == 2
    assert "base must be a table of the fields of a training" in spoken.json()["error"]
