"""Refusals: one sentence, exit code 2, nothing written."""

import contextlib
import json
import os
import shutil
import subprocess

import pytest
import torch

from pellucid.cli import main

from .conftest import SMALL, TRAIN

HAVE = ("--data", "digits", "--model", "small_cnn", "--steps", "3")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        # unknown names, the known ones listed
        (("train", "--data", "mnits", "--model", "small_cnn", "--steps", "1"), "no data called 'mnits'; known: "),
        (("train", "--data", "digits", "--model", "cnn", "--steps", "1"), "no model called 'cnn'; known: "),
        (("train", *HAVE, "--defence", "nope"), "no defence called 'nope'; known: adversarial_training"),
        (("train", *HAVE, "--optimiser", "sgdx"), "no optimiser called 'sgdx'; known: adam"),
        (("train", *HAVE, "--defence", "adversarial_training", "attack=fgms"), "no attack called 'fgms'; known: "),
        (("study", "run", "ross2017"), "no study called 'ross2017'; known: ross2018"),
        (("study", "show", "ross2018", "--scale", "tiny"), "no scale called 'tiny'; known: smoke, small, paper"),
        (("report", "ross2017"), "no study called 'ross2017'"),
        (("list", "attacks"), "no kind 'attacks'; known: attack, interpreter"),
        (("list", "attack", "pgdd"), "no attack called 'pgdd'; known: "),
        (("list", "study", "ross2017"), "no study called 'ross2017'; known: ross2018"),
        (("trian",), "see pellucid --help"),
        (("study", "walk"), "see pellucid --help"),
        # unknown fields
        (("train", *HAVE, "weight=1"), "defence standard has no field 'weight'"),
        (("train", *HAVE, "--defence", "double_backprop", "wieght=1"), "no field 'wieght'; its fields are weight"),
        (("train", *HAVE, "model.depth=3"), "model small_cnn has no field 'depth'; its fields are filters"),
        (("train", *HAVE, "data.noise=3"), "data digits has no field 'noise'"),
        (("train", *HAVE, "--learning-rate", "3"), "see pellucid --help"),
        (("train", *HAVE, "=3"), "is not a field; write key=value"),
        # wrong types and values
        (("train", *HAVE, "--batch-size", "ten"), "'ten' is not a number"),
        (("train", *HAVE, "--batch-size", "0"), "task train.batch_size: should be greater than or equal to 1"),
        (("train", *HAVE, "--batch-size", "1.5"), "task train.batch_size"),
        (("train", *HAVE, "--seed", "-1"), "task train.seed"),
        (("train", *HAVE, "--epochs", "2"), "exactly one of steps and epochs"),
        (("train", "--data", "digits", "--model", "small_cnn"), "exactly one of steps and epochs"),
        (("train", "--data", "digits", "--steps", "3"), "needs --model"),
        (("train", "--model", "small_cnn", "--steps", "3"), "needs --data"),
        (("train", *HAVE, "optimiser.lr=fast"), "optimiser adam.lr: 'fast' is not a number"),
        (("train", *HAVE, "optimiser.lr=nan"), "a finite number is needed"),
        (("train", *HAVE, "optimiser.lr=-1"), "optimiser adam.lr"),
        (("train", *HAVE, "optimiser.eps_hat=maybe"), "optimiser adam.eps_hat"),
        (("train", *HAVE, "model.filters=3,4"), "model small_cnn.filters"),
        (("train", *HAVE, "--defence", "double_backprop", "normalisation=sum"), "paper_sum"),
        (("train", *HAVE, "--threads", "0"), "threads must be 1 to 4096, not 0"),
        (("train", *HAVE, "--threads", "two"), "see pellucid --help"),
        (("train", *HAVE, "--device", "gpu"), "there is no device 'gpu' here; cpu always works"),
        (("train", *HAVE, "--device", "meta"), "there is no device 'meta' here"),
        # checkpoints that are not there
        (("evaluate", "nowhere", "--data", "digits"), "there is no checkpoint at nowhere"),
        (("evaluate", "--data", "digits"), "needs the folder of a checkpoint"),
        (("attack", "--data", "digits", "--attack", "fgsm"), "needs the folder of one checkpoint"),
        (("attack", "net:net", "--data", "digits", "--attack", "fgsm", "eps=.1"), "No module named 'net'"),
        (("explain", "--data", "digits"), "needs the folder of a checkpoint, or package.module:attribute"),
        (("explain", "one", "two", "--data", "digits"), "needs one network and one path of an image or folder, or --d"),
        (("explain", "one", "two", "three"), "needs one network and one path of an image or folder, or --data NAME"),
        (("explain", "one"), "needs one network and one path of an image or folder, or --data NAME"),
        (("explain", "nowhere", "photo.png"), "there is no checkpoint at nowhere"),
        (("explain", "nowhere", "--data", "digits"), "there is no checkpoint at nowhere"),
        (("train", *HAVE, "--init", "nowhere"), "there is no checkpoint at nowhere"),
        # data sets that are not there
        (("train", "--data", "mnist", "--model", "small_cnn", "--steps", "1"), "mnist is not here"),
        (("study", "run", "ross2018", "--scale", "small"), "mnist is not here"),
        (("train", *HAVE, "--data-root", "nowhere"), "the folder of data sets 'nowhere' does not exist"),
        (("train", *HAVE, "data.train=5000"), "digits"),
        (("report", "ross2018"), "pellucid study run ross2018 --scale smoke computes them"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)  # fmt: skip
def test_refused(refused, words, said):
    assert said in refused(*words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("evaluate", "--attack", "pdg", "--epsilons", "0,0.1"), "no attack called 'pdg'; known: "),
        (("evaluate", "--attack", "fgsm"), "attack fgsm needs eps"),
        (("evaluate", "--epsilons", "0,0.1"), "belong to an attack: add --attack"),
        (("evaluate", "eps=0.1"), "belong to an attack: add --attack"),
        (("evaluate", "--attack", "fgsm", "--epsilons", "0,much"), "'much' is not a number"),
        (("evaluate", "--attack", "fgsm", "--epsilons", "0.2,0.1"), "ascending"),
        (("evaluate", "--attack", "fgsm", "--epsilons", "0,1/0"), "'1/0' is not a number"),
        (("evaluate", "--attack", "fgsm", "eps=0.1", "steps=3"), "attack fgsm has no field 'steps'"),
        (("evaluate", "--part", "tset"), "part: should be 'train', 'validation' or 'test' (got 'tset')"),
        (("evaluate", "--images", "0"), "task evaluate.images"),
        (("evaluate", "data.noise=1"), "data digits has no field 'noise'"),
        (("attack", "--attack", "fgsm"), "needs eps"),
        (("attack", "--attack", "fgsm", "eps=big"), "'big' is not a number"),
        (("explain", "--interpreter", "camm"), "no interpreter called 'camm'; known: "),
        (("explain", "--interpreter", "gradient", "score=luck"), "interpreter gradient.score"),
        (("explain", "--interpreter", "cam", "score=logit"), "has no field 'score'"),
        (("explain", "--interpreters", "gradient,cam", "score=logit"), "'score=logit' belongs to nothing here"),
        (("explain", "score=logit"), "'score=logit' belongs to nothing here; write attack.eps=0.1"),
        (("explain", "attack.eps=0.1"), "'attack.eps=0.1' belongs to nothing here"),
        (("explain", "--interpreters", "gradient, cam score=logit"), "interpreter cam has no field 'score'"),
        (("explain", "--interpreters", "gradient depth"), "'depth' is not a field"),
        (("explain", "--interpreters", "cam,cam"), "the interpreter cam is named twice"),
        (("explain", "--interpreters", ","), "--interpreters names none"),
        (("explain", "--interpreter", "cam", "interpreter=gradient"), "name it by --interpreters"),
        (("explain", "--classes", "mouse"), "there is no class 'mouse'; name one of true, predicted, runner_up"),
        (("explain", "--classes", "10"), "there is no class '10'"),
        (("explain", "--classes", "3,3"), "task explain.classes must name at least one class, none twice"),
        (("explain", "--size", "8,8"), "--size is for pictures given by their path"),
        (("explain", "model.mean=0.5"), "is for networks that code makes (package.module:attribute)"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)  # fmt: skip
def test_refused_with_a_good_checkpoint(refused, trained, words, said):
    command, *rest = words
    assert said in refused(command, trained, *SMALL, *rest)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("run.yaml", "steps: [1", "is not valid yaml"),
        ("run.json", '{"steps": 1', "is not valid json"),
        ("run.yaml", "- a\n- b\n", "must hold a table of fields, not list"),
        ("run.yaml", "", "must hold a table of fields, not NoneType"),
        ("run.yaml", "!!python/object/apply:os.system ['touch harm']", "is not valid yaml"),
        ("run.yaml", "steps: yes", "a number is needed, not a truth value"),
        ("run.yaml", "steps: 2.5", "task train.steps"),
        ("run.yaml", "steps: many", "'many' is not a number"),
        ("run.yaml", "shufle: true", "task train has no field 'shufle'"),
        ("run.yaml", "1: 2", "fields have names, not 1"),
        ("run.yaml", "model: {model: small_cnn, 1: 2}", "fields have names, not 1"),
        ("run.yaml", "model: {filters: [1, 2, 3]}", "needs its kind"),
        ("run.yaml", "model: 3", "one of these is needed: boopathy_wresnet"),
        ("run.yaml", "defence: fgsm", "no defence called 'fgsm'"),
        ("run.yaml", "task: evaluate", "task evaluate has no field"),
        ("run.yaml", "task: 3", "needs its kind"),
        ("run.json", '{"steps": NaN}', "task train.steps"),
    ],
)
def test_refused_from_a_file(refused, place, name, content, said):
    (place / name).write_text(content)
    words = [] if "steps" in content else ["--steps", "3"]
    have = ["--data", "digits"] + ([] if "model" in content else ["--model", "small_cnn"])
    assert said in refused("train", "--spec", name, *have, *words)


def test_a_file_that_is_not_there_or_a_folder_or_no_text(refused, place):
    assert "nothing.yaml cannot be read (No such file" in refused("train", "--spec", "nothing.yaml", *HAVE)
    (place / "folder").mkdir()
    assert "cannot be read (Is a directory" in refused("train", "--spec", "folder", *HAVE)
    (place / "bytes.yaml").write_bytes(b"\xff\xfe\x00\x80")
    assert "is not valid yaml" in refused("train", "--spec", "bytes.yaml", *HAVE)


# ------------------------------------------------------------------------------------------------ checkpoints


@pytest.fixture
def net(trained, place):
    shutil.copytree(trained, place / "net")
    return place / "net"


def truncate(net):
    weights = net / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def garble(net):
    (net / "model.safetensors").write_bytes(b"\xff" * 1000)


def pickle(net):
    torch.save({"weight": torch.ones(2)}, net / "model.safetensors")


def exchange(net):
    config = json.loads((net / "config.json").read_text())
    config["model"]["filters"] = [3, 4, 6]
    (net / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (truncate, "is corrupt or truncated"),
        (garble, "is corrupt or truncated"),
        (pickle, "is a pickle (.pt/.pth), which can run code when read; convert it to safetensors"),
        (exchange, "is of another network: convolutions.2.bias is (5,) in the file, (6,) in the network"),
    ],
    ids=["truncated", "corrupt", "pickle", "of another network"],
)
@pytest.mark.parametrize("command", ["evaluate", "attack", "explain", "train"])
def test_a_checkpoint_that_cannot_be_used(refused, net, harm, said, command):
    harm(net)
    words = {"evaluate": [net], "attack": [net, "--attack", "fgsm", "eps=0.1"], "explain": [net]}
    assert said in refused(command, *words.get(command, [*HAVE[2:], "--init", net]), "--data", "digits")


# ----------------------------------------------------------------------------------------------------- stores


def test_a_file_in_the_way_of_the_store(refused, place):
    (place / "artifacts").write_text("a note")
    assert "a file is in the way" in refused(*TRAIN)
    assert (place / "artifacts").read_text() == "a note"


@pytest.fixture
def mounted(place):
    """A file system of its own of 300 KiB, mounted where that is allowed."""
    (place / "mounted").mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place / "mounted")]
    try:
        refused = subprocess.run(words, capture_output=True).returncode
    except OSError:
        refused = 1
    if refused:
        pytest.skip("mounting a file system is not allowed here")
    yield place / "mounted"
    subprocess.run(["umount", str(place / "mounted")], check=True)


def test_a_store_on_a_read_only_mount(refused, mounted):
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    assert "it is mounted read-only" in refused(*TRAIN, "--store", mounted / "store")
    assert list(mounted.iterdir()) == []


def test_a_finished_store_on_a_read_only_mount_is_read(say, refused, mounted):
    words = (*TRAIN, "--store", mounted / "store", "--json", "--quiet")
    first = say(*words).json()
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    assert say(*words).json() == first
    assert "it is mounted read-only" in refused(*words[:-2], "--seed", "1")


def test_a_disk_that_fills_up_and_then_has_room(say, mounted, trained):
    with open(mounted / "ballast", "wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(b"\0" * 4096)
    os.truncate(mounted / "ballast", (mounted / "ballast").stat().st_size - 2 * 4096)
    spoken = say(*TRAIN, "--store", mounted / "store", "--quiet")
    assert spoken.code == 2
    assert "the disk is full; what was finished is kept" in spoken.err
    assert not list((mounted / "store").glob("train/*"))
    (mounted / "ballast").unlink()
    spoken = say(*TRAIN, "--store", mounted / "store", "--quiet")
    assert spoken.code == 0
    made = (mounted / "store").glob("train/*/model.safetensors")
    assert next(made).read_bytes() == (trained / "model.safetensors").read_bytes()


def test_out_on_a_file(say, place):
    (place / "net").write_text("a note")
    spoken = say(*TRAIN, "--out", "net", "--quiet")
    assert spoken.code == 2
    assert "a file is in the way" in spoken.err
    assert (place / "net").read_text() == "a note"


def test_a_result_that_was_changed(say, place):
    folder = say(*TRAIN, "--quiet").out.splitlines()[-1]
    with open(f"{folder}/history.json", "a") as file:
        file.write(" ")
    spoken = say(*TRAIN, "--quiet")
    assert spoken.code == 2
    assert "history.json is missing or was changed; delete the folder" in spoken.err


# ------------------------------------------------------------------------------------------------------- form


def test_a_refusal_as_json(say, place):
    spoken = say("train", "--data", "mnits", "--model", "small_cnn", "--steps", "1", "--json")
    assert spoken.code == 2
    assert spoken.err == ""
    assert spoken.json()["error"].startswith("task train.data: there is no data called 'mnits'; known: ")
    assert list(place.iterdir()) == []


def test_nan_in_a_loss_is_a_sentence_with_step_and_term(say, place):
    spoken = say(*TRAIN[:-1], "optimiser.lr=1e30", "--store", "store", "--quiet")
    assert spoken.code == 2
    assert "training stopped at step 1: cross_entropy is " in spoken.err
    kept = list((place / "store" / "scratch").glob("*/checkpoint.safetensors"))
    assert len(kept) == 1


def test_the_exit_code_is_that_of_the_process(place):
    assert main(["list", "nothing"]) == 2
    import sys

    ran = subprocess.run([sys.executable, "-m", "pellucid", "list", "nothing"], capture_output=True, text=True)
    if "No module named pellucid.__main__" in ran.stderr:
        ran = subprocess.run(
            [sys.executable, "-c", "import sys; from pellucid.cli import main; sys.exit(main())", "list", "nothing"],
            capture_output=True,
            text=True,
        )
    assert ran.returncode == 2
    assert ran.stderr.startswith("pellucid: there is no kind 'nothing'; known: ")
