"""The rule of lambda: made-up results against choices made by hand, and real networks."""

import json
from dataclasses import replace

import pytest
import torch

from pellucid.attacks import FGSM, PGD, DeepFool
from pellucid.errors import SpecError
from pellucid.metrics import bootstrap_mean, predict, wilson
from pellucid.models import load_classifier
from pellucid.models.checkpoint import CONFIG, WEIGHTS
from pellucid.spec import digest, from_dict, to_dict
from pellucid.store import Result, Store
from pellucid.studies.ross2018_tables import Numbers
from pellucid.tasks import Checkpoint, Evaluate, ImportedNetwork, Io, run
from pellucid.tasks.parquet import write_predictions
from pellucid.tasks.selecting import Selection

from .conftest import DATA, FAST, ROSS, SMALL

N = 100
NORMAL, *NETWORKS = (Checkpoint(sha256=str(number)) for number in range(5))


def selection(count, **fields):
    return Selection(candidates=tuple(NETWORKS[:count]), normal=NORMAL, data=DATA, **fields)


def right(*counts, n=N):
    """Return bool (1 + J, 1 + E, N) with so many images right, for each network and eps."""
    return torch.stack([torch.stack([torch.arange(n) < count for count in row]) for row in counts])


class MadeUpIo:
    """Stands where `Io` would: stored predictions that nobody made, and networks that are only their names."""

    def __init__(self, folder, task, correct):
        self.folder, self.scratch = folder, folder / "scratch"
        self.scratch.mkdir()
        labels = torch.arange(correct.shape[2]) % 10
        predictions = torch.where(correct, labels, (labels + 1) % 10).short()
        at = self._at(task.evaluation)
        write_predictions(at / "predictions.parquet", predictions, labels, task.evaluation.epsilons)
        for network in task.candidates:
            for name in (WEIGHTS, CONFIG):
                (self._at(network) / name).write_text(f"{name} of {network.sha256}")

    def _at(self, task):
        (self.folder / digest(task)).mkdir(exist_ok=True)
        return self.folder / digest(task)

    def result(self, task):
        return Result(self._at(task), {})


CASES = {
    # of 90 the normal network's own, 97 % are 87.3: the second is best under attack and fails by one image
    "binding": ({}, [(90, 50, 20, 10), (88, 40, 20, 10), (87, 60, 50, 40), (95, 30, 25, 5)], [0, 2], 0),
    "not binding": ({}, [(80, 50, 20, 10), (88, 40, 20, 10), (87, 60, 50, 40), (95, 30, 25, 5)], [0, 1, 2], 1),
    "tie": ({}, [(90, 50, 20, 10), (88, 10, 10, 9), (89, 40, 20, 10), (95, 30, 25, 15)], [0, 1, 2], 1),
    "none": ({}, [(90, 50, 20, 10), (40, 40, 20, 10), (60, 0, 0, 0), (60, 30, 25, 15)], [], 1),
    "absolute": (
        {"relation": "absolute"}, [(90, 50, 20, 10), (88, 40, 20, 10), (97, 5, 0, 0), (96, 30, 25, 5)], [1], 1,
    ),
    "absolute, none": (
        {"relation": "absolute"}, [(90, 50, 20, 10), (88, 40, 20, 10), (87, 60, 50, 40), (95, 30, 25, 5)], [], 2,
    ),
    "exactly 97 %": ({}, [(100, 0, 0, 0), (97, 1, 0, 0), (96, 2, 0, 0)], [0], 0),
    "exactly 7 %, which floats miss": ({"keep_share": 0.07}, [(100, 0, 0, 0), (7, 1, 0, 0), (6, 2, 0, 0)], [0], 0),
    "everybody": ({"keep_share": 0}, [(100, 0, 0, 0), (97, 1, 0, 0), (0, 2, 0, 0)], [0, 1], 1),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "counts", "qualified", "chosen"), CASES.values(), ids=CASES)
def test_choices_made_by_hand(tmp_path, fields, counts, qualified, chosen):
    task = selection(len(counts) - 1, **fields)
    io = MadeUpIo(tmp_path, task, right(*counts))
    files = task.run(io)
    assert sorted(files) == [CONFIG, WEIGHTS, "selection.json"]
    for name in (WEIGHTS, CONFIG):
        assert (io.scratch / name).read_text() == f"{name} of {NETWORKS[chosen].sha256}"
    said = json.loads((io.scratch / "selection.json").read_text())
    assert said["chosen"] == chosen
    assert said["network"] == digest(NETWORKS[chosen])
    assert [place for place, one in enumerate(said["candidates"]) if one["qualifies"]] == qualified
    if qualified:
        assert said["reason"] == f"highest score of the {len(qualified)} that qualify"
    else:
        assert said["reason"].startswith("none qualifies")


def test_every_number_is_said_with_its_interval():
    counts = [(90, 50, 20, 10), (88, 40, 20, 10)]
    said = selection(1).judge(right(*counts))
    assert said["needed"] == pytest.approx(0.873)
    assert selection(1, relation="absolute").judge(right(*counts))["needed"] == 0.97
    for numbers, row in zip((said["normal"], *said["candidates"]), counts):
        assert numbers["clean"] == wilson(row[0], N)._asdict()
        assert numbers["attacked"] == [
            {"epsilon": eps, **wilson(count, N)._asdict()} for eps, count in zip((0.1, 0.2, 0.3), row[1:])
        ]
        assert numbers["score"]["value"] == pytest.approx(sum(row[1:]) / (3 * N))
        per_image = [(int(n < row[1]) + int(n < row[2]) + int(n < row[3])) / 3 for n in range(N)]
        assert numbers["score"] == pytest.approx(bootstrap_mean(per_image)._asdict())
    assert said["part"] == "validation"
    assert said["images"] == N


def test_the_rule_in_words():
    said = selection(1).rule()
    assert "eps 0.1, 0.2, 0.3 on fgsm examples made for the normal network" in said
    assert "at least 97 % of the normal network's; " in said
    assert "at least 50 %; " in selection(1, relation="absolute", keep_share=0.5).rule()


@pytest.mark.parametrize("seed", range(40))
def test_it_chooses_as_the_study_does(seed):
    """The rule that the Ross & Doshi-Velez study has of its own, on numbers without ties."""
    own = torch.Generator().manual_seed(seed)
    shares = torch.rand(5, 4, 1, generator=own) * torch.tensor([0.06, 0.5, 0.5, 0.5])[:, None]
    shares[:, 0] += 0.9 if seed % 4 else 0.5 * (torch.arange(5) == 0)[:, None]  # every fourth: none qualifies
    correct = torch.rand(5, 4, 997, generator=own) < shares
    names = ("normal", "adv. trained", "a", "b", "c", "d")
    study = Numbers(
        labels=names,
        lambdas=(),
        epsilons=(0.0, 0.1, 0.2, 0.3),
        correct={},
        selection=dict(zip(("normal", *names[2:]), correct)),
        norms={},
        history={},
    )
    said = selection(4).judge(correct)
    assert names[2 + said["chosen"]] == study.selected
    assert [names[2 + p] for p, one in enumerate(said["candidates"]) if one["qualifies"]] == study.eligible


# ------------------------------------------------------------------------------------------------------ descriptions


def test_one_measurement_of_examples_made_for_the_normal_network():
    task = selection(2)
    assert task.evaluation == Evaluate(
        network=NORMAL,
        judges=tuple(NETWORKS[:2]),
        data=DATA,
        part="validation",
        attack=FGSM(eps=0.3),
        epsilons=(0.0, 0.1, 0.2, 0.3),
        stop_when_fooled=False,
    )
    assert digest(selection(2, evaluation=selection(1).evaluation)) == digest(task)
    assert replace(task, attack=PGD(eps=0.9)).evaluation.attack == PGD(eps=0.3)


def test_selections_survive_json():
    task = selection(2, relation="absolute", attack=PGD(eps=0.1))
    again = from_dict(json.loads(json.dumps(to_dict(task))), "task")
    assert again == task
    assert digest(again) == digest(task)
    by_hand = {
        "task": "selection",
        "candidates": [to_dict(network) for network in NETWORKS[:2]],
        "normal": to_dict(NORMAL),
        "data": to_dict(DATA),
    }
    assert digest(from_dict(by_hand)) == digest(selection(2))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"candidates": ()}, "task selection.candidates: at least one network is needed"),
        (
            {"candidates": (SMALL, ROSS, SMALL)},
            "task selection.candidates: small_cnn filters=(3, 4, 5), standard is th",
        ),
        ({"candidates": (Evaluate(network=ROSS, data=DATA),)}, "a task that makes a network is needed"),
        ({"candidates": (ImportedNetwork(reference="a:b", sha256="0"),)}, "imported_network is code, no files to copy"),
        ({"epsilons": ()}, "task selection.epsilons must be numbers above 0"),
        ({"epsilons": (0.0, 0.1)}, "task selection.epsilons must be numbers above 0"),
        ({"epsilons": (0.2, 0.1)}, "ascending, none twice"),
        ({"keep_share": 97}, "task selection.keep_share"),
        ({"relation": "both"}, "task selection.relation"),
        ({"attack": DeepFool()}, "attack deepfool has no eps to vary"),
    ],
)
def test_refused_in_one_sentence(wrong, said):
    with pytest.raises(SpecError) as refusal:
        Selection(**{"candidates": (SMALL,), "normal": ROSS, "data": DATA} | wrong)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


# --------------------------------------------------------------------------------------------------- real networks


def test_the_chosen_network_is_a_network(filled, tmp_path):
    """Judged on examples made for another; its result is read, measured and chosen from like any network."""
    store = Store(filled.root)
    task = Selection(candidates=(replace(SMALL, seed=5), SMALL), normal=ROSS, data=DATA, keep_share=0)
    result = run(task, store, FAST)
    said = result.json("selection.json")
    split = DATA.load("validation")
    x, y = split.images(slice(None)), split.labels
    maker = load_classifier(store.folder(ROSS))
    moved = [FGSM(eps=eps)(maker, x, y) for eps in (0.1, 0.2, 0.3)]
    shares = []
    for network, numbers in zip((ROSS, *task.candidates), (said["normal"], *said["candidates"])):
        judge = load_classifier(store.folder(network))
        assert numbers["clean"]["value"] == pytest.approx(float((predict(judge, x) == y).float().mean()))
        found = [float((predict(judge, images) == y).float().mean()) for images in moved]
        assert [cell["value"] for cell in numbers["attacked"]] == pytest.approx(found)
        shares.append(sum(found))
    assert shares[1 + said["chosen"]] == max(shares[1:])

    chosen = task.candidates[said["chosen"]]
    own, copy = load_classifier(store.folder(chosen)), load_classifier(result.folder)
    assert torch.equal(own(x), copy(x))
    again = Evaluate(network=task, data=DATA, images=4)
    assert torch.equal(Io(again, store, FAST).network(task)(x), own(x))
    run(again, store, FAST)
    assert Selection(candidates=(task,), normal=ROSS, data=DATA).candidates == (task,)
