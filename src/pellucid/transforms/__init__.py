"""Transformations of images that take away shape or texture: `transform(images, *, rng=None) -> images`."""

from pellucid.transforms.blur import Blur
from pellucid.transforms.edges import Edges
from pellucid.transforms.fourier import HighPass, LowPass, RandomFourier
from pellucid.transforms.grayscale import Grayscale
from pellucid.transforms.noise import GaussianNoise
from pellucid.transforms.patch_shuffle import PatchShuffle
from pellucid.transforms.saturation import Saturation
from pellucid.transforms.silhouette import Silhouette
from pellucid.transforms.stylize import Stylize

__all__ = [
    "Blur",
    "Edges",
    "GaussianNoise",
    "Grayscale",
    "HighPass",
    "LowPass",
    "PatchShuffle",
    "RandomFourier",
    "Saturation",
    "Silhouette",
    "Stylize",
]
