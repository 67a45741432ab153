import itertools

import pytest
import torch

from pellucid.errors import InputError
from pellucid.metrics import misclassification_overlap


def test_regions_are_those_counted_one_image_at_a_time(generator):
    names = ["normal", "adversarial", "gradient"]
    predictions = torch.randint(0, 3, (3, 200), generator=generator)
    labels = torch.randint(0, 3, (200,), generator=generator)
    found = misclassification_overlap(predictions, labels, names)
    assert list(found) == [group for size in range(4) for group in itertools.combinations(names, size)]
    for group, count in found.items():
        expected = 0
        for n in range(200):
            fooled = {names[j] for j in range(3) if predictions[j, n] != labels[n]}
            expected += fooled == set(group)
        assert count == expected
    assert sum(found.values()) == 200
    assert sum(count for group, count in found.items() if "normal" in group) == int((predictions[0] != labels).sum())


def test_no_images_and_no_networks():
    nobody = torch.empty(1, 0, dtype=torch.int64)
    assert misclassification_overlap(nobody, nobody[0], ["a"]) == {(): 0, ("a",): 0}
    assert misclassification_overlap(torch.empty(0, 3), torch.zeros(3), []) == {(): 3}


def test_refusals():
    predictions, labels = torch.zeros(2, 4), torch.zeros(4)
    with pytest.raises(InputError, match=r"\(networks, N\)"):
        misclassification_overlap(predictions, labels[:3], ["a", "b"])
    for names in (["a"], ["a", "a"]):
        with pytest.raises(InputError, match="name of its own"):
            misclassification_overlap(predictions, labels, names)
    with pytest.raises(InputError, match="16 at most"):
        misclassification_overlap(torch.zeros(17, 4), labels, [str(j) for j in range(17)])
