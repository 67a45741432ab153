"""The trainings of the Jakubovitz & Giryes study: networks of both data sets, sweeps of the appendices, other seeds."""

from dataclasses import replace

from pellucid.attacks import FGSM
from pellucid.defences import AdversarialTraining, CrossLipschitz, DoubleBackprop, JacobianRegularization, Standard, Sum
from pellucid.protocols import Defence
from pellucid.studies.jakubovitz2018_claims import ADVERSARIAL, NONE, PENALTIES, after, combined, regular
from pellucid.studies.jakubovitz2018_scales import SCALES, Half
from pellucid.tasks import Train

CONTROL = f"{NONE}, trained on"
HIDDEN, POOLED = "L-1, hidden units", "L-2, last pooling"
PERTURBED = "logits, at FGSM images"


def networks(scale_name: str) -> dict[str, Train]:
    """Return the training of every network of Tables 1 to 3, and of a control."""
    half = SCALES[scale_name].mnist
    whole = half.steps + half.more
    undefended = _train(half, Standard(), half.steps)
    found = {
        NONE: undefended,
        CONTROL: _train(half, Standard(), half.more, undefended),
        ADVERSARIAL: _train(half, adversarial(half), whole),
    }
    for name, penalty in zip(PENALTIES, penalties(half), strict=True):
        both = Sum(defences=(adversarial(half), penalty))
        found[regular(name)] = _train(half, penalty, whole)
        found[after(name)] = _train(half, penalty, half.more, undefended)
        found[combined(name)] = _train(half, both, half.more, undefended)
    return found


def cifar_networks(scale_name: str) -> dict[str, Train]:
    """Return the training of every network of Table 4, and of a control: all post-processing of the undefended one."""
    half = SCALES[scale_name].cifar
    undefended = _train(half, Standard(), half.steps)

    def later(defence: Defence) -> Train:
        return _train(half, defence, half.more, undefended)

    found = {NONE: undefended, CONTROL: later(Standard()), ADVERSARIAL: later(adversarial(half))}
    for name, penalty in zip(PENALTIES, penalties(half), strict=True):
        found[after(name)] = later(penalty)
        found[combined(name)] = later(Sum(defences=(adversarial(half), penalty)))
    return found


def layer_networks(scale_name: str) -> dict[str, Train]:
    """Return post-processing with the Jacobian of the logits, of layers before them, and at perturbed images."""
    half = SCALES[scale_name].mnist
    undefended, penalty = networks(scale_name)[NONE], penalties(half)[2]
    forms = {
        "logits": penalty,
        HIDDEN: replace(penalty, layer="dense.2", projections=10),
        POOLED: replace(penalty, layer="convolutions.5", projections=10),
        PERTURBED: replace(penalty, at="perturbed", attack=FGSM(eps=half.eps)),
    }
    return {name: _train(half, form, half.more, undefended) for name, form in forms.items()}


def fraction_networks(scale_name: str) -> dict[str, Train]:
    """Return post-processing with the Jacobian and with different shares of perturbed inputs in the mini-batch."""
    scale = SCALES[scale_name]
    half, trained = scale.mnist, networks(scale_name)
    found = {0.0: trained[after("Jacobian")], 0.5: trained[combined("Jacobian")]}
    for share in scale.fractions:
        both = Sum(defences=(adversarial(half, share), penalties(half)[2]))
        found[share] = _train(half, both, half.more, trained[NONE])
    return {f"{share:g}": found[share] for share in sorted(found)}


def lambda_networks(scale_name: str) -> dict[str, Train]:
    """Return post-processing with the Jacobian at different weights; 0 is the control."""
    scale = SCALES[scale_name]
    half, trained = scale.mnist, networks(scale_name)
    found = {0.0: trained[CONTROL], half.weights[2]: trained[after("Jacobian")]}
    for weight in scale.lambdas:
        found[weight] = _train(half, replace(penalties(half)[2], weight=weight), half.more, trained[NONE])
    return {f"{weight:g}": found[weight] for weight in sorted(found)}


def reseeded(scale_name: str) -> dict[str, tuple[Train, ...]]:
    """Return the trainings of three networks on MNIST from every seed, the study's own first."""
    trained, seeds = networks(scale_name), SCALES[scale_name].seeds
    return {
        name: (trained[name], *(_with_seed(trained[name], seed) for seed in seeds))
        for name in (NONE, after("Jacobian"), ADVERSARIAL)
    }


def penalties(half: Half) -> tuple[Defence, Defence, JacobianRegularization]:
    """Return the three penalties, in the order of their names."""
    first, second, third = half.weights
    return (
        DoubleBackprop(weight=first),
        CrossLipschitz(weight=second, examples=half.examples),
        JacobianRegularization(weight=third, normalisation="mean", examples=half.examples),
    )


def adversarial(half: Half, fraction: float = 0.5) -> AdversarialTraining:
    """Return adversarial training with that fraction of perturbed inputs in the mini-batch."""
    return AdversarialTraining(attack=FGSM(eps=half.eps), batches="mixed", share=fraction)


def _with_seed(task: Train, seed: int) -> Train:
    return replace(task, seed=seed, init=None if task.init is None else _with_seed(task.init, seed))


def _train(half: Half, defence: Defence, steps: int, init: Train | None = None) -> Train:
    return Train(
        data=half.data,
        model=half.model,
        defence=defence,
        optimiser=half.optimiser,
        steps=steps,
        batch_size=half.batch_size,
        images=half.images,
        log_every=half.log_every,
        precision=half.precision,
        init=init,
    )
