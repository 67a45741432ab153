"""Tasks: experiments as descriptions that contain each other, and the engine that runs what is missing."""

from pellucid.tasks.explaining import Explain
from pellucid.tasks.graph import Watch, plan, run
from pellucid.tasks.imported import ImportedNetwork
from pellucid.tasks.io import Io, Options, Task
from pellucid.tasks.measuring import Evaluate, InputGradients
from pellucid.tasks.painting import StyleMeasure, Stylised
from pellucid.tasks.selecting import Selection
from pellucid.tasks.stylizing import FitStylizer
from pellucid.tasks.sweeping import Sweep
from pellucid.tasks.training import Checkpoint, Train
from pellucid.tasks.transforming import CueConflict, Sensitivity, Transformed

__all__ = [
    "Checkpoint",
    "CueConflict",
    "Evaluate",
    "Explain",
    "FitStylizer",
    "ImportedNetwork",
    "InputGradients",
    "Io",
    "Options",
    "Selection",
    "Sensitivity",
    "StyleMeasure",
    "Stylised",
    "Sweep",
    "Task",
    "Train",
    "Transformed",
    "Watch",
    "plan",
    "run",
]
