"""The teacher: feature maps, its grades, and how a recipe learns from both."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from training_sets import Shot, TinyGrader, rings, same, state_of, write_graded

from medlocker_dicom.bundles.preprocess import normalise
from medlocker_dicom.training import classifier, teacher
from medlocker_dicom.training.classifier import ClassifierRecipe
from medlocker_dicom.training.teacher import Backbone, Probe, fit_probe

pytestmark = pytest.mark.usefixtures("one_thread")

SIDE = 32
Images = NDArray[np.uint8]


class Colours:
    """Stands for the backbone: feature maps of five channels, from the views' own colours."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.sides: list[int] = []

    def __call__(self, views: Images) -> torch.Tensor:
        """Return means over 8 x 8 px of the colours, and of their products with each other."""
        self.sides.append(views.shape[1])
        rgb = torch.from_numpy(views).permute(0, 3, 1, 2).float() / 255
        maps = torch.cat([rgb, rgb[:, :1] * rgb[:, 1:2], rgb[:, 1:2] * rgb[:, 2:]], 1)
        return torch.nn.functional.avg_pool2d(maps, 8)


def tinted(grade: int, seed: int, side: int = 40) -> Images:
    """Return a disc whose brightness tells its grade."""
    picture = rings(0, seed, side)
    return np.asarray(picture * (0.2 + 0.18 * grade), np.uint8)


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> list[Colours]:
    """Let recipes learn from `Colours` at 32 px; return those that they make."""
    made: list[Colours] = []

    def make(device: torch.device) -> Colours:
        made.append(Colours(device))
        return made[-1]

    monkeypatch.setattr(classifier, "Backbone", make)
    monkeypatch.setattr(classifier, "CHANNELS", 5)
    monkeypatch.setattr(classifier, "SIDE", SIDE)
    monkeypatch.setattr(teacher, "SIDE", SIDE)
    return made


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return all sets, with pictures of every grade in one of them."""
    shots = [
        Shot(f"{n}.png", n % 5, "val" if n < 5 else "train", tinted(n % 5, n)) for n in range(25)
    ]
    return write_graded(tmp_path_factory.mktemp("sets"), {"odir": shots})


@pytest.fixture
def recipe(data: Path, tmp_path: Path) -> Callable[..., ClassifierRecipe]:
    """Return what makes a recipe that writes into a named folder."""

    def make(out: str, stages: list[list[float]], seed: int = 0, **more: Any) -> ClassifierRecipe:
        plan: dict[str, Any] = {"samples_an_epoch": 32, "batch_size": 8, "crop": 40} | more
        return ClassifierRecipe(
            TinyGrader(seed),
            str(data),
            str(tmp_path / out),
            stages,
            feature_layer="features",
            **plan,
        )

    return make


def test_the_backbone_gives_feature_maps() -> None:
    """EfficientNet-Lite0, frozen: 1280 channels at a 32nd of the size, others for another eye."""
    backbone = Backbone(torch.device("cpu"))
    views = np.stack([rings(1, 0, 64), rings(4, 1, 64)])
    maps = backbone(views)
    assert maps.shape == (2, teacher.CHANNELS, 2, 2)
    assert maps.dtype == torch.float32
    assert not maps.requires_grad
    assert torch.isfinite(maps).all()
    assert not torch.allclose(maps[0], maps[1], atol=0.1)
    assert torch.equal(backbone(views), maps)


def test_a_probe_is_the_softmax_of_the_mean_features() -> None:
    """Worked out by hand for two features and two grades."""
    probe = Probe(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([0.0, 1.0]))
    maps = torch.tensor([[[[0.0, 4.0]], [[1.0, 0.0]]]])  # means 2 and 1/2
    logits = torch.tensor([[2.0, 2.0]])
    assert torch.allclose(probe(maps), logits.softmax(1))


def test_a_probe_learns_the_grades(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fitted to features that tell the grades, it gives them back; the batch changes nothing."""
    monkeypatch.setattr(teacher, "PROBE_C", 100.0)
    grades = np.arange(40) % 5
    crops = np.stack([tinted(n % 5, n) for n in range(40)])
    backbone: Any = Colours(torch.device("cpu"))
    probe = fit_probe(backbone, crops, grades)
    assert set(backbone.sides) == {teacher.SIDE}
    views = np.stack([tinted(grade, 100 + grade, teacher.SIDE) for grade in range(5)])
    probabilities = probe(backbone(views))
    assert probabilities.dtype == torch.float32
    assert torch.allclose(probabilities.sum(1), torch.ones(5))
    assert probabilities.argmax(1).tolist() == [0, 1, 2, 3, 4]
    again = fit_probe(backbone, crops, grades, batch=7)
    assert torch.allclose(again.weight, probe.weight, rtol=1e-2, atol=1e-2)


def test_a_hint_turns_the_features_towards_the_teachers(
    recipe: Callable[..., ClassifierRecipe], colours: list[Colours], tmp_path: Path
) -> None:
    """With a hint the projected features come to point where the teacher's do."""
    plan = {"samples_an_epoch": 96, "learning_rate": 2e-2}
    recipe("hinted", [[SIDE, 4, 5.0]], **plan).run()
    recipe("plain", [[SIDE, 4]], **plan).run()
    assert len(colours) == 1
    views = np.stack([tinted(grade, 7, SIDE) for grade in range(5)])
    losses = []
    for name in ("hinted", "plain"):
        state = state_of(tmp_path / name / "checkpoint.pt")
        network = TinyGrader()
        network.load_state_dict(state["student"])
        network.eval()
        projection = torch.nn.Conv2d(16, 5, 1)
        projection.load_state_dict(state["hint"])
        inputs = torch.from_numpy(normalise(views))
        with torch.no_grad():
            features = projection(network.features(inputs))
        losses.append(float(classifier.feature_loss(features, colours[0](views))))
    assert losses[0] < 0.3
    assert losses[1] > 2 * losses[0]


def test_the_teacher_sees_no_less_than_it_grades_best(
    recipe: Callable[..., ClassifierRecipe], colours: list[Colours]
) -> None:
    """A smaller student's view reaches the teacher at its own size, a larger one as it is."""
    recipe("small", [[24, 1, 1.0]]).run()
    recipe("large", [[40, 1, 1.0]]).run()
    assert [set(made.sides) for made in colours] == [{SIDE}, {40}]


def test_taught_grades_change_what_is_learnt(
    recipe: Callable[..., ClassifierRecipe],
    colours: list[Colours],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A teacher that is sure of grade 3, heard loudly, gets a student that says grade 3."""
    sure = Probe(torch.zeros(5, 5), torch.tensor([0.0, 0, 0, 9, 0]))
    monkeypatch.setattr(classifier, "fit_probe", lambda *_: sure)
    plan = {"samples_an_epoch": 128, "learning_rate": 2e-2}
    recipe("taught", [[SIDE, 4, 0.0, 50.0]], **plan).run()
    assert len(colours) == 1
    network = TinyGrader()
    network.load_state_dict(state_of(tmp_path / "taught" / "checkpoint.pt")["student"])
    crops = np.stack([tinted(grade, 50, SIDE) for grade in range(5)])
    said = classifier.predict(network, crops, SIDE, torch.device("cpu"))
    assert said.argmax(1).tolist() == [3] * 5


def test_a_taught_run_resumes_exactly(
    recipe: Callable[..., ClassifierRecipe],
    colours: list[Colours],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The probe is fitted again, to the same: a run stopped in between ends bit-equal."""
    stages = [[24, 2, 1.0, 1.0], [SIDE, 1, 0.5, 1.0]]
    recipe("whole", stages).run()
    epoch: Any = classifier._Run.epoch

    def failing(run: Any, number: int, stage: Any) -> None:
        if number == 2:
            raise InterruptedError
        epoch(run, number, stage)

    with monkeypatch.context() as patch:
        patch.setattr(classifier._Run, "epoch", failing)
        with pytest.raises(InterruptedError):
            recipe("stopped", stages).run()
    recipe("stopped", stages, seed=4).run()
    assert len(colours) == 3
    for name in ("checkpoint.pt", "model.pt"):
        assert same(*(state_of(tmp_path / run / name) for run in ("whole", "stopped"))), name


def test_a_run_can_start_from_another_ones_weights(
    recipe: Callable[..., ClassifierRecipe], tmp_path: Path
) -> None:
    """What the network held before does not matter then."""
    recipe("first", [[24, 1]]).run()
    start = str(tmp_path / "first" / "model.pt")
    for name, seed in (("one", 1), ("two", 2)):
        recipe(name, [[24, 1]], seed, start=start).run()
    recipe("other", [[24, 1]], 1).run()
    one, two, other = (state_of(tmp_path / n / "model.pt") for n in ("one", "two", "other"))
    assert same(one, two)
    assert not same(one, other)
