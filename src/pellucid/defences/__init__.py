"""Defences: what a network is trained to minimise, and on which images."""

from pellucid.defences.adversarial import AdversarialTraining
from pellucid.defences.double_backprop import DoubleBackprop
from pellucid.defences.standard import Standard

__all__ = ["AdversarialTraining", "DoubleBackprop", "Standard"]
