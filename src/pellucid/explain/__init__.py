"""Maps of images, for one class or several, and of their adversarial examples, and how far they agree."""

from pellucid.explain.call import explain
from pellucid.explain.classes import RULES, numbered, targets_of
from pellucid.explain.decisions import deciding
from pellucid.explain.explanation import Explanation, titles
from pellucid.explain.pairs import explain_pairs, joined, logits_of, probabilities, refusal

__all__ = [
    "RULES",
    "Explanation",
    "deciding",
    "explain",
    "explain_pairs",
    "joined",
    "logits_of",
    "numbered",
    "probabilities",
    "refusal",
    "targets_of",
    "titles",
]
