"""Checkpoints on the Hugging Face hub. The hub's client is imported when it is needed, never before."""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pellucid.errors import CheckpointError
from pellucid.models.card import CARD, README, markdown
from pellucid.models.checkpoint import CONFIG, WEIGHTS, checkpoint_folder, load_with_config
from pellucid.models.classifier import Classifier

FILES = (WEIGHTS, CONFIG, CARD, README, "history.json")
"""All that is uploaded, and all that is ever fetched: nothing that would have to be unpickled or run."""

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
_REPO = re.compile(rf"(?!.*(?:--|\.\.|\.git$))(?=.{{3,96}}$){_NAME}/{_NAME}")
_REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9_.+/-]*")


def push_to_hub(
    folder: str | Path,
    repo: str,
    *,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    message: str = "Upload a network trained with Pellucid",
    licence: str | None = None,
) -> str:
    """Upload a checkpoint folder to owner/name in one commit; return the address that `load_classifier` reads.

    The repository, and the branch `revision`, are made where they are missing. Only model.safetensors, config.json
    and, where they are there, card.json, README.md and history.json are uploaded. A card that nobody edited is
    uploaded with the address in its code block and with the licence, where one is given.

    Raises CheckpointError for a folder that is no checkpoint, a name that is no repository, an edited card where a
    licence was to be written in, a public repository where a private one was asked for, and if the upload fails.
    """
    address = _address(repo, revision)
    folder = checkpoint_folder(folder)
    load_with_config(folder)
    content = _described(folder, address, licence)
    with _reached(address, "uploaded"):
        from huggingface_hub import CommitOperationAdd, HfApi  # late: only who uploads pays for the import

        api = HfApi(token=token)
        api.create_repo(repo, private=private, exist_ok=True)
        if private and not api.repo_info(repo).private:  # it was there before
            raise CheckpointError(f"{repo} is public: make it private on the hub first, or choose another name")
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        files = [
            CommitOperationAdd(name, content.get(name, folder / name)) for name in FILES if (folder / name).is_file()
        ]
        api.create_commit(repo, files, commit_message=message, revision=revision)
    return address


def load_from_hub(repo: str, *, revision: str | None = None, cache: str | Path | None = None) -> Classifier:
    """Load a network from the repository owner/name, in eval mode, on CPU; `revision` is a branch, tag or commit.

    `cache` is the folder where the client keeps files (its own by default); what lies there is not fetched again.
    Raises CheckpointError if it cannot be fetched or is no checkpoint of Pellucid. Pickled weights are not fetched.
    """
    return load_with_config(fetch(repo, revision, cache))[0]


def parse(address: str) -> tuple[str, str | None]:
    """Return repository and revision of hf://owner/name or hf://owner/name@revision.

    Raises CheckpointError for anything else.

    >>> parse("hf://owner/name@v1")
    ('owner/name', 'v1')
    """
    repo, at, revision = re.sub("^hf:/{1,2}", "", address).partition("@")  # a Path makes one slash of two
    _address(repo, revision if at else None)
    return repo, revision if at else None


def fetch(repo: str, revision: str | None = None, cache: str | Path | None = None) -> Path:
    """Return the folder where a repository's files lie, fetched where needed; raise CheckpointError if it is none."""
    address = _address(repo, revision)
    with _reached(address, "read"):
        from huggingface_hub import snapshot_download  # late: only who downloads pays for the import

        folder = Path(snapshot_download(repo, revision=revision, cache_dir=cache, allow_patterns=list(FILES)))
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{address} has no {CONFIG}, so the network cannot be built")
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(
            f"{address} has no {WEIGHTS}; pickled weights (.bin, .pt, .pth), which can run code when read, are not read"
        )
    config = _json(folder / CONFIG)
    if not (isinstance(config, dict) and config.keys() >= {"model", "shape", "classes"}):
        raise CheckpointError(
            f"{address} was not made by Pellucid: its {CONFIG} does not describe a network of Pellucid's"
        )
    return folder


def _address(repo: str, revision: str | None) -> str:
    if not (isinstance(repo, str) and _REPO.fullmatch(repo)):
        raise CheckpointError(f"{repo!r} is not a repository of the hub: write owner/name, as in hf://owner/name")
    if revision is None:
        return f"hf://{repo}"
    if not _REVISION.fullmatch(revision):
        raise CheckpointError(f"{revision!r} is not a revision of {repo}: write a branch, a tag or a commit")
    return f"hf://{repo}@{revision}"


def _described(folder: Path, address: str, licence: str | None) -> dict[str, bytes]:
    """Return card and README with address and licence; nothing where there is no card or people edited it."""
    card = _json(folder / CARD) if (folder / CARD).is_file() else None
    readme = (folder / README).read_text() if (folder / README).is_file() else None
    try:
        untouched = card is not None and readme == markdown(card)
    except (KeyError, TypeError, ValueError, AttributeError):  # a card of somebody else's making
        untouched = False
    if card is not None and untouched:
        card |= {"address": address, "licence": licence or card["licence"]}
        return {CARD: (json.dumps(card, indent=1) + "\n").encode(), README: markdown(card).encode()}
    if licence is not None:
        raise CheckpointError(f"{folder} has no card as Pellucid writes it: write the licence into {README} yourself")
    return {}


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is corrupt ({error})") from None


@contextlib.contextmanager
def _reached(address: str, done: str) -> Iterator[None]:
    """Turn whatever the client raises into a CheckpointError that says what to look at."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # the client raises errors of its own, of its HTTP library and of the system
        raise CheckpointError(
            f"{address} could not be {done} ({type(error).__name__}): see that the name and the revision are right, "
            "that the hub can be reached, and that you are logged in (hf auth login) if it is private or yours to write"
        ) from error
