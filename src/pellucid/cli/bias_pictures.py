"""The pictures of `pellucid bias`: strips of transformed images, and panels of maps."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pellucid.cli.common import Common

if TYPE_CHECKING:
    from pellucid.cli.biased import Found
    from pellucid.report import Gallery

_IMAGES = 4  # of a strip


def strips_of(found: "Found", keys: Mapping[str, str], common: Common) -> "dict[str, Gallery]":
    """Return versions of a few images in strips, those first that all networks classify correctly.

    One shows what was mapped, where that is not all; then there is one for each scale, and one of all that is on none.
    """
    import torch

    from pellucid.report.bias_page import UNTOUCHED
    from pellucid.report.strips import strip
    from pellucid.tasks import Io
    from pellucid.tasks.transforming import opened, versions

    task, split, tables = found.asked.transformed[0], found.asked.split, found.tables
    labels = next(iter(tables.values()))["label"][0]
    known = torch.stack([table["predicted"][0] == labels for table in tables.values()]).all(0)
    rows = known.logical_not().argsort(stable=True)[:_IMAGES]
    tool = Io(task, common.open_store(), common.options())
    x = split.images(rows).to(tool.device)
    made = versions([opened(transform, tool) for transform in task.transforms], x, rows.to(x.device), task.seed)
    images = torch.stack([version.cpu() for version in made])
    titles, scaled = (UNTOUCHED, *found.bias.transforms), {place for one in found.bias.levels for place in one.places}
    shown = found.asked.mappings[0].transforms if found.asked.mappings else ()
    groups = {} if shown == task.transforms else {"side by side": tuple(map(task.transforms.index, shown))}
    for one in found.bias.levels:  # two scales may have one title: low pass by radius and by share
        groups[one.title] = tuple(dict.fromkeys((*groups.get(one.title, ()), *one.places)))
    groups |= {"other transformations": tuple(p for p in range(len(task.transforms)) if p not in scaled)}
    drawn = {}
    for title, places in ((title, places) for title, places in groups.items() if places):
        chosen = torch.tensor([0, *(place + 1 for place in places)])
        drawn[f"strip-{title.lower().replace(' ', '-')}"] = strip(
            images[chosen],
            [titles[place].removeprefix(title).strip() for place in chosen],
            {name: table["probability"][chosen][:, rows] for name, table in tables.items()},
            classes=[split.classes[label] for label in labels[rows]],
            right={name: (table["predicted"] == labels)[chosen][:, rows] for name, table in tables.items()},
            caption=title[:1].upper() + title[1:],
            settings=keys,
        )
    return drawn


def panels_of(found: "Found", keys: Mapping[str, str]) -> "dict[str, Gallery]":
    """Return for each image that is drawn its versions and the maps of all networks."""
    from pellucid.report.bias_page import UNTOUCHED
    from pellucid.report.panels import panel

    stored = {name: result.tensors("maps.safetensors") for name, result in found.looked.items()}
    drawn = {}
    for place in range(len(next(iter(stored.values()))["labels"]) if stored else 0):
        one = next(iter(stored.values()))
        label = found.asked.split.classes[int(one["labels"][place])]
        drawn[f"maps-{place + 1}"] = panel(
            one["images"][:, place],
            {name: tensors["maps"][:, place] for name, tensors in stored.items()},
            (UNTOUCHED, *found.bias.mapped),
            title=label,
            label=label,
            probabilities={name: tensors["probabilities"][:, place] for name, tensors in stored.items()},
            caption=f"What the networks look at, image {place + 1}",
            settings=keys,
        )
    return drawn
