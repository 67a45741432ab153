import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from pellucid.attacks import FGSM
from pellucid.data import Digits
from pellucid.errors import CheckpointError, DataError, SpecError, TrainingError
from pellucid.metrics import gradient_norms, predict
from pellucid.models import SmallCNN, load_classifier
from pellucid.optimisers import Adam
from pellucid.spec import digest, from_dict, to_dict
from pellucid.tasks import Checkpoint, Evaluate, Explain, Train, run
from pellucid.tasks.parquet import read_predictions

from .conftest import ATTACKED, DATA, EXPLAINED, FAST, NORMS, ROSS, SMALL, Journal

TEST = DATA.load("test")


def network(store, task):
    return load_classifier(store.folder(task))


# ------------------------------------------------------------------------------------------------------- Train


def test_a_training_is_a_folder_that_anybody_loads(filled):
    folder = filled.folder(ROSS)
    loaded = load_classifier(folder)
    assert not loaded.training
    assert loaded(TEST.images(slice(3))).shape == (3, 10)
    history = json.loads((folder / "history.json").read_text())
    assert [row["step"] for row in history] == [4, 8, 9]
    assert json.loads((folder / "config.json").read_text())["shape"] == [1, 28, 28]


def test_epochs_are_steps(filled, store):
    assert SMALL.total_steps(60) == 4 * 3
    assert replace(SMALL, batch_size=25).total_steps(60) == 4 * 2  # the rest of an epoch is dropped
    assert replace(SMALL, batch_size=500).total_steps(60) == 4
    shutil.copytree(filled.folder(SMALL).parents[1] / "data", store.root / "data")
    same = run(replace(SMALL, epochs=None, steps=12), store, FAST)
    assert same.tensors("model.safetensors").keys() == load_file(filled.folder(SMALL) / "model.safetensors").keys()
    assert (same.folder / "model.safetensors").read_bytes() == (filled.folder(SMALL) / "model.safetensors").read_bytes()


@pytest.mark.parametrize("given", [{}, {"steps": 3, "epochs": 3}])
def test_a_length_is_given_once(given):
    with pytest.raises(SpecError, match="exactly one of steps and epochs"):
        Train(data=DATA, model=SmallCNN(), **given)


def test_the_seed_decides_about_initial_weights_and_order(filled, store):
    other = run(replace(ROSS, seed=1), store, FAST)
    assert (other.folder / "model.safetensors").read_bytes() != (filled.folder(ROSS) / "model.safetensors").read_bytes()
    assert other.meta["seed"] == 1


def test_post_processing_starts_from_the_finished_network(store):
    """With a vanishing learning rate the weights stay those of the network it started from."""
    standing = replace(SMALL, epochs=None, steps=1, optimiser=replace(SMALL.optimiser, lr=1e-12), init=SMALL)
    result = run(standing, store, FAST)
    first, second = network(store, SMALL).state_dict(), load_classifier(result.folder).state_dict()
    assert all(torch.allclose(v, second[k], rtol=0, atol=1e-9) for k, v in first.items())
    fresh = run(replace(standing, init=None), store, FAST)
    assert not torch.allclose(load_classifier(fresh.folder).state_dict()["head.weight"], first["head.weight"])


def test_a_network_of_another_kind_to_start_from_is_refused(filled, store):
    shutil.copytree(filled.root, store.root)
    with pytest.raises(CheckpointError, match=r"the network to start from \(train\) is of another network"):
        run(replace(SMALL, init=ROSS), store, FAST)


# -------------------------------------------------------------------------------------------------- Checkpoint


@pytest.fixture
def folder(filled, tmp_path):
    shutil.copytree(filled.folder(SMALL), tmp_path / "net")
    return tmp_path / "net"


def test_a_checkpoint_is_known_by_its_content_not_by_its_place(folder, tmp_path):
    task = Checkpoint.of(folder)
    shutil.copytree(folder, tmp_path / "copy")
    moved = Checkpoint.of(tmp_path / "copy" / "model.safetensors")  # the file may be named too
    assert digest(moved) == digest(task)
    assert moved.path != task.path
    tensors = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(tensors[:-4] + torch.tensor(0.5).numpy().tobytes())
    assert digest(Checkpoint.of(folder)) != digest(task)


def test_a_checkpoint_is_copied_into_the_store_and_gives_the_same_results(folder, filled, store):
    task = Checkpoint.of(folder)
    ours = run(replace(NORMS, network=task), store, FAST)
    shutil.rmtree(folder)
    assert (ours.folder / "norms.parquet").read_bytes() == (filled.folder(NORMS) / "norms.parquet").read_bytes()
    assert run(replace(NORMS, network=task, images=3), store, FAST)  # from the store's own copy


def test_a_checkpoint_whose_content_changed_is_refused(folder, store):
    task = Checkpoint.of(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"classes": list("abcdefghij")}))
    with pytest.raises(CheckpointError, match="is not the network it was when the task was described"):
        run(replace(NORMS, network=task), store, FAST)
    assert not store.root.exists()


def test_a_checkpoint_that_cannot_be_read_is_refused_when_described(folder, tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint at"):
        Checkpoint.of(tmp_path / "nowhere")
    (folder / "model.safetensors").write_bytes(b"\x80\x04")
    with pytest.raises(CheckpointError, match="is a pickle"):
        Checkpoint.of(folder)


# ---------------------------------------------------------------------------------------------------- Evaluate


def test_predictions_image_by_image(filled):
    predictions, labels, epsilons = read_predictions(filled.folder(ATTACKED) / "predictions.parquet")
    assert predictions.shape == (2, 3, 25)
    assert epsilons == ATTACKED.epsilons
    assert torch.equal(labels, TEST.labels)
    maker, judge = network(filled, ROSS), network(filled, SMALL)
    x = TEST.images()
    assert torch.equal(predictions[0, 0], predict(maker, x))
    assert torch.equal(predictions[1, 0], predict(judge, x))
    changed = FGSM(eps=0.3)(maker, x, TEST.labels)
    assert torch.equal(predictions[0, 2], predict(maker, changed))
    assert torch.equal(predictions[1, 2], predict(judge, changed))


def test_the_table_names_its_rows(filled):
    table = pq.read_table(filled.folder(ATTACKED) / "predictions.parquet").to_pylist()
    assert len(table) == 2 * 3 * 25
    assert table[0].keys() == {"index", "label", "judge", "epsilon", "prediction"}
    predictions, labels, epsilons = read_predictions(filled.folder(ATTACKED) / "predictions.parquet")
    for row in table:
        place = (row["judge"], epsilons.index(row["epsilon"]), row["index"])
        assert predictions[place] == row["prediction"]
        assert labels[row["index"]] == row["label"]


def test_sizes_are_never_above_eps(filled):
    rows = pq.read_table(filled.folder(ATTACKED) / "sizes.parquet").to_pylist()
    assert len(rows) == 3 * 25
    assert all(row["linf"] <= row["epsilon"] + 1e-6 for row in rows)
    assert max(row["linf"] for row in rows) > 0.29
    assert not any(row["unstable"] for row in rows)


def test_the_size_of_the_chunks_does_not_matter(filled, store):
    shutil.copytree(filled.root, store.root)
    for chunk in (7, 1000):
        result = run(replace(ATTACKED, chunk=chunk), store, FAST)
        again, _, _ = read_predictions(result.folder / "predictions.parquet")
        assert torch.equal(again, read_predictions(filled.folder(ATTACKED) / "predictions.parquet")[0])
        assert result.meta["passes"]["backward"] == filled.open(ATTACKED).meta["passes"]["backward"]


def test_fewer_images(filled, store):
    shutil.copytree(filled.root, store.root)
    result = run(replace(ATTACKED, images=8), store, FAST)
    assert torch.equal(
        read_predictions(result.folder / "predictions.parquet")[0],
        read_predictions(filled.folder(ATTACKED) / "predictions.parquet")[0][:, :, :8],
    )


def test_clean_accuracy_needs_no_attack(filled, store):
    shutil.copytree(filled.root, store.root)
    result = run(Evaluate(network=SMALL, data=DATA, part="validation"), store, FAST)
    predictions, labels, epsilons = read_predictions(result.folder / "predictions.parquet")
    split = DATA.load("validation")
    assert epsilons == (0.0,)
    assert torch.equal(labels, split.labels)
    assert torch.equal(predictions[0, 0], predict(network(filled, SMALL), split.images()))
    assert result.meta["passes"]["backward"] == 0


def test_accuracy_so_far_is_told(filled, store):
    shutil.copytree(filled.root, store.root)
    told = []

    class Listener(Journal):
        def progressed(self, done, total, **numbers):
            told.append((done, total, numbers["accuracy"]))

    result = run(replace(ATTACKED, chunk=9), store, FAST, Listener())
    predictions, labels, _ = read_predictions(result.folder / "predictions.parquet")
    right = predictions[0, -1] == labels
    assert told == [(n, 25, pytest.approx(float(right[:n].float().mean()))) for n in (9, 18, 25)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"epsilons": ()}, "numbers from 0 on, ascending"),
        ({"epsilons": (0.2, 0.1)}, "numbers from 0 on, ascending"),
        ({"epsilons": (0.1, 0.1)}, "numbers from 0 on, ascending"),
        ({"epsilons": (-0.1, 0.1)}, "numbers from 0 on, ascending"),
        ({"attack": None}, "needs an attack for any eps but 0"),
        ({"chunk": 0}, "chunk"),
        ({"images": 0}, "images"),
        ({"network": "fgsm"}, "there is no task called 'fgsm'"),
        ({"network": FGSM(eps=0.1)}, "one of these is needed"),
        ({"seed": -1}, "seed"),
        ({"seed": True}, "not a truth value"),
    ],
)
def test_evaluations_that_make_no_sense_are_refused(given, said):
    with pytest.raises(SpecError, match=said):
        replace(ATTACKED, **given)


@pytest.mark.parametrize(
    ("given", "attack", "epsilons"),
    [
        ({}, FGSM(eps=0.1), (0.1,)),  # as described
        ({"epsilons": (0.0, 0.2, 0.3)}, FGSM(eps=0.3), (0.0, 0.2, 0.3)),  # within a grid its own says nothing
        ({"attack": None}, None, (0.0,)),
    ],
)
def test_an_evaluation_is_said_in_one_way(given, attack, epsilons):
    task = Evaluate(**{"network": ROSS, "data": DATA, "attack": FGSM(eps=0.1)} | given)
    assert (task.attack, task.epsilons) == (attack, epsilons)
    assert from_dict(to_dict(task)) == task
    if attack is not None:
        assert digest(task) == digest(replace(task, attack=FGSM(eps=0.2), epsilons=epsilons))


def test_white_box_is_a_flag_which_is_on_without_judges():
    alone = Evaluate(network=ROSS, data=DATA, attack=FGSM(eps=0.1))
    assert (alone.stop_when_fooled, ATTACKED.stop_when_fooled) == (True, False)
    assert Evaluate(network=ROSS, data=DATA).stop_when_fooled is False
    for task, flag in ((alone, False), (ATTACKED, True)):
        given = replace(task, stop_when_fooled=flag)
        assert given.stop_when_fooled is flag
        assert digest(given) != digest(task)
    assert digest(replace(alone, stop_when_fooled=True)) == digest(alone)


def test_the_flag_reaches_the_attack(filled, store):
    shutil.copytree(filled.root, store.root)
    found = [run(replace(ATTACKED, stop_when_fooled=flag), store, FAST) for flag in (True, False)]
    sizes = [pq.read_table(result.folder / "sizes.parquet").to_pydict() for result in found]
    spared = [sum(size == 0 for size in table["linf"]) for table in sizes]
    assert spared[0] > spared[1] == 25  # those at eps 0


def test_a_training_that_stops_leaves_its_last_good_network(store):
    with pytest.raises(TrainingError, match="it is the checkpoint ") as caught:
        run(replace(ROSS, optimiser=Adam(lr=3e38, beta1=0)), store, FAST)
    folder = Path(str(caught.value).rsplit("checkpoint ", 1)[1])
    assert folder.name == "last_good"
    kept = load_classifier(folder)
    assert all(bool(torch.isfinite(value).all()) for value in kept.state_dict().values())


def test_an_unknown_part_is_refused_and_nothing_is_written(store, folder):
    with pytest.raises(SpecError, match="part: should be 'train', 'validation' or 'test'"):
        run(Evaluate(network=Checkpoint.of(folder), data=DATA, part="tset"), store, FAST)
    assert not store.root.exists()


@pytest.mark.parametrize(
    "config",
    [{"shape": [1, 14, 14]}, {"classes": list("0123456789a")}, {"shape": [3, 28, 28]}],
    ids=["another size", "another number of classes", "colour"],
)
@pytest.mark.parametrize("role", ["network", "judge", "explain", "norms"])
def test_a_network_made_for_other_images_is_refused(filled, store, tmp_path, config, role):
    """A network with pooled features would take images of any size without a word."""
    from pellucid.models import save_classifier
    from pellucid.rng import global_seed

    shape = tuple(config.get("shape", (1, 28, 28)))
    classes = tuple(config.get("classes", "0123456789"))
    with global_seed(0):
        other = SMALL.model.build(shape[0], shape[1:], len(classes))
    (tmp_path / "net").mkdir()
    save_classifier(tmp_path / "net", other, SMALL.model, shape, classes)
    stranger = Checkpoint.of(tmp_path / "net")
    fitting = Checkpoint.of(filled.folder(SMALL))
    task = {
        "network": replace(ATTACKED, network=stranger, judges=()),
        "judge": replace(ATTACKED, network=fitting, judges=(stranger,)),
        "explain": replace(EXPLAINED, network=stranger),
        "norms": replace(NORMS, network=stranger),
    }[role]
    with pytest.raises(DataError, match=r"the network was made for images .* digits has images \(1, 28, 28\) of 10"):
        run(task, store, FAST)
    assert not store.root.exists()


# ---------------------------------------------------------------------------------------- Explain, InputGradients


def test_maps_of_the_first_images(filled):
    maps = filled.open(EXPLAINED).tensors("maps.safetensors")
    loaded, x, y = network(filled, SMALL), TEST.images(slice(12)), TEST.labels[:12]
    assert torch.equal(maps["labels"], y)
    assert torch.equal(maps["clean"], x)
    assert ((maps["adversarial"] - x).abs().flatten(1).amax(1) <= 0.1 + 1e-6).all()
    assert torch.allclose(maps["probabilities_clean"], loaded(x).softmax(1).detach(), atol=1e-6)
    assert torch.allclose(maps["maps_1_clean"], EXPLAINED.interpreters[1](loaded, x, y[:, None]), atol=1e-6)
    assert torch.equal(maps["targets"], y[:, None])
    assert maps["tau_0"].shape == maps["tau_1"].shape == (12, 1)
    said = filled.open(EXPLAINED).json("explained.json")
    assert said == {"classes": ["true"], "names": list(TEST.classes), "decisions": [], "images": None}


def test_random_numbers_belong_to_the_image_not_to_the_chunk(filled, store):
    """PGD starts at random: cut otherwise, every image is attacked from the same place."""
    shutil.copytree(filled.root, store.root)
    again = run(replace(EXPLAINED, chunk=12), store, FAST).tensors("maps.safetensors")
    maps = filled.open(EXPLAINED).tensors("maps.safetensors")
    assert torch.allclose(again["adversarial"], maps["adversarial"], atol=1e-6)
    other = run(replace(EXPLAINED, seed=1), store, FAST).tensors("maps.safetensors")
    assert not torch.allclose(other["adversarial"], maps["adversarial"], atol=1e-3)


def test_norms_at_the_true_and_at_the_next_label(filled):
    rows = pq.read_table(filled.folder(NORMS) / "norms.parquet").to_pydict()
    expected = gradient_norms(network(filled, SMALL), TEST.images(slice(12)), TEST.labels[:12])
    assert rows["index"] == list(range(12))
    assert rows["true"] == pytest.approx(expected.true.tolist(), rel=1e-5)
    assert rows["next"] == pytest.approx(expected.next.tolist(), rel=1e-5)


# ------------------------------------------------------------------------------------------------- descriptions


@pytest.mark.parametrize("task", [ROSS, SMALL, ATTACKED, EXPLAINED, NORMS], ids=lambda task: type(task).__name__)
def test_tasks_survive_json(task):
    again = from_dict(json.loads(json.dumps(to_dict(task))))
    assert again == task
    assert digest(again) == digest(task)


def test_the_place_of_a_task_follows_its_inputs():
    assert digest(replace(ATTACKED, network=replace(ROSS, seed=1))) != digest(ATTACKED)
    assert digest(replace(ATTACKED, data=Digits(test=24))) != digest(ATTACKED)
    assert digest(Explain(network=SMALL, data=DATA, interpreters=("gradient",))) == digest(
        Explain(network=SMALL, data=DATA, interpreters=({"interpreter": "gradient"},), part="test", images=100)
    )
