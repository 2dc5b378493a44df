"""What the segmenter sees in six held-out photographs, healthy ones among them.

    python benchmarks/lesions_seen.py [--data ../shared/data] [--output docs/lesions.png]
        [--photographs]

The picture of the documentation shows the outline of each retina alone, since the photographs
are not ours to pass on; --photographs lays the same over the photographs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.patches import Patch, Rectangle

from medlocker_dicom.bundles.bundle import SHIPPED, find_bundle
from medlocker_dicom.bundles.engine import OnnxEngine
from medlocker_dicom.bundles.models import Segmenter
from medlocker_dicom.lesions.boxes import lesion_boxes
from medlocker_dicom.lesions.fov import field_of_view
from medlocker_dicom.training.photographs import Segmented, load_healthy, load_segmented

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLOURS = {
    "MA": (0.85, 0.10, 0.10),
    "HE": (0.55, 0.00, 0.35),
    "EX": (0.95, 0.65, 0.00),
    "SE": (0.10, 0.55, 0.25),
    "OD": (0.55, 0.65, 0.85),
}
DISEASED, HEALTHY = 4, 2


def background(item: Segmented, *, photographs: bool) -> NDArray[np.float64]:
    """Lay out the photograph, or a plain retina."""
    if photographs:
        return item.image / 255
    retina = field_of_view(item.image)
    plain = np.ones((*retina.shape, 3))
    plain[retina] = 0.93
    return plain


def draw(axes: Any, item: Segmented, segmenter: Segmenter, *, photographs: bool) -> None:
    """Draw the marks and boxes of one photograph, and outline its true lesions."""
    scores = segmenter.scores(item.image)
    marked = scores >= segmenter.threshold
    picture = background(item, photographs=photographs)
    labels = segmenter.bundle.labels
    for label in sorted(labels, key=lambda name: name != "OD"):
        plane = marked[labels.index(label)]
        picture[plane] = 0.3 * picture[plane] + 0.7 * np.array(COLOURS[label])
    axes.imshow(picture)
    for bit in segmenter.lesion_labels:
        plane = item.mask >> bit & 1
        if plane.any():
            axes.contour(plane, [0.5], colors="black", linewidths=0.3)
    lesions = np.asarray(marked[segmenter.lesion_labels].any(0), np.bool_)
    for box in lesion_boxes(lesions):
        axes.add_patch(
            Rectangle((box.x, box.y), box.width, box.height, fill=False, color="blue", lw=0.8)
        )
    kind = "lesions" if item.mask.any() else "healthy"
    axes.set_title(f"{item.name}, {kind}: {lesions.mean():.2%} marked", fontsize=8)
    axes.axis("off")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--output", type=Path, default=Path("docs/lesions.png"))
    parser.add_argument("--photographs", action="store_true")
    arguments = parser.parse_args()
    bundle = find_bundle("lesion_segmenter", [SHIPPED])
    segmenter = Segmenter(bundle, OnnxEngine(bundle))
    eyes = load_segmented(arguments.data, bundle.input_size)
    healthy = load_healthy(arguments.data, bundle.input_size, 60)
    chosen = [i for i in eyes if i.validation][:DISEASED]
    chosen += [i for i in healthy if i.validation][:HEALTHY]
    figure, grid = plt.subplots(2, 3, figsize=(12, 6), layout="constrained")
    for axes, item in zip(grid.flat, chosen, strict=True):
        draw(axes, item, segmenter, photographs=arguments.photographs)
    names = {"MA": "microaneurysm", "HE": "haemorrhage", "EX": "hard exudate"}
    names |= {"SE": "soft exudate", "OD": "optic disc"}
    handles = [Patch(color=COLOURS[label], label=names[label]) for label in bundle.labels]
    handles += [Patch(fill=False, edgecolor="black", label="annotated")]
    handles += [Patch(fill=False, edgecolor="blue", label="box that the logo avoids")]
    figure.legend(handles=handles, loc="outside lower center", ncols=7, fontsize=8)
    figure.savefig(arguments.output, dpi=110, metadata={"Software": None})
    sys.stdout.write(f"{arguments.output}\n")


if __name__ == "__main__":
    main()
