"""How a student learns from its teacher: maps of the very input, grades of the same view."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from medlocker_dicom.bundles import networks
from medlocker_dicom.training import classifier
from medlocker_dicom.training.album import Album, open_album
from medlocker_dicom.training.checkpoint import Checkpoint
from medlocker_dicom.training.classifier import POSES, ClassifierRecipe, _posed, _Run
from medlocker_dicom.training.descent import half_precision
from medlocker_dicom.training.family import FAMILY, Architecture
from medlocker_dicom.training.features import Feature
from medlocker_dicom.training.grading import predict
from medlocker_dicom.training.teacher import CHANNELS, Teacher
from training_sets import HINTS, TinyGrader, quicken, ringed, rings, same, state_of

CPU = torch.device("cpu")
VIEWS = 64
Make = Callable[..., ClassifierRecipe]

pytestmark = pytest.mark.usefixtures("_quick")


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quicken(monkeypatch)


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Album:
    """Return an album of a few eyes."""
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        return open_album(ringed(20), tmp_path_factory.mktemp("teacher"), VIEWS, CPU)


@pytest.fixture(scope="module")
def tutor() -> Teacher:
    """Return a teacher that knows ImageNet alone."""
    torch.manual_seed(0)
    return Teacher().eval()


@pytest.fixture
def opens(tutor: Teacher, monkeypatch: pytest.MonkeyPatch) -> Callable[[Album], None]:
    """Return what lets recipes open an album, and load a teacher, that are already there."""

    def use(album: Album) -> None:
        monkeypatch.setattr(classifier, "load_crops", lambda *_: album.crops)
        monkeypatch.setattr(classifier, "open_album", lambda *_: album)
        monkeypatch.setattr(classifier, "load_teacher", lambda *_: tutor)

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
    opens(replace(book, logits=sure))
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


def test_the_teacher_sees_what_the_student_sees(
    recipe: Make,
    book: Album,
    tutor: Teacher,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both get the very same tensor; each hint has to predict the map of its level for it."""
    made = recipe()
    run = _Run(made, book, tutor, tmp_path)
    seen, shown, pairs = list[Any](), list[Any](), list[Any]()
    run.student.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    maps, loss = tutor.maps, classifier.feature_loss

    def watched(inputs: torch.Tensor) -> list[torch.Tensor]:
        shown.append(inputs)
        return maps(inputs)

    def paired(*pair: torch.Tensor) -> torch.Tensor:
        pairs.append(pair)
        return loss(*pair)

    monkeypatch.setattr(tutor, "maps", watched)
    monkeypatch.setattr(classifier, "feature_loss", paired)
    losses = run.step(np.arange(16), made.epochs()[0], np.random.default_rng(0))
    assert seen[0] is shown[0]
    assert len(seen) == len(shown) == 1
    with torch.no_grad(), half_precision(CPU):
        again = maps(seen[0])
    for (predicted, wanted), expected, channels in zip(pairs, again, CHANNELS, strict=True):
        assert torch.equal(wanted, expected)
        assert predicted.shape[:2] == wanted.shape[:2] == (16, channels)
    assert losses[1] == pytest.approx(sum(loss(*pair).item() for pair in pairs), rel=1e-5)


def test_the_teacher_learns_nothing(
    recipe: Make, book: Album, tutor: Teacher, tmp_path: Path
) -> None:
    """A step gives it no gradient and leaves its weights and statistics; the student's move."""
    made = recipe(stages=[[32, 1, 1.0, 1.0]])
    run = _Run(made, book, tutor, tmp_path)
    before = deepcopy(tutor.state_dict())
    students = deepcopy(run.student.state_dict())
    hints = deepcopy(run.hints.state_dict())
    run.student.train()
    run.step(np.arange(16), made.epochs()[0], np.random.default_rng(0))
    assert not tutor.training
    assert all(parameter.grad is None for parameter in tutor.parameters())
    assert same(dict(before), dict(tutor.state_dict()))
    assert not any(torch.equal(v, students[k]) for k, v in run.student.state_dict().items())
    assert not any(torch.equal(v, hints[k]) for k, v in run.hints.state_dict().items())


def test_views_are_posed(
    recipe: Make, book: Album, tutor: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of eight views about seven are seen turned or mirrored, and all in one of the eight poses."""
    monkeypatch.setattr(classifier, "recoloured", lambda view, _: view)
    monkeypatch.setattr(classifier, "normalise", lambda v: v.transpose(0, 3, 1, 2).astype("f4"))
    made = recipe()
    run, seen = _Run(made, book, tutor, tmp_path), list[Any]()
    run.student.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    run.step(np.arange(32), made.epochs()[0], np.random.default_rng(0))
    found = []
    for number, inputs in enumerate(seen[0].permute(0, 2, 3, 1).numpy()):
        poses = [_posed(book.view(number, 32), pose) for pose in range(POSES)]
        found.append([np.array_equal(inputs, pose) for pose in poses].index(True))
    assert 0.7 < np.mean(np.array(found) > 0) < 1
    assert len(set(found)) >= 6


@pytest.mark.parametrize("layers", [HINTS[:3], [*HINTS, HINTS[0]]])
def test_hint_layers_are_as_many_as_the_teachers_maps(
    layers: list[str], recipe: Make, book: Album, tutor: Teacher, tmp_path: Path
) -> None:
    """Three or five are refused at the start."""
    with pytest.raises(ValueError, match="zip"):
        _Run(recipe(hint_layers=layers), book, tutor, tmp_path)


def test_the_teacher_is_that_of_its_folder(
    recipe: Make, tutor: Teacher, kept: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that filled the album gives the maps too."""
    asked = list[Any]()

    def watched(*arguments: Any) -> Teacher:
        asked.append(arguments)
        return tutor

    made = recipe(stages=[[32, 1, 1.0, 1.0]], teacher_dir="shared/teacher")
    monkeypatch.setattr(classifier, "load_teacher", watched)
    made.run()
    assert asked == [(Path("shared/teacher"), CPU)]
    assert len(kept) == 1


def test_tokens_lie_as_their_patches_do() -> None:
    """Of a transformer's tokens the first tells of no place; the others go row by row."""
    features = Feature(layer := nn.Sequential(nn.Identity()), "0")
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
    size = architecture.input_size if architecture.name == "vit" else 96
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
