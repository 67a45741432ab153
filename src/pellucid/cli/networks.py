"""The networks that a command line names: folders of checkpoints, or code that makes one."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.cli.fields import apply_words
from pellucid.errors import SpecError

if TYPE_CHECKING:
    from pellucid.cli.common import Common
    from pellucid.models import Classifier

NETWORK = "A checkpoint folder, or code that makes a network (package.module:attribute)"


def named_networks(words: Sequence[str], fields: Sequence[str]) -> tuple[list[Any], list[str]]:
    """Return a task for each network, and the fields that are not about networks.

    `model.mean=0.5 model.feature_layer=layer4 model.head=fc` belong to all networks that code makes, as `adapt`
    takes them; a checkpoint knows its own. Only what is named here is imported, from the current folder too.
    """
    from pellucid.tasks import Checkpoint, ImportedNetwork
    from pellucid.tasks.imported import is_reference

    own = [word for word in fields if word.startswith("model.")]
    code = [word for word in words if is_reference(word) and not os.path.exists(word)]
    if own and not code:
        raise SpecError(
            f"{own[0]} is for networks that code makes (package.module:attribute); a checkpoint is complete"
        )
    options = apply_words({"model": {}}, own, "model")["model"]
    tasks = [ImportedNetwork.of(word, **options) if word in code else Checkpoint.of(word) for word in words]
    return tasks, [word for word in fields if word not in own]


def live(task: Any, common: "Common") -> "Classifier":
    """Return the network of a task, in eval mode on the device, before anything is in the store."""
    from pellucid.models import load_classifier
    from pellucid.tasks import Io
    from pellucid.tasks.io import Opens

    io = Io(task, common.open_store(), common.options())
    return task.open(io) if isinstance(task, Opens) else load_classifier(task.path).to(io.device)


def own_shape(task: Any) -> tuple[int, int, int] | None:
    """Return channels, height and width of the images a checkpoint was made for; None for what code makes."""
    from pellucid.models.checkpoint import CONFIG
    from pellucid.store import read_json
    from pellucid.tasks import Checkpoint

    if not isinstance(task, Checkpoint):
        return None
    channels, height, width = read_json(Path(task.path) / CONFIG)["shape"]
    return channels, height, width
