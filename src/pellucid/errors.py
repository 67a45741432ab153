"""What Pellucid refuses, each in a sentence that says what was wrong and what to do."""


class PellucidError(ValueError):
    """Base of all refusals; the command line prints the sentence and ends with exit code 2."""


class SpecError(PellucidError):
    """A description (attack, defence, task ...) with an unknown name, an unknown field or a wrong value."""


class InputError(PellucidError):
    """Images or labels that are not what a public door accepts."""


class GradientError(InputError):
    """A gradient in the image that cannot be used: NaN, or cut off inside the network. Scores may still be of use."""


class DataError(PellucidError):
    """A data set that is missing, unreadable or not what it was when a result was made from it."""


class CheckpointError(PellucidError):
    """Weights that are corrupt, truncated, of another network, or a pickle."""


class StoreError(PellucidError):
    """A store that cannot be written or read, or whose content was changed."""


class TrainingError(PellucidError):
    """Training that stopped because a loss term or a gradient was no longer finite."""
