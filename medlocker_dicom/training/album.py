"""The album: numbered views of the photographs, and what the teacher says of each.

A view's number seeds its turn, scale and shift, so it is drawn anew at whatever size a
student wants; only the teacher's answers are kept. They are asked for once and serve every
student (a consistent teacher, Beyer et al. 2022; hints, Romero et al. 2015).
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from medlocker_dicom.bundles.networks import GRADES
from medlocker_dicom.bundles.preprocess import normalise, resample
from medlocker_dicom.files import sha256_of, write_file
from medlocker_dicom.training.augment import turned
from medlocker_dicom.training.grading import sampling_weights, training_rows
from medlocker_dicom.training.teacher import CHANNELS, SIDE, TeacherRecipe, load_teacher

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from medlocker_dicom.training.photographs import Crops
    from medlocker_dicom.training.teacher import Teacher

log = logging.getLogger(__name__)
SEED = 20240614
BATCH = 16
#: The teacher's answers by file name, with their shapes.
SHAPES = {
    "logits": (GRADES,),
    "middle": (CHANNELS[0], SIDE // 16, SIDE // 16),
    "top": (CHANNELS[1], SIDE // 32, SIDE // 32),
}


@dataclass(frozen=True)
class Album:
    """Views and answers.

    Attributes
    ----------
    crops
        The photographs.
    rows
        int64 (N,): the photograph of each view.
    answers
        By name, float16 (N, ...) with the shapes of ``SHAPES``.
    spreads
        By name, float32 (2, C, 1, 1): mean and standard deviation of each channel of a map.
    """

    crops: Crops
    rows: NDArray[np.int64]
    answers: dict[str, NDArray[np.float16]]
    spreads: dict[str, NDArray[np.float32]]

    def view(self, number: int, size: int) -> NDArray[np.uint8]:
        """Draw a view, uint8 (size, size, 3)."""
        return draw_view(self.crops.pixels[self.rows[number]], number, size)


def draw_view(crop: NDArray[np.uint8], number: int, size: int) -> NDArray[np.uint8]:
    """Draw the view of a number from a crop uint8 (S, S, 3); uint8 (size, size, 3)."""
    rng = np.random.default_rng((SEED, number))
    return resample(turned(crop, max(size, SIDE), rng), (size, size))


def open_album(crops: Crops, folder: Path, views: int, device: torch.device) -> Album:
    """Open the album of a folder, after training its teacher and asking it where that is due.

    Two processes may do so at once: the second waits for the first. An interrupted one goes on
    where it was.

    Parameters
    ----------
    crops
        The photographs, in the same order every time.
    folder
        Gets ``checkpoint.pt``, ``model.pt`` and ``log.jsonl`` of the teacher, and the answers.
    views
        How many.
    device
        Runs the teacher.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        TeacherRecipe(folder, device=str(device)).run(crops)
        train = training_rows(crops)
        weights = sampling_weights(crops, train)
        rows = np.random.default_rng(SEED).choice(train, views, p=weights)
        asked = (sha256_of(folder / "model.pt") or "").encode() + rows.tobytes()
        stamp = hashlib.sha256(asked).hexdigest()[:16]
        answers = _answers(crops, rows, folder, stamp, device)
    sample = np.linspace(0, views - 1, min(views, 512)).astype(int)
    return Album(crops, rows, answers, {k: _spread(answers[k][sample]) for k in ("middle", "top")})


def _answers(
    crops: Crops, rows: NDArray[np.int64], folder: Path, stamp: str, device: torch.device
) -> dict[str, NDArray[np.float16]]:
    """Ask the teacher for what is not answered yet."""
    done_file = folder / f"album-{stamp}.done"
    done = int(done_file.read_text()) if done_file.exists() else 0
    files = {name: folder / f"album-{stamp}-{name}.npy" for name in SHAPES}
    views = len(rows)
    if done < views:
        mode = "r+" if done else "w+"
        maps = {
            name: np.lib.format.open_memmap(files[name], mode, np.float16, (views, *shape))
            for name, shape in SHAPES.items()
        }
        teacher = load_teacher(folder, device)
        for start in range(done, views, BATCH):
            numbers = range(start, min(start + BATCH, views))
            shown = np.stack([draw_view(crops.pixels[rows[n]], n, SIDE) for n in numbers])
            for name, answer in zip(SHAPES, _ask(teacher, shown, device), strict=True):
                maps[name][numbers.start : numbers.stop] = answer
            if not numbers.stop % 1024 or numbers.stop == views:
                for array in maps.values():
                    array.flush()
                write_file(done_file, str(numbers.stop).encode())
                log.info("teacher asked about %d of %d views", numbers.stop, views)
    return {name: np.load(path, mmap_mode="r") for name, path in files.items()}


@torch.no_grad()
def _ask(
    teacher: Teacher, views: NDArray[np.uint8], device: torch.device
) -> list[NDArray[np.float16]]:
    inputs = torch.from_numpy(normalise(views)).to(device, memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16):
        answers = teacher.answer(inputs)
    return [answer.half().cpu().numpy() for answer in answers]


def _spread(maps: NDArray[np.float16]) -> NDArray[np.float32]:
    values = maps.astype(np.float32)
    mean, deviation = values.mean((0, 2, 3)), values.std((0, 2, 3)) + 1e-4
    return np.stack([mean, deviation]).astype(np.float32)[:, :, None, None]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
