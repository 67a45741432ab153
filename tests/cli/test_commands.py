"""What the commands do and print, for people and as JSON."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from pellucid.attacks import FGSM
from pellucid.cli.common import Common
from pellucid.data import Digits
from pellucid.metrics import predict
from pellucid.models import load_classifier
from pellucid.spec import names, presets
from pellucid.studies import STUDIES

from .conftest import SMALL, TRAIN

PNG = b"\x89PNG"
DATA = Digits(train=60, validation=20, test=20)


# ------------------------------------------------------------------------------------------------------- train


def test_train_prints_the_folder_of_the_checkpoint_last(say, place):
    spoken = say(*TRAIN, "--store", "here", "--seed", "3")
    assert spoken.code == 0
    folder = spoken.out.splitlines()[-1]
    assert folder.startswith(str(place / "here" / "train"))
    assert load_classifier(folder)(torch.rand(1, 1, 28, 28)).shape == (1, 10)
    assert "validation accuracy: " in spoken.out
    assert [line.split()[0] for line in spoken.err.splitlines()] == ["1", "start", "done"]  # plain lines, no bar
    assert "\x1b" not in spoken.err


def test_train_again_reads_the_store(say):
    first = say(*TRAIN, "--json", "--quiet").json()
    again = say(*TRAIN, "--json")
    assert again.json() == first
    assert again.err.splitlines() == ["1 tasks, 1 of them done"]


def test_quiet_prints_no_progress(say):
    assert say(*TRAIN, "--quiet").err == ""


def test_train_as_json(say):
    told = say(*TRAIN, "--json", "--out", "net").json()
    assert told.keys() >= {"checkpoint", "digest", "history", "meta"}
    assert told["history"][-1]["step"] == 40
    meta = told["meta"]
    assert meta.keys() >= {"seed", "versions", "threads", "device", "commit", "wall_seconds", "passes", "data"}
    # and a log: the last batch and the validation images forward, these twice backward
    assert meta["passes"] == {"forward": 40 * 20 + 20 + 20, "backward": 40 * 20 + 2 * 20}
    assert meta["task"]["data"]["train"] == 60
    assert meta["task"]["optimiser"]["lr"] == 0.01
    assert load_classifier(told["checkpoint"])


def test_the_store_may_be_named_by_the_environment(say, place, monkeypatch):
    monkeypatch.setenv("PELLUCID_STORE", str(place / "elsewhere"))
    say(*TRAIN, "--quiet")
    assert (place / "elsewhere" / "train").is_dir()
    assert not (place / "artifacts").exists()


def test_fields_from_a_file_and_the_command_line_overrides_them(say, place):
    (place / "run.yaml").write_text(
        "data: {data: digits, train: 60, validation: 20, test: 20}\n"
        "model: {model: small_cnn, filters: [3, 4, 5]}\n"
        "defence: {defence: double_backprop, weight: 1e-3}\n"
        "optimiser: {optimiser: adam, lr: 0.01}\n"
        "steps: 50\nbatch_size: 20\n"
    )
    told = say("train", "--spec", "run.yaml", "--steps", "40", "weight=1/100", "--json", "--quiet").json()
    task = told["meta"]["task"]
    assert task["steps"] == 40
    assert task["defence"] == {"defence": "double_backprop", "weight": 0.01, "normalisation": "paper"}
    assert task["model"]["filters"] == [3, 4, 5]
    by_words = say(*TRAIN, "--defence", "double_backprop", "weight=0.01", "--json", "--quiet").json()
    assert by_words["digest"] == told["digest"]


def test_starting_from_a_checkpoint(say, trained):
    words = [*TRAIN[:-1], "--init", trained, "--json", "--quiet", "optimiser.lr=1e-12"]
    told = say(*words).json()
    weights = load_file(f"{told['checkpoint']}/model.safetensors")
    start = load_file(trained / "model.safetensors")
    assert all(torch.allclose(v, start[k], rtol=0, atol=1e-9) for k, v in weights.items())


def test_train_shows_eps_and_lambda_in_the_units_of_the_data_too(say, monkeypatch):
    """Data on [-1, 3]: a distance there is four times that on [0, 1], the weight of a squared gradient 16 times."""
    load = Digits.load
    monkeypatch.setattr(Digits, "load", lambda self, part: replace(load(self, part), value_range=(-1.0, 3.0)))
    words = ("train", *SMALL, "--model", "small_cnn", "model.filters=3,4,5", "--steps", "1", "--defence", "sum")
    parts = ("defences=fgsm_training, double_backprop weight=0.5",)
    told = say(*words, *parts, "--quiet")
    assert "eps of fgsm 1.2 on [-1, 3], 0.3 on [0, 1]" in told.out
    assert "weight of double_backprop 8 on [-1, 3], 0.5 on [0, 1]" in told.out
    monkeypatch.undo()
    assert " on [0, 1]" not in say(*words, *parts, "--quiet", "--seed", "1").out


# ---------------------------------------------------------------------------------------------------- evaluate


def test_evaluate_counts_right_answers(say, trained):
    told = say(
        "evaluate", trained, *SMALL, "--attack", "fgsm", "--epsilons", "0,0.1,51/255", "--json", "--quiet"
    ).json()
    split, network = DATA.load("test"), load_classifier(trained)
    x, y = split.images(), split.labels
    clean = predict(network, x) == y
    assert clean.float().mean() > 0.3
    for row, eps in zip(told["accuracy"], (0.0, 0.1, 0.2)):
        right = clean & (predict(network, FGSM(eps=eps)(network, x, y)) == y) if eps else clean
        assert row["epsilon"] == eps
        assert row["images"] == 20
        assert row["value"] == pytest.approx(float(right.float().mean()))
        assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
    assert told["accuracy"][2]["value"] < told["accuracy"][0]["value"]
    assert told["meta"]["passes"]["backward"] > 0


def test_evaluate_shows_eps_in_the_units_of_the_data_too(say, trained, monkeypatch):
    """Data on [-1, 3], as those that a paper normalises: a distance there is four times that on [0, 1]."""
    load = Digits.load
    monkeypatch.setattr(Digits, "load", lambda self, part: replace(load(self, part), value_range=(-1.0, 3.0)))
    words = ("evaluate", trained, *SMALL, "--attack", "fgsm", "--epsilons", "0,0.1", "--quiet")
    assert "eps 0.4 on [-1, 3], 0.1 on [0, 1]" in say(*words).out
    assert [row["epsilon_of_data"] for row in say(*words, "--json").json()["accuracy"]] == pytest.approx([0, 0.4])


def test_evaluate_converts_no_eps_that_is_not_a_distance_between_images(say, trained, monkeypatch):
    load = Digits.load
    monkeypatch.setattr(Digits, "load", lambda self, part: replace(load(self, part), value_range=(-1.0, 3.0)))
    words = ("evaluate", trained, *SMALL, "--attack", "gabor", "steps=1", "--epsilons", "2", "--images", "4", "--quiet")
    assert "own" not in say(*words).out
    assert say(*words, "--json").json()["accuracy"][0]["epsilon_of_data"] is None


def test_evaluate_says_nothing_of_an_eps_that_the_attack_does_not_have(say, trained):
    spoken = say("evaluate", trained, *SMALL, "--attack", "deepfool", "steps=2", "--images", "4", "--quiet")
    assert "as described" in spoken.out
    assert "nan" not in spoken.out.replace(str(trained), "")


def test_evaluate_for_people_is_a_table_with_a_row_per_network(say, trained, place):
    import shutil

    shutil.copytree(trained, place / "other")
    spoken = say("evaluate", trained, "other", *SMALL, "--attack", "pgd", "steps=2", "--epsilons", "0,8/255")
    assert "accuracy on 20 test images of digits under pgd" in spoken.out
    assert "eps 8/255" in spoken.out
    assert "other" in spoken.out
    assert spoken.out.count("%") == 2 * 2 * 3


def test_the_attacks_own_eps_is_enough(say, trained):
    told = say("evaluate", trained, *SMALL, "--attack", "fgsm", "eps=0.3", "--json", "--quiet").json()
    assert [row["epsilon"] for row in told["accuracy"]] == [0.3]  # the attack as described, once


def test_clean_accuracy(say, trained):
    told = say("evaluate", trained, *SMALL, "--part", "validation", "--images", "7", "--json", "--quiet").json()
    assert [(row["epsilon"], row["images"]) for row in told["accuracy"]] == [(0, 7)]


# --------------------------------------------------------------------------------------------- attack, explain


def test_attack_saves_images_and_a_sheet(say, trained, place):
    words = ("attack", trained, *SMALL, "--attack", "fgsm", "eps=0.2", "--images", "5", "--out", "made")
    told = say(*words, "--json", "--quiet").json()
    assert told["images"] == 5
    assert told["largest"]["linf"] <= 0.2 + 1e-6
    assert (place / "made" / "attack.png").read_bytes().startswith(PNG)
    made = load_file(place / "made" / "attack.safetensors")
    assert made["adversarial"].shape == (5, 1, 28, 28)
    right = float((made["probabilities_adversarial"].argmax(1) == made["labels"]).float().mean())
    assert told["accuracy"]["adversarial"] == pytest.approx(right)
    spoken = say(*words)
    assert spoken.out.splitlines()[-1] == str(place / "made" / "attack.png")


def test_json_has_no_nan(capsys):
    """Tau of nobody is null: where no prediction stays, there is no tau."""
    Common(json=True).say({"tau": {"value": float("nan"), "high": float("inf")}, "rows": [1.5, (float("nan"), 2)]})
    assert json.loads(capsys.readouterr().out) == {"tau": {"value": None, "high": None}, "rows": [1.5, [None, 2]]}


# ------------------------------------------------------------------------------------------------- list, study


@pytest.mark.parametrize("kind", ["attack", "interpreter", "defence", "model", "data", "optimiser", "task", "study"])
def test_list_as_json_names_everything_registered(say, kind):
    told = say("list", kind, "--json").json()
    found = [row["name"] for row in told[kind]]
    assert found == (list(STUDIES) if kind == "study" else [*names(kind), *presets(kind)])
    assert all(row["summary"] for row in told[kind])


def test_list_all(say):
    told = say("list", "--json").json()
    assert len(told) == 15
    spoken = say("list")
    assert all(row["name"] in spoken.out for rows in told.values() for row in rows)


@pytest.mark.parametrize(("kind", "name", "said"), [("attack", "pgd", "step_size"), ("study", "ross2018", "Figure 1")])
def test_list_one_prints_its_documentation(say, kind, name, said):
    assert said in say("list", kind, name).out
    told = say("list", kind, name, "--json").json()
    assert told["name"] == name
    assert len(told["documentation"]) > 100


def test_study_show_writes_nothing_and_names_what_is_missing(say, place):
    told = say("study", "show", "ross2018", "--no-timing", "--json").json()
    assert len(told["tasks"]) == 21
    assert not any(row["done"] for row in told["tasks"])
    assert told["missing_seconds"] is None
    spoken = say("study", "show", "ross2018", "--no-timing")
    assert "0 of 21 tasks done" in spoken.out
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("scale", ["small", "paper"])
def test_study_show_without_timing_needs_no_data(say, scale):
    told = say("study", "show", "ross2018", "--scale", scale, "--no-timing", "--json").json()
    assert len(told["tasks"]) > 21


# ------------------------------------------------------------------------------------------------------- start


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["study", "run", "--help"], ["--version"]])
def test_help_is_there_at_once(words):
    """Without torch, whose import alone takes seconds."""
    code = (
        "import sys; from pellucid.cli import main\n"
        f"code = main({words!r})\n"
        "heavy = sorted({'torch', 'scipy', 'sklearn', 'pyarrow', 'matplotlib'} & set(sys.modules))\n"
        "print('LOADED', heavy); sys.exit(code)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "LOADED []"
    assert len(ran.stdout.splitlines()) > 1


def test_help_names_every_command(say):
    spoken = say("--help")
    for command in ("train", "evaluate", "attack", "explain", "study", "report", "list"):
        assert f"\n  {command}" in spoken.out.replace("│", " ") or command in spoken.out
    assert spoken.code == 0


def test_an_interruption_is_no_refusal(say, monkeypatch):
    import pellucid.tasks

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pellucid.tasks, "run", interrupted)
    spoken = say(*TRAIN)
    assert spoken.code == 130
    assert "goes on from here" in spoken.err
