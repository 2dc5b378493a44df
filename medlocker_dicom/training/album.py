"""The album: numbered views of the photographs, and the teacher's grades of each.

A view's number seeds its turn, scale and shift, so it is drawn anew at whatever size a
student wants. The teacher, which sees it larger, is asked once for every student
(a consistent teacher, Beyer et al. 2022).
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from medlocker_dicom.bundles.networks import GRADES
from medlocker_dicom.bundles.preprocess import normalise, resample
from medlocker_dicom.files import sha256_of, write_file
from medlocker_dicom.training.augment import turned
from medlocker_dicom.training.descent import half_precision
from medlocker_dicom.training.grading import sampling_weights, training_rows
from medlocker_dicom.training.teacher import SIDE, TeacherRecipe, load_teacher

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from medlocker_dicom.training.peers import Peers, PeerTeacher
    from medlocker_dicom.training.photographs import Crops
    from medlocker_dicom.training.teacher import Teacher

log = logging.getLogger(__name__)
SEED = 20240614
BATCH = 16


@dataclass(frozen=True)
class Album:
    """Views and grades.

    Attributes
    ----------
    crops
        The photographs.
    rows
        int64 (N,): the photograph of each view.
    logits
        float16 (N, 5): the teacher's.
    """

    crops: Crops
    rows: NDArray[np.int64]
    logits: NDArray[np.float16]

    def view(self, number: int, size: int) -> NDArray[np.uint8]:
        """Draw a view, uint8 (size, size, 3)."""
        return draw_view(self.crops.pixels[self.rows[number]], number, size)


def draw_view(crop: NDArray[np.uint8], number: int, size: int) -> NDArray[np.uint8]:
    """Draw the view of a number from a crop uint8 (S, S, 3); uint8 (size, size, 3)."""
    rng = np.random.default_rng((SEED, number))
    return resample(turned(crop, max(size, SIDE), rng), (size, size))


def open_album(
    crops: Crops, folder: Path, views: int, device: torch.device, peers: Peers | None = None
) -> Album:
    """Open the album of a folder, after training its teacher and asking it where that is due.

    Two processes may do so at once: the second waits for the first. An interrupted one goes on
    where it was.

    Parameters
    ----------
    crops
        The photographs, in the same order every time.
    folder
        Gets ``checkpoint.pt``, ``model.pt`` and ``log.jsonl`` of the teacher, and the album.
    views
        How many.
    device
        Runs the teacher.
    peers
        Asked in the teacher's stead, which then need not be trained.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        if peers is None:
            TeacherRecipe(folder, device=str(device)).run(crops)
        weights_digest = peers.digest if peers else sha256_of(folder / "model.pt") or ""
        train = training_rows(crops)
        weights = sampling_weights(crops, train)
        rows = np.random.default_rng(SEED).choice(train, views, p=weights)
        asked = weights_digest.encode() + rows.tobytes()
        stamp = hashlib.sha256(asked).hexdigest()[:16]
        logits = _answers(crops, rows, folder / f"album-{stamp}.npy", device, peers)
    return Album(crops, rows, logits)


def _answers(
    crops: Crops,
    rows: NDArray[np.int64],
    file: Path,
    device: torch.device,
    peers: Peers | None,
) -> NDArray[np.float16]:
    """Ask the teacher for what is not answered yet."""
    views, done_file = len(rows), file.with_suffix(".done")
    done = int(done_file.read_text()) if done_file.exists() else 0
    if done < views:
        mode: Literal["r+", "w+"] = "r+" if done else "w+"
        logits = np.lib.format.open_memmap(file, mode, np.float16, (views, GRADES))
        teacher = peers.load(device) if peers else load_teacher(file.parent, device)
        for start in range(done, views, BATCH):
            numbers = range(start, min(start + BATCH, views))
            shown = np.stack([draw_view(crops.pixels[rows[n]], n, SIDE) for n in numbers])
            logits[numbers.start : numbers.stop] = _ask(teacher, shown, device)
            if not numbers.stop % 1024 or numbers.stop == views:
                logits.flush()
                write_file(done_file, str(numbers.stop).encode())
                log.info("teacher asked about %d of %d views", numbers.stop, views)
    answered: NDArray[np.float16] = np.load(file)
    return answered


@torch.no_grad()
def _ask(
    teacher: Teacher | PeerTeacher, views: NDArray[np.uint8], device: torch.device
) -> NDArray[np.float16]:
    inputs = torch.from_numpy(normalise(views)).to(device, memory_format=torch.channels_last)
    with half_precision(device):
        logits: torch.Tensor = teacher(inputs)
    halves: NDArray[np.float16] = logits.half().cpu().numpy()
    return halves


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
