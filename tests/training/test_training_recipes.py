"""Recipes on networks of some hundred weights: they learn, and pick up where they stopped."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from medlocker_dicom.errors import UsageError
from medlocker_dicom.training import classifier, segmenter
from medlocker_dicom.training.checkpoint import half_precision
from medlocker_dicom.training.classifier import ClassifierRecipe, Stage
from medlocker_dicom.training.segmenter import Patches, SegmenterRecipe
from training_sets import (
    HINTS,
    Shot,
    TinyGrader,
    quicken,
    rings,
    same,
    spotted,
    state_of,
    tiny_segmenter,
    write_graded,
    write_lesions,
)

pytestmark = pytest.mark.usefixtures("_quick")

Recipe = ClassifierRecipe | SegmenterRecipe
Make = Callable[..., Recipe]


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quicken(monkeypatch)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of all sets: ringed discs with grades, and discs with spots as lesions."""
    root = tmp_path_factory.mktemp("sets")
    splits = [(n, "val" if n < 5 else "train") for n in range(20)]
    shots = [Shot(f"{n}.png", n % 5, split, rings(n % 5, n)) for n, split in splits]
    numbers = ((1, 0), (2, 0), (5, 0), (10, 2))
    idrid = [Shot(f"IDRiD_{n:03}.png", grade, None, rings(0, 90 + n)) for n, grade in numbers]
    write_graded(root, {"idrid_grading": idrid, "odir": shots})
    return write_lesions(root, {1: spotted(), 2: spotted(), 5: spotted()})


def log_of(out: Path) -> list[dict[str, Any]]:
    """Read the rows of a run's log."""
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def grader(data: Path, out: Path, seed: int = 0, **fields: Any) -> ClassifierRecipe:
    """Return a recipe of four short epochs; `fields` differ. All share one teacher."""
    plan: dict[str, Any] = {
        "stages": [[32, 1, 1.0, 1.0], [48, 3, 0.5, 1.0]],
        "samples_an_epoch": 24,
        "batch_size": 8,
        "views": 200,
    }
    shared = (str(data), str(out), str(data / "teacher"))
    return ClassifierRecipe(TinyGrader(seed), HINTS, *shared, **(plan | fields))


def marker(data: Path, out: Path, seed: int = 0, **fields: Any) -> SegmenterRecipe:
    """Return a recipe of a few steps; `fields` differ."""
    plan: dict[str, Any] = {
        "diameter": 150,
        "patch": 32,
        "batch_size": 4,
        "steps": 12,
        "keep_every": 4,
    }
    return SegmenterRecipe(tiny_segmenter(seed), str(data), str(out), **(plan | fields))


BOTH = pytest.mark.parametrize("make", [grader, marker])


def test_the_classifier_learns(data: Path, tmp_path: Path) -> None:
    """The loss falls clearly, and the averaged weights order held-out pictures by grade."""
    plan: dict[str, Any] = {"samples_an_epoch": 192, "batch_size": 16, "learning_rate": 3e-2}
    grader(data, tmp_path, stages=[[32, 10, 0, 0]], halved=False, **plan).run()
    rows = log_of(tmp_path)
    assert [row["epoch"] for row in rows] == list(range(10))
    assert [row["epoch"] for row in rows if "val" in row] == [3, 7, 9]
    assert rows[-1]["grade"] < 0.7 * rows[0]["grade"]
    assert rows[-1]["odir"]["kappa"] > 0.5
    assert rows[-1]["val"]["n"] == 7


def test_the_segmenter_learns(data: Path, tmp_path: Path) -> None:
    """The loss falls clearly."""
    marker(data, tmp_path, steps=60, keep_every=15, learning_rate=2e-2).run()
    rows = log_of(tmp_path)
    assert [row["step"] for row in rows] == [15, 30, 45, 60]
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"]


@BOTH
def test_a_run_is_repeatable(make: Make, data: Path, tmp_path: Path) -> None:
    """Twice from the same weights gives the same weights; from others, others."""
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        make(data, tmp_path / name, seed).run()
    one, two, other = (state_of(tmp_path / n / "model.pt") for n in ("one", "two", "other"))
    assert same(one, two)
    assert not same(one, other)


def test_the_segmenter_goes_on_from_given_weights(data: Path, tmp_path: Path) -> None:
    """Of two networks that start from the same file nothing tells which was which before."""
    marker(data, tmp_path / "first").run()
    start = str(tmp_path / "first" / "model.pt")
    for name, seed in (("one", 0), ("two", 1)):
        marker(data, tmp_path / name, seed, start=start, learning_rate=1e-5, steps=1).run()
    first, one, two = (state_of(tmp_path / n / "model.pt") for n in ("first", "one", "two"))
    assert same(one, two)
    assert all(torch.allclose(one[k], first[k], atol=1e-3) for k in ("0.weight", "6.bias"))


class StoppedError(Exception):
    """Stands for the power cut."""


@BOTH
@pytest.mark.parametrize("after", [4, 6, 11])
def test_a_stopped_run_ends_as_an_uninterrupted_one(
    make: Make, after: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in between, and resumed with a network of other weights: all ends bit-equal."""
    make(data, tmp_path / "whole").run()
    module: Any = classifier if make is grader else segmenter
    step, taken = module._Run.step, list[int]()

    def failing(*arguments: Any) -> Any:
        if len(taken) == after:
            raise StoppedError
        taken.append(1)
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module._Run, "step", failing)
        with pytest.raises(StoppedError):
            make(data, tmp_path / "stopped").run()
    make(data, tmp_path / "stopped", seed=9).run()
    for name in ("checkpoint.pt", "model.pt"):
        assert same(*(state_of(tmp_path / run / name) for run in ("whole", "stopped"))), name
    whole, stopped = (
        [{k: v for k, v in row.items() if k != "seconds"} for row in log_of(tmp_path / run)]
        for run in ("whole", "stopped")
    )
    assert json.dumps(whole) == json.dumps(stopped)


@BOTH
@pytest.mark.parametrize("name", ["model", "checkpoint"])
def test_a_run_stopped_while_it_writes_goes_on(
    make: Make, name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the last of its files, it still ends with whole files of the last step."""
    make(data, tmp_path / "whole").run()
    save, asked = torch.save, list[int]()
    last = len(log_of(tmp_path / "whole"))

    def failing(state: Any, path: Path) -> None:
        asked.append(path.stem == name)
        if sum(asked) == last:
            path.write_bytes(b"half")
            raise StoppedError
        save(state, path)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", failing)
        with pytest.raises(StoppedError):
            make(data, tmp_path / "stopped").run()
    make(data, tmp_path / "stopped", seed=9).run()
    for file in ("checkpoint.pt", "model.pt"):
        assert same(*(state_of(tmp_path / run / file) for run in ("whole", "stopped"))), file
    assert not list((tmp_path / "stopped").glob("*.part"))


@pytest.mark.parametrize(
    ("make", "other"), [(grader, {"stages": [[32, 2, 0, 0]]}), (marker, {"steps": 16})]
)
def test_another_plan_is_refused(
    make: Make, other: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    """A checkpoint of another plan is named and refused, not continued on a wrong schedule."""
    make(data, tmp_path).run()
    with pytest.raises(UsageError, match=r"checkpoint\.pt: of a run"):
        make(data, tmp_path, **other).run()


@BOTH
def test_a_finished_run_does_nothing_more(make: Make, data: Path, tmp_path: Path) -> None:
    """Started again it changes no file."""
    make(data, tmp_path).run()
    before = {p: p.read_bytes() for p in tmp_path.iterdir() if p.suffix != ".npy"}
    make(data, tmp_path, seed=5).run()
    assert {p: p.read_bytes() for p in tmp_path.iterdir() if p.suffix != ".npy"} == before


@BOTH
def test_kept_weights_are_the_average_in_half_precision(
    make: Make, data: Path, tmp_path: Path
) -> None:
    """``model.pt`` fits the network, and is the checkpoint's average, not its last step."""
    recipe = make(data, tmp_path)
    recipe.run()
    kept, checkpoint = state_of(tmp_path / "model.pt"), state_of(tmp_path / "checkpoint.pt")
    averages = {
        name.removeprefix("module."): value.half() if value.is_floating_point() else value
        for name, value in checkpoint["average"].items()
        if name.startswith("module.")
    }
    assert same(kept, averages)
    assert not same(kept, half_precision(recipe.network))
    recipe.network.load_state_dict(kept)


def test_held_out_pictures_are_not_trained_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither recipe ever draws one."""
    drawn: set[str] = set()
    step, look = classifier._Run.step, Patches._seen

    def watched(run: Any, numbers: NDArray[np.int64], *arguments: Any) -> Any:
        items = [run.album.crops.items[row] for row in run.album.rows[numbers]]
        drawn.update(f"{i.source}/{i.path.name}" for i in items)
        return step(run, numbers, *arguments)

    def seen(patches: Patches, number: int, *arguments: Any) -> Any:
        item = patches.images[number]
        drawn.add(f"{item.discs_known}/{item.name}")
        return look(patches, number, *arguments)

    monkeypatch.setattr(classifier._Run, "step", watched)
    monkeypatch.setattr(Patches, "_seen", seen)
    grader(data, tmp_path / "grader", samples_an_epoch=200).run()
    marker(data, tmp_path / "marker").run()
    assert drawn == (
        {f"odir/{n}.png" for n in range(5, 20)}
        | {f"idrid_grading/IDRiD_{n:03}.png" for n in (1, 2)}
        | {f"True/IDRiD_{n:02}.jpg" for n in (1, 2)}
        | {f"False/IDRiD_{n:03}.png" for n in (1, 2)}
    )


def test_stages_come_in_order(tmp_path: Path) -> None:
    """One entry an epoch, sizes and epochs as whole numbers though JSON has them as it likes."""
    recipe = grader(tmp_path, tmp_path, stages=[[160.0, 2.0, 1.0, 2], [192, 1, 0.5, 0.25]])
    first = Stage(160, 2, 1.0, 2.0)
    assert recipe.epochs() == [first, first, Stage(192, 1, 0.5, 0.25)]
    assert all(isinstance(s.size, int) and isinstance(s.epochs, int) for s in recipe.epochs())
