"""What people get wrong at the door, and places where a command has to live: each a sentence, never a traceback."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pellucid.cli.fields import apply_words

from .conftest import SMALL, TRAIN

HAVE = ("--data", "digits", "--model", "small_cnn", "--steps", "3")
RUN = (sys.executable, "-c", "import sys; from pellucid.cli import main; sys.exit(main())")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", *HAVE, "--defence", "standard", "defence=double_backprop"), "name it by --defence double_backprop"),
        (("train", *HAVE, "data.data=mnist"), "name it by --data mnist"),
        (("train", *HAVE, "--defence", "double_backprop", "weight=1", "weight=2"), "'weight' is given twice"),
        (("train", *HAVE, "--defence", "double_backprop", "weight=1", "defence.weight=2"), "is given twice"),
        (("train", *HAVE, "data.train="), "'data.train=' is not a field; write key=value"),
        (("train", "--data", "folder", "data.path=", *HAVE[2:]), "'data.path=' is not a field"),
        (("train", *HAVE, "--data-root", ""), "an empty path names no place"),
        (("train", *HAVE, "--store", ""), "an empty path names no place"),
        (("train", *HAVE, "--out", ""), "an empty path names no place"),
        (("train", *HAVE, "--init", "n" * 300), "File name too long"),
        (("evaluate", "n" * 300, "--data", "digits"), "File name too long"),
        (("train", *HAVE, "--spec", "n" * 300), "File name too long"),
        (("train", *HAVE, "--store", "n" * 300), "oo long"),
        (("train", *HAVE, "--data-root", "n" * 300), "oo long"),
        (("list", "attack", "--threads", "0"), "Unknown option"),
        (("train", *HAVE, "--data", "digits"), "specified multiple times; see pellucid --help"),
        (("train", *HAVE, "--seed", "9" * 5000), "task train.seed: "),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else None,
)  # fmt: skip
def test_refused(refused, words, said):
    assert said in refused(*words)


@pytest.mark.parametrize(
    "words",
    [("--attack", "fgsm", "attack=pgd", "eps=.1"), ("--attack", "fgsm", "eps=.1", "attack.eps=.2"), ("data.data=x",)],
)
def test_one_name_and_one_value(refused, trained, words):
    sentence = refused("evaluate", trained, *SMALL, *words)
    assert "name it by --" in sentence or "is given twice" in sentence


@pytest.mark.parametrize("words", [("attack=pgd", "attack.eps=0.1"), ("attack.eps=0.1", "attack=pgd")])
def test_a_nested_part_is_named_by_a_word_in_any_order(words):
    table = apply_words({"defence": "adversarial_training"}, words, "defence")
    assert table["defence"]["attack"] == {"attack": "pgd", "eps": "0.1"}


@pytest.mark.parametrize(
    "words",
    [("train", *HAVE, "--seed", "x" * 5000), ("train", *HAVE, "y" * 5000 + "=1"), ("list", "z" * 5000),
     ("train", *HAVE[2:], "--data", "d" * 5000), ("train", *HAVE, "--threads", "t" * 5000), ("q" * 5000,),
     ("train", *HAVE, "--seed", "9" * 4000, "model.filters=1")],
)  # fmt: skip
def test_long_values_are_cut(refused, words):
    assert len(refused(*words)) < 400


def test_where_one_of_several_is_needed(refused, place):
    (place / "run.yaml").write_text("data: 3")
    assert "train.data: one of these is needed: blank, caltech256" in refused("train", "--spec", "run.yaml", *HAVE[2:])


DEEP = "[" * 3000 + "]" * 3000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.yaml", "seed: 2020-13-45"),
        ("run.yaml", "seed: 2020-12-31"),
        ("run.yaml", "seed: !!int foo"),
        ("run.yaml", "seed: !!int ''"),
        ("run.yaml", "seed: !!bool x"),
        ("run.yaml", "seed: !!timestamp foo"),
        ("run.yaml", "seed: !!set {a}"),
        ("run.yaml", f"seed: {'9' * 5000}"),
        ("run.yaml", f"seed: 0x{'f' * 5000}"),
        ("run.yaml", f"seed: -0x{'f' * 5000}"),
        ("run.json", f'{{"seed": {"9" * 5000}}}'),
        ("run.yaml", f"seed: {DEEP}"),
        ("run.json", f'{{"seed": {DEEP}}}'),
        ("run.yaml", "seed: &a [*a]"),
        ("run.yaml", "model: &a {model: *a}"),
        ("run.yaml", "model: &a {model: small_cnn, filters: *a}"),
        ("run.yaml", "defence: &a {defence: adversarial_training, attack: *a}"),
        ("run.yaml", "data: &a {data: encoded, source: *a}"),
        ("run.yaml", "&a {data: digits, init: *a}"),
        ("run.yaml", "seed: 1\nseed: 2"),
        ("run.yaml", "model: {model: small_cnn, model: ross_cnn}"),
        ("run.json", '{"seed": 1, "seed": 2}'),
        ("run.json", '{"model": {"model": "small_cnn", "model": "ross_cnn"}}'),
    ],
)
def test_odd_files(refused, place, name, content):
    (place / name).write_text(content)
    have = {"data": ["--data", "digits"], "model": ["--model", "small_cnn"], "steps": ["--steps", "3"]}
    words = [word for key, flag in have.items() if key not in content for word in flag]
    assert len(refused("train", "--spec", name, *words)) < 500


def test_a_key_that_is_there_twice_is_named(refused, place):
    for name, content in (("run.yaml", "seed: 1\nseed: 2"), ("run.json", '{"seed": 1, "seed": 2}')):
        (place / name).write_text(content)
        assert "'seed' is there twice" in refused("train", "--spec", name, *HAVE)


def test_anchors_and_merges_are_not_twice(say, place):
    (place / "run.yaml").write_text(
        "data: {data: digits, train: 60, validation: 20, test: 20}\n"
        "model: {<<: &a {model: small_cnn, filters: [9, 9, 9]}, filters: [3, 4, 5]}\nsteps: 2\n"
    )
    told = say("train", "--spec", "run.yaml", "--json", "--quiet").json()
    assert told["meta"]["task"]["model"]["filters"] == [3, 4, 5]


def test_a_folder_may_have_any_name(say, trained, place):
    shutil.copytree(trained, place / "eps=0.1")
    told = say("evaluate", "eps=0.1", *SMALL, "--json", "--quiet").json()
    assert told["accuracy"][0]["network"] == "eps=0.1"


def test_a_part_that_is_none_is_refused_before_any_work(refused, trained, say):
    for command in ("evaluate", "attack", "explain"):
        more = ["--attack", "fgsm", "eps=0.1"] if command == "attack" else []
        spoken = say(command, trained, *SMALL, *more, "--part", "bogus")
        assert spoken.code == 2
        assert len(spoken.err.splitlines()) == 1
        assert "'train', 'validation' or 'test'" in spoken.err


def test_explain_and_attack_as_they_are_by_default(say, trained, place):
    assert say("explain", trained, "--data", "digits").code == 0
    assert say("attack", trained, "--data", "digits", "--attack", "fgsm", "eps=0.1").code == 0
    assert sorted(path.name for path in place.glob("*/*.*")) == [
        "attack.png", "attack.safetensors", "explain.html", "explain.png", "explain.safetensors"
    ]  # fmt: skip


# -------------------------------------------------------------------------------------------------------- out


def commands(trained):
    return {
        "train": TRAIN,
        "attack": ("attack", trained, *SMALL, "--attack", "fgsm", "eps=0.1", "--images", "2"),
        "explain": ("explain", trained, *SMALL, "--images", "2"),
    }


@pytest.mark.parametrize("command", ["train", "attack", "explain"])
def test_out_is_refused_by_its_name(say, trained, place, command):
    (place / "note").write_text("")
    for out in ("n" * 300, "/proc/nowhere/out", "note"):
        spoken = say(*commands(trained)[command], "--out", out, "--quiet")
        assert spoken.code == 2
        assert f"--out {out} cannot be written (" in spoken.err
        assert "--store" not in spoken.err
    name = "model.safetensors" if command == "train" else f"{command}.png"
    (place / "made" / name).mkdir(parents=True)
    assert "--out made cannot be written (Is a directory)" in say(*commands(trained)[command], "--out", "made").err


def test_out_as_the_results_own_folder(say):
    folder = Path(say(*TRAIN, "--quiet").out.splitlines()[-1])
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert say(*TRAIN, "--quiet", "--out", folder).code == 0
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_copy_is_complete_or_not_there(say, place, monkeypatch):
    say(*TRAIN, "--quiet", "--out", "net")
    before = (place / "net" / "model.safetensors").read_bytes()

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    say(*TRAIN, "--seed", "1", "--quiet")
    monkeypatch.setattr(os, "fsync", full)
    spoken = say(*TRAIN, "--seed", "1", "--quiet", "--out", "net")
    assert "No space left on device" in spoken.err
    assert (place / "net" / "model.safetensors").read_bytes() == before


# ----------------------------------------------------------------------------------------------------- places


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize("seconds", [0.2, 0.5, 1.0])
def test_an_interruption_while_starting(place, seconds):
    """From the first line of the program on; the interpreter's own start is its own."""
    code = "import sys; print(flush=True); " + RUN[2].removeprefix("import sys; ")
    words = [sys.executable, "-c", f"{code}", *TRAIN[:-6], "--steps", "100000", "--quiet"]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    child.stdout.readline()
    time.sleep(seconds)
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=120)[1] == "interrupted; the same command goes on from here\n"
    assert child.returncode == 130


def test_an_interruption_of_the_work(say, monkeypatch):
    import pellucid.tasks

    monkeypatch.setattr(pellucid.tasks, "run", lambda *_: signal.raise_signal(signal.SIGINT))
    spoken = say(*TRAIN)
    assert (spoken.code, spoken.err) == (130, "interrupted; the same command goes on from here\n")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
@pytest.mark.parametrize("tail", ["| head -1", "| true", ">&-", "2>&-", "> /dev/full", "--json > /dev/full"])
def test_an_output_that_closes(place, tail):
    line = f'"$@" list {tail}'
    ran = subprocess.run(["sh", "-c", line, "sh", *RUN], capture_output=True, text=True, timeout=120)
    assert "Traceback" not in ran.stderr
    assert "Exception" not in ran.stderr


def test_without_a_home_and_a_language(place):
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
    ran = subprocess.run([*RUN, "list"], capture_output=True, text=True, env=environment, timeout=120)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "pgd" in ran.stdout


@pytest.mark.parametrize("columns", ["40", "80"])
def test_nothing_is_cut_on_a_narrow_screen(say, trained, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    words = ("evaluate", trained, *SMALL, "--attack", "fgsm", "--epsilons", "0,.1,.2,.3,.4,.5", "--quiet")
    for spoken in (say("list"), say("study", "show", "ross2018", "--no-timing"), say(*words)):
        assert spoken.code == 0
        assert "…" not in spoken.out
    assert all(len(line) <= int(columns) for line in say("list").out.splitlines())
    assert "eps 0.5" in spoken.out
    assert json.dumps(str(trained))[1:-1] in spoken.out
