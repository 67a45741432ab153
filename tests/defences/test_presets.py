"""Training methods under the names that people know them by: each is the paper's, spelled out."""

import json

import pytest

from pellucid.attacks import FGSM, PGD, StAdv
from pellucid.defences import AdversarialTraining, InterpretabilityAware
from pellucid.errors import SpecError
from pellucid.spec import brief, digest, from_dict, names, presets, to_dict

PAPERS = {
    # Ross & Doshi-Velez 2018: FGSM away from the prediction, in train mode, half and half.
    "fgsm_training": AdversarialTraining(
        attack=FGSM(eps=0.3, labels="predicted", mode="train"), share=0.5, batches="separate"
    ),
    # Boopathy et al. 2020, Adv on MNIST.
    "pgd_training": AdversarialTraining(
        attack=PGD(norm="linf", eps=0.3, steps=40, step_size=0.01, random_start=True), share=1
    ),
    # Zhang & Zhu 2019, their code on CIFAR-10: l2 radius 1.2 with sign steps of 6/255.
    "pgd_l2_training": AdversarialTraining(
        attack=PGD(
            norm="l2",
            eps=1.2,
            steps=20,
            step_size="6/255",
            random_start=False,
            direction="sign",
            order="box_ball",
            mode="eval",
        ),
        share=1,
        batches="alternate",
    ),
    "stadv_training": AdversarialTraining(attack=StAdv(form="zhang"), share=1, batches="alternate"),
    "zhang_pgd_training": AdversarialTraining(
        attack=PGD(eps=8 / 255, step_size=4 / 255, steps=20, random_start=False), share=1, batches="alternate"
    ),
    "zhang_fgsm_training": AdversarialTraining(attack=FGSM(eps=8 / 255), share=1, batches="alternate"),
    # Boopathy et al. 2020, section 5.
    "int_one_class": InterpretabilityAware(classes="one", inner="discrepancy", adversarial=False),
    "int": InterpretabilityAware(classes="all", inner="discrepancy", adversarial=False),
    "int_adv": InterpretabilityAware(classes="all", inner="discrepancy", adversarial=True),
    "int2": InterpretabilityAware(classes="all", inner="cross_entropy", adversarial=False),
    "int2_adv": InterpretabilityAware(classes="all", inner="cross_entropy", adversarial=True),
}


def test_these_are_the_names():
    assert presets("defence") == dict(sorted(PAPERS.items()))
    assert list(presets("defence")) == sorted(PAPERS)
    assert not set(PAPERS) & set(names("defence"))


@pytest.mark.parametrize("name", PAPERS)
def test_a_name_has_the_digest_of_what_it_stands_for(name):
    for found in (from_dict(name, "defence"), from_dict({"defence": name})):
        assert found == PAPERS[name]
        assert digest(found) == digest(PAPERS[name])


@pytest.mark.parametrize("name", PAPERS)
def test_stored_descriptions_are_spelled_out(name):
    stored = to_dict(from_dict(name, "defence"))
    assert stored["defence"] == ("interpretability_aware" if name.startswith("int") else "adversarial_training")
    assert from_dict(json.loads(json.dumps(stored))) == PAPERS[name]


def test_the_other_fields_stay_where_one_is_changed():
    changed = from_dict({"defence": "int2", "weight": 0.02})
    assert changed == InterpretabilityAware(inner="cross_entropy", weight=0.02)
    assert digest(changed) == digest(
        from_dict({"defence": "interpretability_aware", "inner": "cross_entropy", "weight": 0.02})
    )
    assert from_dict({"defence": "int2_adv", "inner": "discrepancy"}) == PAPERS["int_adv"]
    assert from_dict("int2", "defence") == PAPERS["int2"]  # and the name itself stays what it was


def test_names_are_read_where_a_description_is_held():
    held = from_dict({"defence": "semi_supervised", "inner": "int_adv weight=0.5", "labelled": 0.1}).inner
    assert held == InterpretabilityAware(adversarial=True, weight=0.5)
    task = from_dict({"task": "train", "data": "digits", "model": "small_cnn", "steps": 1, "defence": "pgd_training"})
    assert task.defence == PAPERS["pgd_training"]
    assert brief(task.defence).startswith("adversarial_training")


def test_wrong_fields_are_refused_by_the_class_and_wrong_names_list_these():
    with pytest.raises(SpecError, match="defence interpretability_aware has no field 'gamma'"):
        from_dict({"defence": "int", "gamma": 0.1})
    with pytest.raises(SpecError, match=r"interpretability_aware\.weight"):
        from_dict({"defence": "int", "weight": -1})
    with pytest.raises(SpecError) as refused:
        from_dict("int3", "defence")
    known = str(refused.value).partition("known: ")[2].split(", ")
    assert known == sorted([*names("defence"), *PAPERS])
