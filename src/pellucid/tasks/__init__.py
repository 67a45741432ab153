"""Tasks: experiments as descriptions that contain each other, and the engine that runs what is missing."""

from pellucid.tasks.graph import Watch, plan, run
from pellucid.tasks.io import Io, Options, Task
from pellucid.tasks.measuring import Evaluate, Explain, InputGradients
from pellucid.tasks.training import Checkpoint, Train

__all__ = [
    "Checkpoint",
    "Evaluate",
    "Explain",
    "InputGradients",
    "Io",
    "Options",
    "Task",
    "Train",
    "Watch",
    "plan",
    "run",
]
