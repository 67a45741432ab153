"""A sweep: which networks it trains, how it is described, and that its table says what the networks do."""

import json
from dataclasses import replace
from xml.dom import minidom

import pytest

from pellucid.attacks import FGSM, PGD, DeepFool
from pellucid.defences import AdversarialTraining, Distillation, DoubleBackprop, Standard, Sum
from pellucid.errors import SpecError
from pellucid.metrics import predict, wilson
from pellucid.models import RossCNN, load_classifier
from pellucid.optimisers import Adam
from pellucid.spec import digest, from_dict, to_dict
from pellucid.store import Store
from pellucid.tasks import Evaluate, Train, run
from pellucid.tasks.graph import order
from pellucid.tasks.sweeping import Sweep, places, sweep_figure, sweep_panel, sweep_table, training_curves, with_value

from .conftest import DATA, FAST

BASE = Train(
    data=DATA,
    model=RossCNN(filters=(3, 4), hidden=12),
    defence=DoubleBackprop(weight=7),
    optimiser=Adam(lr=1e-2),
    steps=9,
    batch_size=20,
    log_every=4,
    watch=FGSM(eps=0.1),
)
SWEEP = Sweep(base=BASE, along="defence.weight", values=(0.01, 0.1, 10), attack=FGSM(eps=0.3), epsilons=(0.1, 0.3))


@pytest.fixture(scope="module")
def swept(tmp_path_factory, one_thread):
    """The sweep above, in a store."""
    store = Store(tmp_path_factory.mktemp("swept") / "store")
    run(SWEEP, store, FAST)
    return store


# ------------------------------------------------------------------------------------------------------ descriptions


def test_the_networks_are_those_that_one_would_describe_by_hand_and_no_other_is_trained():
    by_hand = [replace(BASE, defence=DoubleBackprop(weight=weight)) for weight in (0.01, 0.1, 10.0)]
    assert list(SWEEP.networks) == by_hand
    assert [task for task in order(SWEEP) if isinstance(task, Train)] == by_hand
    measured = [task for task in order(SWEEP) if isinstance(task, Evaluate)]
    assert {(task.part, task.epsilons, task.stop_when_fooled) for task in measured} == {
        ("validation", (0.0, 0.1, 0.3), True)
    }


@pytest.mark.parametrize(
    "same",
    [
        {"values": "0.01,0.1,10"},
        {"values": ["1/100", 0.1, 10]},
        {"base": replace(BASE, defence=DoubleBackprop(weight=0.1))},
        {"epsilons": (0.0, 0.1, 0.3)},
        {"attack": FGSM(eps=0.2)},  # within a grid its own eps says nothing
        {"networks": (), "evaluations": ()},
        {"networks": (replace(BASE, seed=9),)},  # derived: what is given is not read
    ],
)
def test_one_sweep_has_one_digest(same):
    given = {"base": BASE, "along": "defence.weight", "values": (0.01, 0.1, 10), "attack": FGSM(eps=0.3)}
    assert digest(Sweep(**given | {"epsilons": (0.1, 0.3)} | same)) == digest(SWEEP)


@pytest.mark.parametrize(
    "other",
    [
        {"values": (0.01, 0.1, 11)},
        {"values": (0.1, 0.01, 10)},
        {"along": "optimiser.lr"},
        {"base": replace(BASE, seed=1)},
        {"part": "test"},
        {"epsilons": (0.1,)},
        {"attack": PGD(eps=0.3)},
        {"images": 5},
    ],
)
def test_another_sweep_has_another(other):
    assert digest(replace(SWEEP, **other)) != digest(SWEEP)


def test_sweeps_survive_json():
    for sweep in (
        SWEEP,
        Sweep(base=BASE, along="defence", values="standard,distillation"),
        Sweep(base=BASE, along="model.filters", values="3,4;5,6", attack=DeepFool()),
        Sweep(base=BASE, along="watch", values=(None, "pgd eps=0.1")),
        Sweep(base=BASE, along="shuffle", values="yes,no", attack=FGSM(eps=0.1)),
    ):
        again = from_dict(json.loads(json.dumps(to_dict(sweep))), "task")
        assert again == sweep
        assert digest(again) == digest(sweep)


def test_a_sweep_written_by_hand_in_json():
    table = {
        "task": "sweep",
        "base": to_dict(BASE),
        "along": "defence.weight",
        "values": [0.01, "0.1", 10],
        "attack": "fgsm eps=0.3",
        "epsilons": [0.1, 0.3],
    }
    assert digest(from_dict(table)) == digest(SWEEP)


def test_values_are_cast_by_the_field_they_are_set_on():
    assert SWEEP.values == (0.01, 0.1, 10.0)
    assert [type(value) for value in SWEEP.values] == [float] * 3
    assert Sweep(base=BASE, along="steps", values="3,4").values == (3, 4)
    assert Sweep(base=BASE, along="model.filters", values="3,4;5,6").values == ((3, 4), (5, 6))
    assert Sweep(base=BASE, along="model.filters.1", values="4,6").networks[1].model == RossCNN(
        filters=(3, 6), hidden=12
    )
    assert Sweep(base=BASE, along="defence", values="standard,double_backprop weight=2").values == (
        Standard(),
        DoubleBackprop(weight=2),
    )


def test_inner_fields_at_any_depth():
    inner = replace(BASE, defence=Sum(defences=(DoubleBackprop(weight=1), AdversarialTraining(attack=FGSM(eps=0.3)))))
    sweep = Sweep(base=inner, along="defence.defences.1.attack.eps", values="8/255,0.1")
    assert [network.defence.defences[1].attack for network in sweep.networks] == [FGSM(eps=8 / 255), FGSM(eps=0.1)]
    assert all(network.defence.defences[0] == DoubleBackprop(weight=1) for network in sweep.networks)


def test_teachers_that_the_training_named_follow_it_and_those_that_were_given_stay():
    base = replace(BASE, defence=Distillation(temperature=5))
    longer = with_value(base, "steps", 20)
    assert longer == replace(BASE, steps=20, defence=Distillation(temperature=5))
    assert longer.defence.teacher.steps == 20
    hotter = with_value(base, "defence.temperature", 9)
    assert hotter.defence.teacher.defence == Standard(temperature=9)
    given = replace(BASE, defence=Distillation(temperature=5, teacher=replace(BASE, seed=4)))
    assert with_value(given, "steps", 20).defence.teacher == replace(BASE, seed=4)
    assert with_value(base, "defence.teacher.seed", 3).defence.teacher.seed == 3


def test_without_an_attack_only_clean_accuracy_and_without_eps_both():
    bare = Sweep(base=BASE, along="seed", values="0,1")
    assert [(task.attack, task.epsilons) for task in bare.evaluations] == [(None, (0.0,))] * 2
    assert bare.epsilons is None
    deep = Sweep(base=BASE, along="seed", values="0,1", attack=DeepFool())
    assert [task.attack for task in deep.evaluations] == [None, DeepFool()] * 2
    own = Sweep(base=BASE, along="seed", values="0,1", attack=FGSM(eps=0.2))
    assert [task.epsilons for task in own.evaluations] == [(0.0, 0.2)] * 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            {"along": "defence.wieght"},
            "defence double_backprop has no field 'wieght' to sweep along; its fields are weig",
        ),
        ({"along": "defense"}, "task train has no field 'defense' to sweep along; its fields are data, model"),
        ({"along": "defence.defence"}, "defence double_backprop has no field 'defence'"),
        ({"along": ""}, "task train has no field ''"),
        ({"along": "init.steps"}, "there is no 'init.steps', since init of the base is none"),
        ({"along": "defence.weight.unit"}, "there is no 'defence.weight.unit', since defence.weight of the base is 7"),
        ({"along": "model.filters.2"}, "there is no 'model.filters.2', since model.filters of the base is (3, 4)"),
        ({"values": ("much",)}, "defence double_backprop.weight: 'much' is not a number"),
        ({"values": (-1,)}, "defence double_backprop.weight"),
        ({"values": (True,)}, "a number is needed, not a truth value"),
        ({"along": "model", "values": ("cnn",)}, "there is no model called 'cnn'; known: "),
        ({"values": ()}, "task sweep.values: at least one value is needed"),
        ({"values": " , "}, "task sweep.values: at least one value is needed"),
        ({"values": 3}, "task sweep.values"),
        ({"values": (1, "0.1", 1.0)}, "task sweep.values: 1 is there twice"),
        ({"along": "compiled", "values": "on,off"}, "task sweep.values: true and false make the same network"),
        ({"base": SWEEP}, "task sweep.base: a training (train) is needed, not sweep"),
        ({"epsilons": (0.1,)}, "task evaluate needs an attack for any eps but 0"),
        ({"attack": FGSM(eps=0.1), "epsilons": (0.3, 0.1)}, "ascending, none twice"),
        ({"attack": FGSM(eps=0.1), "epsilons": ()}, "task evaluate.epsilons"),
        ({"attack": DeepFool(), "epsilons": (0.1,)}, "attack deepfool has no eps to vary"),
        ({"epochs": 3}, "task sweep has no field 'epochs'"),
    ],
)
def test_refused_in_one_sentence(wrong, said):
    with pytest.raises(SpecError) as refusal:
        Sweep(**{"base": BASE, "along": "defence.weight", "values": (1,)} | wrong)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


# ----------------------------------------------------------------------------------------------------------- results


def test_the_table_says_what_the_networks_do(swept):
    result = swept.open(SWEEP)
    rows = result.json("table.json")["rows"]
    assert [row["value"] for row in rows] == [0.01, 0.1, 10.0]
    assert [row["label"] for row in rows] == ["0.01", "0.1", "10"]
    split = DATA.load("validation")
    x, y = split.images(slice(None)), split.labels
    for row, task in zip(rows, SWEEP.networks):
        network = load_classifier(swept.folder(task))
        standing = predict(network, x) == y
        assert row["images"] == len(y) == 20
        assert row["clean"] == wilson(int(standing.sum()), 20)._asdict()
        assert [cell["epsilon"] for cell in row["attacked"]] == [0.1, 0.3]
        for cell in row["attacked"]:  # who was fooled at a smaller eps, or without any, counts as fooled
            standing = standing & (predict(network, FGSM(eps=cell["epsilon"])(network, x, y)) == y)
            assert {key: cell[key] for key in ("value", "low", "high")} == wilson(int(standing.sum()), 20)._asdict()
        trained = swept.open(task)
        assert row["network"] == digest(task)
        assert row["figures"] == trained.json("history.json")[-1]
        assert row["figures"]["step"] == 9
        assert (row["seconds"], row["passes"]) == (trained.meta["wall_seconds"], trained.meta["passes"])


def test_the_training_curves_are_those_of_the_networks(swept):
    joined = swept.open(SWEEP).json("history.json")
    assert [one["value"] for one in joined] == [0.01, 0.1, 10.0]
    assert [one["history"] for one in joined] == [swept.open(task).json("history.json") for task in SWEEP.networks]
    figure = training_curves("defence.weight", joined)
    assert [(panel.title, panel.log_y) for panel in figure.panels] == [
        ("Input gradient, true class", True),
        ("Input gradient, other classes", True),
        ("Accuracy under attack", False),
        ("Clean accuracy", False),
    ]
    curve = figure.panels[1].curves[2]
    assert curve.label == "10"
    assert curve.x == (4.0, 8.0, 9.0)
    assert list(curve.y) == [row["validation_squared_gradient_others"] for row in joined[2]["history"]]


def test_files(swept):
    result = swept.open(SWEEP)
    assert set(result.meta["files"]) == {
        "table.json", "history.json", "table.md", "sweep.png", "sweep.svg", "curves.png",
    }  # fmt: skip
    for name in ("sweep.png", "curves.png"):
        assert (result.folder / name).read_bytes().startswith(b"\x89PNG")
    drawn = minidom.parse(str(result.folder / "sweep.svg")).documentElement
    assert (drawn.tagName, drawn.getAttribute("xmlns")) == ("svg", "http://www.w3.org/2000/svg")
    lines = (result.folder / "table.md").read_text().splitlines()
    assert lines[2].startswith("| defence.weight | clean | eps 0.1 | eps 0.3 | input gradient, true class |")
    assert [line.split(" | ")[0] for line in lines[4:7]] == ["| 0.01", "| 0.1", "| 10"]
    assert "20 validation images" in lines[-3]


def test_a_larger_sweep_trains_only_what_is_new(swept):
    before = {path.name for path in (swept.root / "train").iterdir()}
    larger = replace(SWEEP, values=(*SWEEP.values, 1.0))
    run(larger, swept, FAST)
    assert {path.name for path in (swept.root / "train").iterdir()} - before == {digest(larger.networks[3])}


# ----------------------------------------------------------------------------------------------------------- drawings


def made_up(values, attacked=((0.1, 0.5),)):
    cell = {"value": 0.5, "low": 0.4, "high": 0.6}
    rows = [
        {
            "value": value,
            "label": str(value),
            "images": 20,
            "clean": cell | {"value": 0.9 - 0.1 * place},
            "attacked": [cell | {"epsilon": eps, "value": share} for eps, share in attacked],
            "figures": {"step": 3},
            "seconds": 1.0,
            "passes": {"forward": 1, "backward": 2},
            "warnings": [],
        }
        for place, value in enumerate(values)
    ]
    return {"along": "defence.weight", "part": "validation", "attack": {"attack": "fgsm"}, "rows": rows}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 9.9], ((1.0, 9.9), False)),
        ([10, 1], ((10.0, 1.0), True)),
        ([0, 1, 2], ((0.0, 1.0, 2.0), False)),
        ([0], ((0.0,), False)),
        ([0, 0.1, 1], None),
        ([-10, 1], None),
        ([True, False], None),
        ([None, 1], None),
        ([[3, 4], [5, 6]], None),
        (["logits", "features"], None),
    ],
)
def test_the_axis_that_values_stand_on(values, expected):
    assert places(values) == expected


def test_numbers_are_joined_in_order_and_words_are_not_joined():
    panel = sweep_panel(made_up([10.0, 0.1, 1.0]))
    assert panel.log_x
    assert [(curve.label, curve.x) for curve in panel.curves] == [
        ("clean", (0.1, 1.0, 10.0)),
        ("eps 0.1", (0.1, 1.0, 10.0)),
    ]
    assert panel.curves[0].y == pytest.approx((0.8, 0.7, 0.9))
    words = sweep_panel(made_up(["features", "logits"], ((None, 0.5),)))
    assert [curve.label for curve in words.curves] == ["clean", "clean", "attacked", "attacked"]
    assert [round(curve.x[0]) for curve in words.curves] == [0, 1, 0, 1]
    assert all(len(curve.x) == 1 for curve in words.curves)


def test_words_are_written_under_the_axis():
    _, svg = sweep_figure(made_up(["features", "logits"]))
    texts = [
        "".join(node.data for node in text.childNodes) for text in minidom.parseString(svg).getElementsByTagName("text")
    ]
    assert texts.index("features") < texts.index("logits")


def test_a_table_leaves_out_what_was_not_logged_and_says_warnings():
    found = made_up([1.0])
    found["rows"][0]["warnings"] = [{"check": "zero gradient", "images": 3, "of": 20, "meaning": "no slope"}]
    table = sweep_table(found)
    assert table.header == ("defence.weight", "clean", "eps 0.1", "training, s", "forward", "backward")
    assert table.notes[1:] == ("1.0: zero gradient on 3 of 20 images: no slope",)


def test_a_gradient_of_0_has_no_place_on_a_log_axis():
    histories = [{"label": "1", "history": [{"step": 1, "validation_squared_gradient": 0.0}]}]
    assert training_curves("seed", histories).panels[0].curves[0].y == (None,)


def test_data_of_its_own():
    """Along the data every network is measured on the part of its own."""
    sweep = Sweep(base=BASE, along="data.train", values="50,60")
    assert [task.data for task in sweep.evaluations] == [replace(DATA, train=50), replace(DATA, train=60)]
