"""What a lock costs by size of the photograph, by number of models, and by size of the folder.

    python benchmarks/cost.py [--megapixels 0.5,2,4,12] [--ensembles 1,4,7] [--folders 10,100,1000]

Phantoms; each run is a process of its own, as a user would start it. By size and by models, with
the options that `medlocker lock` has by default: seconds of one photograph are half of those of a
folder of three less those of a folder of one, so that loading models does not count. By folder,
with tiny models and small photographs: what grows is the folder. A slope is that of log seconds
over log size, least squares: 1 is linear, less is better.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from full_resolution import timed

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from medlocker_dicom.bundles.bundle import SHIPPED, list_bundles
from medlocker_dicom.dicom.photograph import photograph, uids_for
from medlocker_dicom.dicom.writing import to_bytes
from medlocker_dicom.phantom import phantom
from tiny_bundles import write_classifier, write_segmenter

ROOT = b"medlocker benchmark of cost"
SIDE = 256  # px, of the photographs of a large folder


def write_photographs(folder: Path, count: int, side: int) -> None:
    """Write phantoms with one retina, and UIDs of their own."""
    folder.mkdir()
    eye = phantom(np.random.default_rng(side), (side, side)).image
    for number in range(count):
        ds = photograph(
            eye,
            patient_name="Benchmark",
            patient_id="B-1",
            laterality="R",
            **uids_for(ROOT, f"{side} {number}"),
            instance_number=number + 1,
            taken=datetime(2024, 1, 1, tzinfo=UTC),
        )
        (folder / f"{number}.dcm").write_bytes(to_bytes(ds))


class Desk:
    """A folder for photographs and what becomes of them.

    Parameters
    ----------
    root
        Empty.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.runs = root, 0
        self.key = root / "me.key"
        timed("identity", "new", self.key, "--no-passphrase")

    def photographs(self, count: int, side: int) -> Path:
        """Write a folder of phantoms, unless it is there.

        In a process of its own: what a command is said to take at most is at least what the
        process that started it took by then.
        """
        folder = self.root / f"{count}-of-{side}"
        if not folder.exists():
            with ProcessPoolExecutor(1) as apart:
                apart.submit(write_photographs, folder, count, side).result()
        return folder

    def lock(self, folder: Path, *words: str | Path) -> tuple[float, float]:
        """Lock a folder; wall seconds and peak MiB."""
        self.runs += 1
        to = ("--to", f"{self.key}.pub", "--issuer", self.key)
        return timed("lock", folder, self.root / f"out{self.runs}", *to, *words)

    def one(self, side: int, *words: str | Path) -> tuple[float, float]:
        """Seconds that a further photograph takes, and peak MiB."""
        few, _ = self.lock(self.photographs(1, side), *words)
        more, memory = self.lock(self.photographs(3, side), *words)
        return (more - few) / 2, memory


def slope(sizes: list[float], seconds: list[float]) -> float:
    """Slope of log seconds over log size."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def main() -> None:
    """Measure the three, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megapixels", default="0.5,2,4,12")
    parser.add_argument("--ensembles", default="1,2,3,4,5,6,7", help="numbers of models")
    parser.add_argument("--folders", default="10,100,1000")
    arguments = parser.parse_args()
    sizes = [float(one) for one in arguments.megapixels.split(",") if one]
    folders = [int(one) for one in arguments.folders.split(",") if one]
    with tempfile.TemporaryDirectory() as name:
        desk = Desk(Path(name))
        seconds = []
        for size in sizes:
            took, memory = desk.one(2 * round(500 * math.sqrt(size)))
            seconds.append(took)
            print(f"{size:g} Mpx: {took:.1f} s a photograph, {memory:.0f} MiB")
        if len(sizes) > 1:
            print(f"    slope {slope(sizes, seconds):.2f}")
        graders = [b.name for b in list_bundles([SHIPPED]) if b.kind == "dr-classifier"]
        for count in [int(one) for one in arguments.ensembles.split(",") if one]:
            models = ",".join(graders[:count])
            took, memory = desk.one(1000, "--models", models)
            print(f"{models}: {took:.1f} s a photograph, {memory:.0f} MiB")
        write_classifier(desk.root / "bundles" / "dr_classifier_tiny")
        write_segmenter(desk.root / "bundles" / "lesion_segmenter", everywhere=-10)
        tiny = ("--bundles", desk.root / "bundles", "--models", "dr_classifier_tiny")
        seconds = []
        for folder in folders:
            took, memory = desk.lock(desk.photographs(folder, SIDE), *tiny, "--budget", "8")
            seconds.append(took)
            print(f"{folder} photographs: {took:.1f} s, {memory:.0f} MiB")
        if len(folders) > 1:
            print(f"    slope {slope([float(n) for n in folders], seconds):.2f}")


if __name__ == "__main__":
    main()
