"""Small cuts of published sets, which lie in the data root under names of their own; no hub has them."""

from dataclasses import dataclass, replace
from typing import ClassVar

from pellucid.data.folder import Side
from pellucid.data.published import Sifted
from pellucid.data.source import Source
from pellucid.spec import register

TWENTY = (
    *("goldfish", "centipede", "black stork", "tabby", "walking stick", "bison", "academic gown", "beach wagon"),
    *("bucket", "Christmas stocking", "dumbbell", "iPod", "miniskirt", "pill bottle", "refrigerator", "sombrero"),
    *("teapot", "viaduct", "ice lolly", "meat loaf"),
)


@register("data", "tiny_imagenet_20")
@dataclass(frozen=True, kw_only=True)
class TinyImageNet20(Sifted):
    """Every tenth of Tiny ImageNet's 200 classes, 64x64 RGB: 9,000 / 1,000 / 1,000.

    Looked for in the data root, in tiny_imagenet_20: parquet files train and test, labels 0 to 19. Validation is a
    tenth of train; test is the published validation split of the twenty classes. Grey images become RGB, and `size`
    resizes them bilinearly, as `tiny_imagenet` does. Source: Stanford CS231n; the twenty are goldfish, centipede, black
    stork ... in the order of their WordNet numbers.
    """

    source: ClassVar[Source] = Source("tiny_imagenet_20", channels=3, classes=TWENTY)

    size: Side | None = None

    def described(self) -> Source:
        """Return what is known of the set, with its options."""
        return replace(super().described(), size=None if self.size is None else (self.size, self.size))


@register("data", "style_paintings")
@dataclass(frozen=True, kw_only=True)
class StylePaintings(Sifted):
    """A dozen paintings for style: the largest centre square of each at `size` pixels; 9 / 1 / 2, without labels.

    Looked for in the data root, in style_paintings: one parquet file, train, of which a fifth is cut for test and a
    tenth of what is left for validation. Source: none; paintings whose painters died more than 70 years ago.
    """

    source: ClassVar[Source] = Source("style_paintings", channels=3, fit="crop", labelled=False)

    size: Side = 192

    def described(self) -> Source:
        """Return what is known of the set, with its options."""
        return replace(super().described(), size=(self.size, self.size))
