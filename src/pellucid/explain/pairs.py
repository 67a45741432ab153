"""Images and their adversarial examples, explained by several interpreters: what all that explains is built on."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pellucid.errors import PellucidError
from pellucid.guard import check_logits, frozen
from pellucid.maths.notes import noted
from pellucid.metrics import kendall_tau
from pellucid.models import Classifier
from pellucid.protocols import Attack, Interpreter
from pellucid.rng import Stream


def explain_pairs(
    network: Classifier,
    x: Tensor,
    targets: Tensor,
    attack: Attack | None,
    interpreters: Sequence[Interpreter],
    rng: Stream,
    labels: Tensor | None = None,
) -> dict[str, Tensor]:
    """Attack images (all steps, last iterate) and map the target classes before and after.

    x (N, C, H, W), targets (N, M), labels (N,) for the attack: without them it attacks the predicted class.
    Returns clean (N, C, H, W); probabilities_clean (N, K); targets; and for interpreter number i maps_i_clean
    (N, M, ...). With an attack also adversarial, probabilities_adversarial, maps_i_adversarial for the same
    classes; tau_i (N, M), Kendall's tau-b between the two raw maps, NaN where a map is constant; and note_NAME (N,),
    what the attack noted.
    """
    found = {"clean": x, "targets": targets, "probabilities_clean": probabilities(network, x)}
    for number, interpreter in enumerate(interpreters):
        found[f"maps_{number}_clean"] = interpreter(network, x, targets, rng=rng.child("map"))
    if attack is None:
        return found
    aim = found["probabilities_clean"].argmax(1) if labels is None else labels
    with noted() as notes:
        adversarial = attack(network, x, aim, rng=rng)
    found |= {f"note_{name}": values for name, values in notes.items()}
    found |= {"adversarial": adversarial, "probabilities_adversarial": probabilities(network, adversarial)}
    for number, interpreter in enumerate(interpreters):
        attacked = interpreter(network, adversarial, targets, rng=rng.child("map"))
        before, after = (maps.flatten(0, 1).flatten(1) for maps in (found[f"maps_{number}_clean"], attacked))
        found[f"maps_{number}_adversarial"] = attacked
        found[f"tau_{number}"] = kendall_tau(before, after).view(targets.shape)
    return found


def probabilities(network: nn.Module, x: Tensor) -> Tensor:
    """Return the softmax (N, K) of the logits, for show: classes are chosen by the logits, which do not underflow."""
    return logits_of(network, x).softmax(1)


def logits_of(network: nn.Module, x: Tensor) -> Tensor:
    """Return the logits (N, K), the network frozen in eval mode; raise InputError where they are not finite."""
    with frozen(network), torch.no_grad():
        return check_logits(network(x), x)


def refusal(network: nn.Module, x: Tensor, interpreter: Interpreter) -> PellucidError | None:
    """Return why an interpreter cannot explain this network, None if it can; x (N, C, H, W) is one image or few.

    CAM refuses a network without a linear head on pooled features, GradCAM one without feature maps.
    """
    try:
        interpreter(network, x, torch.zeros(len(x), 1, dtype=torch.int64, device=x.device), rng=Stream(0))
    except PellucidError as error:
        return error
    return None


def joined(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors of all parts in one; what not every part has (an attack need not note anything) is left."""
    everywhere = [key for key in parts[0] if all(key in part for part in parts)]
    return {key: torch.cat([part[key] for part in parts]) for key in everywhere}
