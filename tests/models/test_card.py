import json
import subprocess
import sys
import textwrap

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from pellucid.attacks import PGD
from pellucid.defences import DoubleBackprop
from pellucid.errors import InputError
from pellucid.models import SmallCNN, load_classifier, save_classifier
from pellucid.models.card import README, Measured, card, logged, markdown, words
from pellucid.rng import global_seed
from pellucid.spec import to_dict

SPEC = SmallCNN(filters=(2, 3, 4))
ATTACK = to_dict(PGD(eps=8 / 255, steps=7))
ROW = {
    "step": 150,
    "cross_entropy": 0.25,
    "learning_rate": 0.001,
    "gradient_norm": 2.0,
    "training_accuracy": 1.0,
    "attacked_training_accuracy": 0.5,
    "validation_accuracy": 0.73,
    "attacked_accuracy": 0.3125,
}
CLEAN = {name: value for name, value in ROW.items() if not name.startswith("attacked")}


def make(measured=None, **changes):
    values = {
        "model": to_dict(SPEC),
        "shape": (1, 8, 6),
        "classes": ("a", "b", "c"),
        "defence": to_dict(DoubleBackprop(weight=0.5)),
        "data": {
            "train": {"name": "digits", "sha256": "0f" * 32, "images": 1200, "cut": "the first 1200"},
            "validation": {"name": "digits", "sha256": "1e" * 32, "images": 200, "cut": "the next 200"},
        },
        "schedule": {"optimiser": {"optimiser": "adam", "lr": 0.002}, "batch_size": 64, "stop": None},
        "steps": 150,
        "seed": 3,
        "measured": logged(CLEAN, watched=200) if measured is None else measured,
        "seconds": 12.34567,
        "passes": {"forward": 9600, "backward": 19200},
        "versions": {"pellucid": "0.1.0", "torch": "2.13.0"},
    }
    return card(**values | changes)


def front(text):
    start, content, rest = text.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(content), rest


def code(text):
    return text.split("```python\n", 1)[1].split("```", 1)[0]


# ------------------------------------------------------------------------------------- what was measured on what


def test_a_row_is_sorted_by_what_its_figures_were_measured_on():
    assert logged(ROW, watched=200, attack=ATTACK) == [
        Measured(
            figures={"cross_entropy": 0.25, "gradient_norm": 2.0},
            part="train",
            on="the loss of step 150, its images attacked or changed as the defence does",
        ),
        Measured(figures={"training_accuracy": 1.0}, part="train", on="the training batch of step 150"),
        Measured(
            figures={"attacked_training_accuracy": 0.5},
            part="train",
            on="the training batch of step 150",
            attack=ATTACK,
        ),
        Measured(
            figures={"validation_accuracy": 0.73},
            part="validation",
            on="the first 200 validation images, after step 150",
        ),
        Measured(
            figures={"attacked_accuracy": 0.3125},
            part="validation",
            on="the first 200 validation images, after step 150",
            attack=ATTACK,
        ),
    ]


def test_figures_under_an_attack_need_the_attack():
    with pytest.raises(InputError, match="attacked_training_accuracy was measured under an attack: describe it"):
        logged(ROW, watched=200)


def test_without_an_attack_robustness_was_not_measured():
    limits = make()["limits"]
    assert limits[0] == "Robustness was not measured: no figure here says what the network does under an attack."
    assert "Nothing was measured on test images." in limits
    assert not any("named attack" in limit for limit in limits)


def test_with_an_attack_the_figures_are_said_to_hold_for_it_only():
    made = make(logged(ROW, watched=200, attack=ATTACK))
    assert made["limits"][0] == (
        f"Robustness figures hold for the named attack only ({words(ATTACK)}), with these settings and on these "
        "images; another or a stronger attack may fool the network far more often."
    )
    assert words(ATTACK).startswith("pgd ")
    assert " eps=8/255 steps=7 " in words(ATTACK)
    assert made["limits"][0].count("pgd") == 1  # two entries, one attack
    assert not any("Robustness was not measured" in limit for limit in made["limits"])


def test_an_attack_whose_figure_is_not_finite_measured_nothing():
    nothing = Measured(figures={"attacked_accuracy": float("nan")}, part="validation", on="images", attack=ATTACK)
    assert make([nothing])["limits"][0].startswith("Robustness was not measured")
    assert "| attacked_accuracy | not finite | images |" in markdown(make([nothing]))


def test_figures_on_test_images_are_not_denied():
    assert not any(
        "test images" in limit for limit in make([Measured(figures={"a": 1}, part="test", on="x")])["limits"]
    )


def test_figures_of_another_network_are_said_to_be():
    made = make(logged(CLEAN, watched=200, of="the network before its mean was taken"))
    sentence = "Figures were measured on the network before its mean was taken, not on the network in this folder."
    assert made["limits"].count(sentence) == 1
    assert "(the network before its mean was taken) | - |" in markdown(made)


def test_nothing_at_all():
    made = make([])
    assert made["measured"] == []
    assert "## What was measured\n\nNothing was measured.\n\n## Intended use" in markdown(made)
    assert front(markdown(made))[0]["metrics"] == []


# ------------------------------------------------------------------------------------------------------ the JSON


def test_the_card_is_strict_json_and_says_what_was_handed_over():
    made = make([Measured(figures={"loss": float("inf"), "accuracy": 0.5}, part="train", on="x")])
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    assert made["measured"][0]["figures"] == {"loss": None, "accuracy": 0.5}
    assert made["model"] == {"model": "small_cnn", "filters": [2, 3, 4], **made["model"]}
    assert made["data"]["train"]["sha256"] == "0f" * 32
    assert made["data"]["validation"]["cut"] == "the next 200"
    assert made["training"]["steps"] == 150
    assert made["training"]["seed"] == 3
    assert made["training"]["schedule"]["optimiser"]["lr"] == 0.002
    assert made["cost"] == {"wall_seconds": 12.346, "passes": {"forward": 9600, "backward": 19200}}
    assert made["licence"] is None
    assert made["datasets"] == ["digits"]


def test_folders_of_the_machine_are_left_out():
    defence = {"defence": "distillation", "teacher": {"task": "checkpoint", "path": "/home/somebody/nets/teacher"}}
    assert make(defence=defence)["defence"]["teacher"]["path"] == "teacher"
    assert make(schedule={"init": [{"path": "/srv/x"}]})["training"]["schedule"] == {"init": [{"path": "x"}]}


# -------------------------------------------------------------------------------------------------- the Markdown


def test_front_matter():
    assert front(markdown(make()))[0] == {
        "library_name": "pellucid",
        "pipeline_tag": "image-classification",
        "tags": [
            "image-classification",
            "adversarial-robustness",
            "interpretability",
            "small_cnn",
            "double_backprop",
        ],
        "datasets": ["digits"],
        "metrics": ["accuracy"],
    }


def test_the_hub_reads_the_front_matter():
    data = ModelCard(markdown(make(licence="mit", datasets=("ylecun/mnist",)))).data
    assert (data.library_name, data.license, data.datasets) == ("pellucid", "mit", ["ylecun/mnist"])
    assert ModelCard(markdown(make())).data.license is None


@pytest.mark.parametrize("name", ["a: b", "- x", "---", "yes", "'", "1", "[", "été"])
def test_front_matter_of_odd_names(name):
    meta, rest = front(markdown(make(datasets=(name,), licence=name)).replace("\n---\n---", "\n- ---"))
    assert meta["license"] == name
    assert meta["datasets"] == [name]
    assert rest.startswith("\n# small")


@pytest.mark.parametrize(
    "line",
    [
        "# small_cnn trained with double_backprop on digits",
        "| images | (N, 1, 8, 6), values in \\[0, 1\\] |",
        "| classes | 3: a, b, c |",
        "| defence | double_backprop weight=0.5 normalisation=paper |",
        f"| data | train: digits, 1200 images, the first 1200 (sha256 {'0f' * 32}) |",
        "| training | 150 steps, seed 3 |",
        "| training, optimiser | (adam lr=0.002) |",
        "| training, batch_size | 64 |",
        "| cost | 12 s; 9600 forward, 19200 backward passes, one for each image |",
        "| versions | pellucid 0.1.0, torch 2.13.0 |",
        "| licence | not chosen yet: whoever publishes the network chooses it |",
        "| validation_accuracy | 0.73 | the first 200 validation images, after step 150 | - |",
        "| cross_entropy | 0.25 | the loss of step 150, its images attacked or changed as the defence does | - |",
        "| training_accuracy | 1 | the training batch of step 150 | - |",
        "* Robustness was not measured: no figure here says what the network does under an attack.",
        "* Whether explanations of the network are faithful or readable was not measured.",
        "* Nothing was measured on images unlike those of digits: other sources, corruptions, other classes.",
        'net = load_classifier(".")  # the folder that this file is in',
    ],
)
def test_lines(line):
    assert line in markdown(make()).splitlines()


def test_an_attacked_figure_stands_beside_its_attack():
    lines = markdown(make(logged(ROW, watched=200, attack=ATTACK))).splitlines()
    on = "the first 200 validation images, after step 150"
    assert f"| attacked_accuracy | 0.3125 | {on} | {words(ATTACK)} |" in lines
    assert f"| validation_accuracy | 0.73 | {on} | - |" in lines


def test_the_same_card_gives_the_same_text_also_when_read_from_a_file():
    made = make()
    assert markdown(json.loads(json.dumps(made))) == markdown(made) == markdown(make())


def test_names_cannot_leave_their_cell():
    lines = markdown(make(classes=("a|b\n# title", "<script>", "`c`"))).splitlines()
    assert "| classes | 3: a\\|b # title, &lt;script&gt;, \\`c\\` |" in lines


def test_many_classes_are_counted():
    lines = markdown(make(classes=[str(n) for n in range(11)])).splitlines()
    assert "| classes | 11: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ... (all in card.json) |" in lines


def test_words_of_descriptions():
    inner = {"defence": "sum", "defences": [{"defence": "standard"}, {"defence": "trades", "weight": 6.0}]}
    assert words(inner) == "sum defences=((standard), (trades weight=6))"
    teacher = {"defence": "distillation", "teacher": {"task": "train", "data": {"data": "digits"}}, "temperature": 50.0}
    assert words(teacher) == "distillation teacher=(train task) temperature=50"


# ------------------------------------------------------------------------------------------------ the code block


def test_the_code_block_loads_the_network(tmp_path):
    with global_seed(3):
        network = SPEC.build(1, (8, 6), 3)
    save_classifier(tmp_path, network, SPEC, (1, 8, 6), ("a", "b", "c"))
    (tmp_path / README).write_text(markdown(make()))
    check = """
    import sys
    assert "huggingface_hub" not in sys.modules
    assert isinstance(net, torch.nn.Module) and not net.training
    assert {p.device.type for p in net.parameters()} == {"cpu"}
    print(net(torch.full((1, 1, 8, 6), 0.25)).tolist(), list(scores.shape))
    """
    program = code((tmp_path / README).read_text()) + textwrap.dedent(check)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    expected = load_classifier(tmp_path)(torch.full((1, 1, 8, 6), 0.25)).tolist()
    assert done.stdout == f"{expected} [1, 3]\n"
