"""Where the figures of a training run go while it runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pellucid.errors import PellucidError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TrackingError(PellucidError):
    """Figures that cannot be tracked: a missing package, or a folder that cannot be written."""


class Tracker(Protocol):
    """What a training run tells its figures to."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Take note of the figures after a step."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class TensorBoard:
    """Figures as scalars in a folder that TensorBoard reads, one tag for each name.

    The first step that is logged marks a restart there: what an earlier process wrote of that step and of later ones is
    purged, so after a resume no step is there twice. Every call reaches the disk, so that a kill loses none.
    Raises TrackingError if tensorboard is not installed or the folder cannot be written.
    """

    def __init__(self, folder: str | Path) -> None:
        _summary_writer()
        self.folder = Path(folder).expanduser()
        self._writer: SummaryWriter | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._refusal(error) from None

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Write the figures of a step; one called "step", as rows of a history have, is left out."""
        try:
            if self._writer is None:
                self._writer = _summary_writer()(str(self.folder), purge_step=step)
            for name, value in figures.items():
                if name != "step":
                    self._writer.add_scalar(name, float(value), step)
            self._writer.flush()
        except OSError as error:
            raise self._refusal(error) from None

    def close(self) -> None:
        """Close the file; a later `log` opens another, as after a resume."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _refusal(self, error: OSError) -> TrackingError:
        return TrackingError(f"the folder {self.folder} cannot be written ({error.strerror}); choose another")


def _summary_writer() -> "type[SummaryWriter]":
    try:
        from torch.utils.tensorboard import SummaryWriter  # late: an extra
    except ImportError:
        raise TrackingError("tensorboard is not installed: pip install 'pellucid[tracking]'") from None
    return SummaryWriter
