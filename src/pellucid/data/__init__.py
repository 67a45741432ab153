"""Data sets: descriptions whose `load(part)` gives images, labels and where they come from."""

from pellucid.data.digits import Digits
from pellucid.data.encoded import Encoded
from pellucid.data.root import data_root, set_data_root
from pellucid.data.split import Data, Part, Split

__all__ = ["Data", "Digits", "Encoded", "Part", "Split", "data_root", "set_data_root"]
