"""Maps of clean images and of their adversarial examples, and how far they agree."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.guard import frozen
from pellucid.maths.notes import noted
from pellucid.metrics import kendall_tau
from pellucid.models.classifier import Classifier
from pellucid.protocols import Attack, Interpreter
from pellucid.rng import Stream


def explain_pairs(
    network: Classifier, x: Tensor, y: Tensor, attack: Attack | None, interpreters: Sequence[Interpreter], rng: Stream
) -> dict[str, Tensor]:
    """Attack images (all steps, last iterate) and map the true class before and after.

    Returns, for N images: clean, adversarial (N, C, H, W); probabilities_clean, probabilities_adversarial (N, K);
    and for interpreter number i: maps_i_clean, maps_i_adversarial and tau_i (N,), Kendall's tau-b between the two
    raw maps, NaN where a map is constant; note_NAME (N,), what the attack noted.
    Without an attack the adversarial images are the clean ones.
    """
    with noted() as notes:
        adversarial = x.clone() if attack is None else attack(network, x, y, rng=rng)
    found = {"clean": x, "adversarial": adversarial} | {f"note_{name}": values for name, values in notes.items()}
    with frozen(network), torch.no_grad():
        found |= {f"probabilities_{k}": network(found[k]).softmax(1) for k in ("clean", "adversarial")}
    for number, interpreter in enumerate(interpreters):
        clean = interpreter(network, x, y, rng=rng.child("map"))
        attacked = interpreter(network, adversarial, y, rng=rng.child("map"))
        found |= {f"maps_{number}_clean": clean, f"maps_{number}_adversarial": attacked}
        found[f"tau_{number}"] = kendall_tau(clean.flatten(1), attacked.flatten(1))
    return found
