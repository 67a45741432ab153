"""Transformations of images that take away shape or texture: `transform(images, rng=None) -> images`."""

from pellucid.transforms.saturation import Saturation

__all__ = ["Saturation"]
