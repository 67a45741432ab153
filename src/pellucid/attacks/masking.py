"""Signs that an accuracy under attack is too good to be true: checks of the network, image by image."""

from collections.abc import Mapping


class RobustnessWarning(UserWarning):
    """A sign that the robustness measured is not the robustness there is."""


MASKING: Mapping[str, str] = {
    "randomised": "two passes of one image gave different logits: attack the expectation (AutoAttack version='rand')",
    "probabilities": "the network gives probabilities, not logits: their gradients vanish where it is sure",
    "zero_gradient": "the loss has no gradient at the image: white-box attacks are blind there",
    "non_finite_gradient": "the gradient at the image is NaN or infinite: white-box attacks cannot use it",
    "black_box_beats_white_box": "an attack without gradients fooled what those with gradients did not",
    "optimises_in_forward": "the forward pass computes gradients of its own: an adaptive attack is needed",
}
