"""The teacher: what it sees, what it gives, which of its weights learn, and how it resumes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from medlocker_dicom.bundles.preprocess import normalise
from medlocker_dicom.training import teacher
from medlocker_dicom.training.augment import turned
from medlocker_dicom.training.descent import Descent
from medlocker_dicom.training.photographs import Crops
from medlocker_dicom.training.teacher import (
    CHANNELS,
    LEVELS,
    Teacher,
    TeacherRecipe,
    load_teacher,
)
from training_sets import LOOK, quicken, ringed, rings, same, state_of

CPU = torch.device("cpu")
STILL = tuple(
    f"backbone.{name}." for name in ("_conv_stem", "_bn0", "_blocks.0", "_blocks.1", "_blocks.2")
)

pytestmark = pytest.mark.usefixtures("_quick")


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quicken(monkeypatch)


def views() -> NDArray[np.uint8]:
    """Return two eyes."""
    return np.stack([rings(1, 0, LOOK), rings(4, 1, LOOK)])


def recipe(out: Path, **fields: Any) -> TeacherRecipe:
    """Return a recipe of two epochs of two steps; `fields` differ."""
    plan: dict[str, Any] = {"epochs": 2, "samples_an_epoch": 8, "batch_size": 4} | fields
    return TeacherRecipe(out, **plan)


@torch.no_grad()
@pytest.mark.parametrize("side", [LOOK, 96])
def test_the_teacher_gives_grades_and_maps(side: int) -> None:
    """Five logits; maps at 1/4, 1/8, 1/16 and 1/32 of the side; other eyes, other answers."""
    quiet = Teacher().eval()
    inputs = torch.from_numpy(normalise(np.stack([rings(1, 0, side), rings(4, 1, side)])))
    logits, maps = quiet(inputs), quiet.maps(inputs)
    assert logits.shape == (2, 5)
    assert [found.shape for found in maps] == [
        (2, channels, side // step, side // step)
        for channels, step in zip(CHANNELS, (4, 8, 16, 32), strict=True)
    ]
    for answer in (logits, *maps):
        assert answer.dtype == torch.float32
        assert torch.isfinite(answer).all()
        assert not torch.allclose(answer[0], answer[1], atol=0.01)


@torch.no_grad()
def test_maps_are_the_last_of_their_size() -> None:
    """Each is what the last block of its side gave: no later one sees as many places."""
    quiet, outputs = Teacher().eval(), list[torch.Tensor]()
    for block in quiet.backbone._blocks:
        block.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    maps = quiet.maps(torch.from_numpy(normalise(views())))
    last = {output.shape[-1]: number for number, output in enumerate(outputs)}
    assert tuple(last[LOOK // step] for step in (4, 8, 16, 32)) == LEVELS
    assert all(found is outputs[number] for number, found in zip(LEVELS, maps, strict=True))


@torch.no_grad()
def test_the_teacher_sees_as_imagenet_taught_it() -> None:
    """Its features are those of the package's own network for levels as that one wants them."""
    quiet = Teacher().eval()
    levels = torch.from_numpy(views()).permute(0, 3, 1, 2).float()
    features = quiet.backbone.extract_features((levels - 127) / 128)
    logits = quiet.head(features.mean((2, 3)))
    assert torch.allclose(quiet(torch.from_numpy(normalise(views()))), logits, atol=1e-3)


def test_frozen_blocks_keep_their_mode() -> None:
    """In training their statistics rest, the others' do not."""
    loud = Teacher().train()
    modes = {
        name: module.training
        for name, module in loud.named_modules()
        if "bn" in name.rpartition(".")[2]
    }
    assert {name for name, training in modes.items() if not training} == {
        name for name in modes if f"{name}.".startswith(STILL)
    }
    assert sum(modes.values()) > 20
    assert not any(module.training for module in loud.eval().modules())


def test_what_is_frozen_stays_and_the_rest_learns(tmp_path: Path) -> None:
    """Weights and statistics of the first blocks are ImageNet's; every other one has moved."""
    recipe(tmp_path).run(ringed(15))
    before = Teacher().state_dict()
    for part, prefix in (("network", ""), ("average", "module.")):
        after = state_of(tmp_path / "checkpoint.pt")[part]
        stayed = {name for name, value in before.items() if same(value, after[prefix + name])}
        assert stayed == {name for name in before if name.startswith(STILL)}


def test_the_teacher_learns(tmp_path: Path) -> None:
    """The loss falls clearly; the last row has figures of the held-out pictures."""
    crops = ringed(25)
    recipe(tmp_path, epochs=5, samples_an_epoch=32, batch_size=8, learning_rate=2e-3).run(crops)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3, 4]
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert ["val" in row for row in rows] == [False] * 4 + [True]
    assert rows[-1]["val"]["n"] == 5


class StoppedError(Exception):
    """Stands for the power cut."""


def test_a_stopped_teacher_ends_as_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in its second epoch, dropout and all, it ends bit-equal."""
    crops, step, taken = ringed(15), Descent.step, list[int]()
    recipe(tmp_path / "whole").run(crops)

    def failing(descent: Descent, loss: torch.Tensor) -> float:
        if len(taken) == 3:
            raise StoppedError
        taken.append(1)
        return step(descent, loss)

    with monkeypatch.context() as patch:
        patch.setattr(Descent, "step", failing)
        with pytest.raises(StoppedError):
            recipe(tmp_path / "stopped").run(crops)
    assert state_of(tmp_path / "stopped" / "checkpoint.pt")["done"] == 1
    torch.manual_seed(77)
    recipe(tmp_path / "stopped").run(crops)
    for name in ("checkpoint.pt", "model.pt"):
        assert same(*(state_of(tmp_path / run / name) for run in ("whole", "stopped"))), name


def test_a_finished_teacher_learns_nothing_more(tmp_path: Path) -> None:
    """Started again it changes no file."""
    recipe(tmp_path, epochs=1).run(ringed(10))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    recipe(tmp_path, epochs=1).run(ringed(10))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_loaded_teacher_is_the_average(tmp_path: Path) -> None:
    """It answers as the averaged weights do, and is not in training."""
    recipe(tmp_path, epochs=1).run(ringed(10))
    loaded = load_teacher(tmp_path, CPU)
    assert not loaded.training
    average = Teacher().eval()
    average.load_state_dict(
        {
            name.removeprefix("module."): value
            for name, value in state_of(tmp_path / "checkpoint.pt")["average"].items()
            if name.startswith("module.")
        }
    )
    inputs = torch.from_numpy(normalise(views()))
    with torch.no_grad():
        assert torch.allclose(loaded(inputs), average(inputs), atol=0.02)
        assert not torch.allclose(loaded(inputs), Teacher().eval()(inputs), atol=0.02)


def test_held_out_pictures_are_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher learns from all training pictures and from no other."""
    crops = ringed(10)
    pixels = crops.pixels.copy()
    pixels[:, 0, 0] = np.arange(10)[:, None]  # a corner that tells which it is
    shown = set[int]()

    def watched(crop: NDArray[np.uint8], *arguments: Any) -> NDArray[np.uint8]:
        shown.add(int(crop[0, 0, 0]))
        return turned(crop, *arguments)

    monkeypatch.setattr(teacher, "turned", watched)
    recipe(tmp_path, epochs=1, samples_an_epoch=40, batch_size=20).run(Crops(crops.items, pixels))
    assert shown == set(range(5, 10))
