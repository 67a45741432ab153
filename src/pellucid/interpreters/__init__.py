"""Interpreters: where in the image a network's decision comes from."""

from pellucid.interpreters.cam import CAM
from pellucid.interpreters.gradient import Gradient

__all__ = ["CAM", "Gradient"]
