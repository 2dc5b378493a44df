"""How a student learns from its teacher: maps and grades of the very view that it sees."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from training_sets import HINTS, LOOK, TinyGrader, quicken, ringed, rings, same, state_of

from medlocker_dicom.bundles import networks
from medlocker_dicom.training import classifier
from medlocker_dicom.training.album import Album, open_album
from medlocker_dicom.training.checkpoint import Checkpoint
from medlocker_dicom.training.classifier import POSES, ClassifierRecipe, _Features, _posed, _Run
from medlocker_dicom.training.family import FAMILY, Architecture
from medlocker_dicom.training.grading import predict
from medlocker_dicom.training.teacher import CHANNELS

CPU = torch.device("cpu")
VIEWS = 64
Make = Callable[..., ClassifierRecipe]

pytestmark = pytest.mark.usefixtures("one_thread", "_quick")


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quicken(monkeypatch)


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Album:
    """Return an album of a few eyes."""
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        return open_album(ringed(20), tmp_path_factory.mktemp("teacher"), VIEWS, CPU)


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> Callable[[Album], None]:
    """Return what lets recipes open an album that is already there."""

    def use(album: Album) -> None:
        monkeypatch.setattr(classifier, "load_crops", lambda *_: album.crops)
        monkeypatch.setattr(classifier, "open_album", lambda *_: album)

    return use


@pytest.fixture
def recipe(book: Album, opens: Callable[[Album], None], tmp_path: Path) -> Make:
    """Return what makes a recipe on the album of the module; fields differ."""
    opens(book)

    def make(network: nn.Module | None = None, **fields: Any) -> ClassifierRecipe:
        plan: dict[str, Any] = {
            "network": network or TinyGrader(),
            "hint_layers": HINTS,
            "data_dir": "",
            "output_dir": str(tmp_path / "out"),
            "teacher_dir": "",
            "stages": [[32, 4, 1.0, 1.0]],
            "samples_an_epoch": VIEWS,
            "batch_size": 16,
            "learning_rate": 2e-2,
            "halved": False,
        }
        return ClassifierRecipe(**(plan | fields))

    return make


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return the rows that runs keep, and keep nothing else."""
    rows: list[dict[str, Any]] = []

    def keep(_checkpoint: Checkpoint, _done: int, row: dict[str, Any]) -> None:
        rows.append(row)

    monkeypatch.setattr(Checkpoint, "keep", keep)
    return rows


def test_a_hint_is_taken(recipe: Make, kept: list[dict[str, Any]]) -> None:
    """The student's maps come nearer to the teacher's, where a hint asks for it."""
    recipe(stages=[[32, 8, 5.0, 0.0]]).run()
    hinted = [row["hint"] for row in kept]
    kept.clear()
    recipe(stages=[[32, 8, 0.0, 0.0]]).run()
    plain = [row["hint"] for row in kept]
    assert hinted[-1] < 0.9 * hinted[0]
    assert hinted[-1] < 0.9 * plain[-1]


def test_taught_grades_are_taken(
    recipe: Make, book: Album, opens: Callable[[Album], None], tmp_path: Path
) -> None:
    """A teacher that is sure of grade 3, heard loudly, gets a student that says grade 3."""
    sure = np.tile(np.array([0, 0, 0, 9, 0], np.float16), (VIEWS, 1))
    opens(replace(book, answers=book.answers | {"logits": sure}))
    recipe(stages=[[32, 6, 0.0, 50.0]]).run()
    network = TinyGrader()
    network.load_state_dict(state_of(tmp_path / "out" / "checkpoint.pt")["network"])
    crops = np.stack([rings(grade, 50, 32) for grade in range(5)])
    assert predict(network, crops, 32, CPU).argmax(1).tolist() == [3] * 5


def test_weights_of_the_losses_count(recipe: Make, kept: list[dict[str, Any]]) -> None:
    """Other weights of hint and taught grades lead elsewhere; equal ones to the same."""
    ends = []
    for weights in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.0, 1.0)):
        made = recipe(stages=[[32, 1, *weights]])
        made.run()
        ends.append(made.network.state_dict())
    assert len(kept) == 4
    assert same(ends[2], ends[3])
    assert not any(same(ends[2], end) for end in ends[:2])
    assert not same(ends[0], ends[1])


def test_the_seed_is_that_of_the_run(recipe: Make, kept: list[dict[str, Any]]) -> None:
    """What was drawn before, by a teacher that had to be trained, say, changes nothing."""
    rows = []
    for before in (1, 2):
        made = recipe(TinyGrader())
        torch.manual_seed(before)
        made.run()
        rows.append([{k: v for k, v in row.items() if k != "seconds"} for row in kept])
        kept.clear()
    assert str(rows[0]) == str(rows[1])


def test_the_eight_poses_differ() -> None:
    """Each turns or mirrors a square in its own way, and none changes its content."""
    square = np.arange(9).reshape(3, 3)
    poses = [_posed(square, pose) for pose in range(POSES)]
    assert len({pose.tobytes() for pose in poses}) == 8
    for pose in poses:
        assert pose.flags.c_contiguous
        assert sorted(pose.ravel()) == list(range(9))
        assert pose[1, 1] == 4
    assert np.array_equal(poses[0], square)


def pooled(views: NDArray[np.uint8], side: int) -> NDArray[np.float16]:
    """Return maps (B, 3, side, side) of mean colours."""
    batch, whole = views.shape[:2]
    blocks = views.reshape(batch, side, whole // side, side, whole // side, 3).mean((2, 4))
    return np.asarray(blocks.transpose(0, 3, 1, 2), np.float16)


def test_views_and_maps_turn_alike(
    recipe: Make, book: Album, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A teacher whose maps are colours wants those that the student sees, in every pose."""
    shown = np.stack([book.view(number, LOOK) for number in range(VIEWS)])
    maps = {"middle": pooled(shown, 4), "top": pooled(shown, 2)}
    still = np.stack([np.zeros(3), np.ones(3)]).astype(np.float32)[:, :, None, None]
    album = replace(book, answers=book.answers | maps, spreads=dict.fromkeys(maps, still))
    monkeypatch.setattr(classifier, "CHANNELS", (3, 3))
    monkeypatch.setattr(classifier, "recoloured", lambda view, _: view)
    monkeypatch.setattr(classifier, "normalise", lambda v: v.transpose(0, 3, 1, 2).astype("f4"))
    made = recipe(stages=[[LOOK, 1, 1.0, 0.0]])
    run, seen, wanted = _Run(made, album, tmp_path, CPU), list[Any](), list[Any]()
    run.student.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    loss = classifier.feature_loss

    def watched(predicted: torch.Tensor, teachers: torch.Tensor) -> torch.Tensor:
        wanted.append(teachers)
        return loss(predicted, teachers)

    monkeypatch.setattr(classifier, "feature_loss", watched)
    run.step(np.arange(32), made.epochs()[0], np.random.default_rng(0))
    for side, teachers in zip((4, 2), wanted, strict=True):
        colours = nn.functional.adaptive_avg_pool2d(seen[0], (side, side))
        assert torch.allclose(teachers, colours, atol=0.2)
    unposed = torch.from_numpy(shown[:32].transpose(0, 3, 1, 2).astype(np.float32))
    turned = (unposed != seen[0]).flatten(1).any(1).float().mean()
    assert 0.7 < turned < 1


def test_maps_are_standardised(recipe: Make, book: Album, tmp_path: Path) -> None:
    """What a student has to predict has mean 0 and spread 1 in each channel."""
    run = _Run(recipe(), book, tmp_path, CPU)
    poses = np.zeros(VIEWS, np.int64)
    for name, channels in zip(("middle", "top"), CHANNELS, strict=True):
        maps = run._maps(name, np.arange(VIEWS), poses)
        assert maps.shape[:2] == (VIEWS, channels)
        assert maps.mean((0, 2, 3)).abs().max() < 0.02
        assert torch.allclose(maps.std((0, 2, 3)), torch.ones(channels), atol=0.03)


def test_tokens_lie_as_their_patches_do() -> None:
    """Of a transformer's tokens the first tells of no place; the others go row by row."""
    features = _Features(layer := nn.Sequential(nn.Identity()), "0")
    tokens = torch.arange(2 * 10 * 3.0).reshape(2, 10, 3)
    layer(tokens)
    maps = features.map()
    assert maps.shape == (2, 3, 3, 3)
    assert torch.equal(maps[1, :, 0, 2], tokens[1, 3])
    assert torch.equal(maps[1, :, 2, 0], tokens[1, 7])


@pytest.mark.parametrize("architecture", FAMILY, ids=lambda a: a.name)
def test_every_backbone_can_learn(
    architecture: Architecture, recipe: Make, kept: list[dict[str, Any]]
) -> None:
    """Two steps as its bundle says, in small: finite losses, and a gradient for every weight."""
    network = getattr(networks, architecture.name)()
    size = 224 if architecture.name == "vit" else 96
    made = recipe(
        network,
        hint_layers=list(architecture.hint_layers),
        stages=[[size, 1, *architecture.stages[0][2:]]],
        samples_an_epoch=4,
        batch_size=2,
        learning_rate=architecture.learning_rate,
        halved=architecture.halved,
    )
    made.run()
    (row,) = kept
    assert row["val"]["n"] == 5
    assert all(np.isfinite(row[name]) for name in ("grade", "hint", "taught"))
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    assert parameter.dtype == torch.float32
