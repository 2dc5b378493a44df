"""The album: numbered views, the teacher's grades of them, and going on after a stop."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medlocker_dicom.bundles.preprocess import normalise, resample
from medlocker_dicom.training import album, teacher
from medlocker_dicom.training.album import Album, draw_view, open_album
from medlocker_dicom.training.descent import Descent
from medlocker_dicom.training.photographs import Crops
from medlocker_dicom.training.teacher import load_teacher
from training_sets import LOOK, quicken, ringed, rings, state_of

CPU = torch.device("cpu")
VIEWS = 40
HOLDER = """
import fcntl, sys
with open(sys.argv[1], "w") as stream:
    fcntl.flock(stream, fcntl.LOCK_EX)
    print("locked", flush=True)
    sys.stdin.read()
"""

pytestmark = pytest.mark.usefixtures("_quick")


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quicken(monkeypatch)


@pytest.fixture(scope="module")
def crops() -> Crops:
    """Return ten held-out eyes and twenty to train on."""
    return ringed(30, 10)


@pytest.fixture(scope="module")
def opened(crops: Crops, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Album]:
    """Return an album and its folder."""
    folder = tmp_path_factory.mktemp("teacher")
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        return folder, open_album(crops, folder, VIEWS, CPU)


def assert_equal(one: Album, other: Album) -> None:
    """Hold two albums against each other, bit by bit."""
    assert np.array_equal(one.rows, other.rows)
    assert np.array_equal(one.logits, other.logits)


def test_an_album_drawn_twice_is_equal(
    opened: tuple[Path, Album], crops: Crops, tmp_path: Path
) -> None:
    """Another folder, with a teacher of its own, gives the same album."""
    assert_equal(open_album(crops, tmp_path, VIEWS, CPU), opened[1])


def test_a_view_is_known_by_its_number() -> None:
    """Equal numbers give equal views, others other ones."""
    crop = rings(3, 0, 80)
    seen = [draw_view(crop, number, 48) for number in range(6)]
    for number, view in enumerate(seen):
        assert view.shape == (48, 48, 3)
        assert view.dtype == np.uint8
        assert np.array_equal(view, draw_view(crop, number, 48))
    assert len({view.tobytes() for view in seen}) == 6


@pytest.mark.parametrize("size", [24, LOOK, 100])
def test_a_view_is_the_same_at_every_size(size: int) -> None:
    """Student and teacher see the same turn and shift, whatever px each wants."""
    crop = rings(2, 1, 120)
    for number in range(5):
        seen, teachers = draw_view(crop, number, size), draw_view(crop, number, LOOK)
        small = (24, 24)
        gap = resample(seen, small).astype(int) - resample(teachers, small)
        assert np.abs(gap).mean() < 4
        other = draw_view(crop, number + 50, LOOK)
        assert np.abs(resample(other, small).astype(int) - resample(teachers, small)).mean() > 8


def test_views_are_of_training_pictures(opened: tuple[Path, Album], crops: Crops) -> None:
    """No held-out one is among them; a view is drawn from its row's picture."""
    rows = opened[1].rows
    assert rows.shape == (VIEWS,)
    assert rows.min() >= 10
    assert np.unique(rows).size > 10
    view = opened[1].view(7, 32)
    assert np.array_equal(view, draw_view(crops.pixels[rows[7]], 7, 32))


def test_answers_are_the_teachers(opened: tuple[Path, Album]) -> None:
    """Each view's logits are what the trained teacher says of that very view."""
    folder, book = opened
    quiet = load_teacher(folder, CPU)
    shown = np.stack([book.view(number, LOOK) for number in range(VIEWS)])
    with torch.no_grad():
        answers = quiet(torch.from_numpy(normalise(shown))).numpy()
    assert book.logits.dtype == np.float16
    assert book.logits.shape == answers.shape == (VIEWS, 5)
    # what is kept was worked out in half precision, of about two digits
    kept = book.logits.astype(np.float32)
    assert np.abs(kept - answers).mean() < 0.05 * answers.std()
    assert np.corrcoef(kept.ravel(), answers.ravel())[0, 1] > 0.99


def test_the_kept_album_is_one_array(opened: tuple[Path, Album]) -> None:
    """Beside the teacher's files lie the logits and how many of them are done."""
    folder, book = opened
    (file,) = folder.glob("album-*.npy")
    assert np.array_equal(np.load(file), book.logits)
    assert file.with_suffix(".done").read_text() == str(VIEWS)
    assert len(list(folder.glob("album-*"))) == 2


def test_a_kept_album_is_not_asked_for_again(
    opened: tuple[Path, Album], crops: Crops, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened again it asks the teacher nothing and changes no file."""
    folder, first = opened
    before = {path: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(album, "_ask", None)
    assert_equal(open_album(crops, folder, VIEWS, CPU), first)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("done", [16, 32])
def test_an_album_goes_on_where_it_was(
    done: int,
    opened: tuple[Path, Album],
    crops: Crops,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cut back to what was done, it asks for the rest alone, and ends equal."""
    for path in opened[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (done_file,) = tmp_path.glob("*.done")
    done_file.write_text(str(done))
    for path in tmp_path.glob("album-*.npy"):
        np.load(path, mmap_mode="r+")[done:] = -1
    asked, ask = list[int](), album._ask

    def watched(*arguments: Any) -> Any:
        asked.append(len(arguments[1]))
        return ask(*arguments)

    monkeypatch.setattr(album, "_ask", watched)
    assert_equal(open_album(crops, tmp_path, VIEWS, CPU), opened[1])
    assert sum(asked) == VIEWS - done
    assert done_file.read_text() == str(VIEWS)


class StoppedError(Exception):
    """Stands for the power cut."""


@pytest.mark.parametrize("where", ["teacher", "album"])
def test_a_stopped_album_ends_as_an_uninterrupted_one(
    where: str,
    opened: tuple[Path, Album],
    crops: Crops,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped in the teacher's second epoch, or between two questions, it ends equal."""
    place: Any = Descent if where == "teacher" else album
    name = "step" if where == "teacher" else "_ask"
    real, calls = getattr(place, name), list[int]()

    def failing(*arguments: Any) -> Any:
        if len(calls) == 1:
            raise StoppedError
        calls.append(1)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(place, name, failing)
        with pytest.raises(StoppedError):
            open_album(crops, tmp_path, VIEWS, CPU)
    assert_equal(open_album(crops, tmp_path, VIEWS, CPU), opened[1])


def test_another_teacher_is_asked_anew(
    opened: tuple[Path, Album], crops: Crops, tmp_path: Path
) -> None:
    """Answers are kept by the teacher's weights: those of the one before are not taken for its."""
    for path in opened[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    state = state_of(tmp_path / "model.pt")
    state["head.bias"][3] += 5
    torch.save(state, tmp_path / "model.pt")
    logits = open_album(crops, tmp_path, VIEWS, CPU).logits.astype(np.float32)
    gap = logits - opened[1].logits
    assert gap[:, 3] == pytest.approx(5, abs=0.1)
    assert gap[:, [0, 1, 2, 4]] == pytest.approx(0, abs=0.1)


def test_a_second_process_waits(
    opened: tuple[Path, Album], crops: Crops, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another one holds the folder nothing is trained or asked; then it goes on."""
    folder, first = opened
    run, begun, found = teacher.TeacherRecipe.run, threading.Event(), list[Album]()

    def watched(recipe: teacher.TeacherRecipe, photographs: Crops) -> None:
        begun.set()
        run(recipe, photographs)

    monkeypatch.setattr(teacher.TeacherRecipe, "run", watched)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder / "lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        second = threading.Thread(
            target=lambda: found.append(open_album(crops, folder, VIEWS, CPU)), daemon=True
        )
        second.start()
        assert not begun.wait(0.5)
        holder.communicate()
    second.join(60)
    assert begun.is_set()
    assert_equal(found[0], first)
