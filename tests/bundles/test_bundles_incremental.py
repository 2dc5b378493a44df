"""What is computed anew beside a known picture is what the whole network says."""

import io
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from medlocker_dicom.bundles import networks
from medlocker_dicom.bundles.bundle import read_bundle
from medlocker_dicom.bundles.engine import OnnxEngine, TorchEngine, near
from medlocker_dicom.bundles.incremental import Incremental, Near, Slide, parts_of
from medlocker_dicom.bundles.models import Classifier, Ensemble
from tiny_bundles import GRADES, write_bundle, write_classifier

SIDE = 48
Floats = NDArray[np.float32]


Run = Callable[[Any, torch.Tensor], torch.Tensor]


class Net(nn.Module):
    """A network of one's own: what it does with its layers is given."""

    def __init__(self, run: Run, **layers: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.last = nn.Linear(4, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.last(self.run(self, image).mean((2, 3)))
        return answer


def residual(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    answer: torch.Tensor = layer(x) + x
    return answer


def exported(network: nn.Module) -> onnx.ModelProto:
    """Export as the engine does."""
    torch.manual_seed(1)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            (torch.zeros(1, 3, SIDE, SIDE),),
            stream,  # type: ignore[arg-type]  # a file is one of its own
            dynamo=False,
            input_names=["image"],
            output_names=["pred"],
            dynamic_axes={"image": {0: "n", 2: "h", 3: "w"}},
        )
    model = onnx.load_from_string(stream.getvalue())
    return onnx.shape_inference.infer_shapes(model)


def by_path(path: str) -> Callable[[Mapping[str, Floats]], Floats]:
    """Open it in plain ONNX Runtime."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs)[0]


def opened(model: onnx.ModelProto) -> Callable[[Floats], Floats]:
    """Open a whole network, which answers row by row."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return lambda rows: np.concatenate([session.run(None, {"image": r[None]})[0] for r in rows])


def changed(picture: Floats, rng: np.random.Generator, largest: int) -> Floats:
    """Put noise into a box of a picture (1, 3, S, S), often one at an edge or in a corner."""
    result, side = picture.copy(), picture.shape[2]
    height, width = rng.integers(1, largest + 1, 2)
    y, x = (rng.choice([0, side - n, rng.integers(0, side - n + 1)]) for n in (height, width))
    result[..., y : y + height, x : x + width] = rng.normal(size=(3, height, width))
    return result


def agree(model: onnx.ModelProto, parts: int, *, cut: bool = True) -> None:
    """Compare it on pictures of its own with the whole network, which has so many parts."""
    whole, asked = opened(model), list[int]()
    network = Incremental(lambda: model, by_path)
    assert len(network.parts) == parts

    def counted(inputs: Floats) -> Floats:
        asked.append(len(inputs))
        return whole(inputs)

    rng = np.random.default_rng(2)
    picture = rng.normal(size=(1, 3, SIDE, SIDE)).astype(np.float32)
    beside = Near(network, counted, picture, 2)
    for _ in range(12):
        views = np.concatenate([changed(picture, rng, SIDE // 4) for _ in range(3)])
        np.testing.assert_allclose(beside(views), whole(views), rtol=1e-4, atol=1e-5)
    assert set(network.trusted.values()) == {cut}
    assert (sum(asked) <= 3 * len(network.trusted)) == cut


NETS: dict[str, tuple[Callable[[], Net], int]] = {
    "stride, dilation, pads that differ": (
        lambda: Net(
            lambda n, x: n.c(functional.relu(n.b(functional.hardswish(n.a(x))))),
            a=nn.Conv2d(3, 8, (3, 5), stride=(1, 2), padding=(2, 0)),
            b=nn.Conv2d(8, 8, 3, dilation=2, padding=2, groups=4),
            c=nn.Conv2d(8, 4, (1, 7), padding=(0, 3)),
        ),
        3,
    ),
    "a large step that skips samples": (
        lambda: Net(
            lambda n, x: n.b(functional.relu(n.a(x))),
            a=nn.Conv2d(3, 8, 1, stride=3),
            b=nn.Conv2d(8, 4, 3, padding=1),
        ),
        2,
    ),
    "pooling, below zero": (
        lambda: Net(
            lambda n, x: n.b(functional.max_pool2d(n.a(x), 3, 2, 1) - 5.0),
            a=nn.Conv2d(3, 8, 3, padding=1),
            b=nn.Conv2d(8, 4, 3, padding=1),
        ),
        3,
    ),
    "a sum with what is slid over": (
        lambda: Net(
            lambda n, x: n.b(functional.relu(residual(n.a, n.c(x)))),
            c=nn.Conv2d(3, 8, 1),
            a=nn.Conv2d(8, 8, 3, padding=1),
            b=nn.Conv2d(8, 4, 3, padding=1),
        ),
        4,
    ),
    "what is read twice": (
        lambda: Net(
            lambda n, x: n.b(torch.cat([both := functional.silu(n.a(x)), both * both, both], 1)),
            a=nn.Conv2d(3, 4, 3, padding=1),
            b=nn.Conv2d(12, 4, 3, padding=1),
        ),
        4,
    ),
    "branches that meet": (
        lambda: Net(
            lambda n, x: n.d(
                torch.cat([n.a(x), n.b(x), functional.avg_pool2d(x, 3, 1, 1)], 1).clamp(-1, 1)
            ),
            a=nn.Conv2d(3, 4, 3, padding=1),
            b=nn.Conv2d(3, 4, 5, padding=2),
            d=nn.Conv2d(11, 4, 1),
        ),
        4,
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_a_window_is_enough(name: str) -> None:
    """Whatever slides over a picture, in the middle, at its edges and in its corners."""
    make, parts = NETS[name]
    agree(exported(make()), parts)


STOPS: dict[str, Run] = {
    "what sees everything": lambda n, x: n.b(x * x.mean((2, 3), keepdim=True).sigmoid()),
    "pooling that rounds up": lambda n, x: n.b(functional.max_pool2d(x, 3, 2, ceil_mode=True)),
    "a mean of those inside": lambda n, x: n.b(
        functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    ),
    "a constant of its own for each px": lambda n, x: n.b(x + n.places),
    "a constant for each column": lambda n, x: n.b(x * n.places[0, 0, 0]),
    "rows that are appended": lambda n, x: n.b(torch.cat([x, x], 2)),
    "what makes it larger": lambda n, x: n.b(functional.interpolate(x, scale_factor=2.0)),
}


@pytest.mark.parametrize("name", STOPS)
def test_where_a_window_may_not_be_enough(name: str) -> None:
    """The parts end before it; the rest is run whole, and agrees."""

    class Placed(Net):
        def __init__(self) -> None:
            super().__init__(
                lambda n, x: STOPS[name](n, functional.relu(n.a(x))),
                a=nn.Conv2d(3, 4, 3, padding=1),
                b=nn.Conv2d(4, 4, 3, padding=1),
            )
            self.places = nn.Parameter(torch.randn(1, 4, SIDE, SIDE))

    agree(exported(Placed()), 1)


def test_sizes_that_do_not_match() -> None:
    """What is spread over a tensor by its product with another is left to the rest."""
    net = Net(
        lambda n, x: n.b(n.a(x) * n.c(x)),
        a=nn.Conv2d(3, 4, 3, padding=1),
        c=nn.Conv2d(3, 4, SIDE, stride=SIDE),
        b=nn.Conv2d(4, 4, 3, padding=1),
    )
    model = exported(net)
    whole, network = opened(model), Incremental(lambda: model, by_path)
    picture = np.zeros((1, 3, SIDE, SIDE), np.float32)
    asked, rng = Near(network, whole, picture), np.random.default_rng(0)
    for _ in range(3):
        views = changed(picture, rng, 9)
        np.testing.assert_allclose(asked(views), whole(views), rtol=1e-4, atol=1e-6)
    assert network.trusted == {1: True}


MIXED: dict[str, Run] = {
    "rows that are counted once for all": lambda n, x: n.b(x.view(len(x), -1)[:, :4, None, None]),
    "a share of all rows": lambda n, x: n.b(x.softmax(0)),
    "the mean of the rows": lambda n, x: n.b(x - 0.5 * x.mean(0, keepdim=True)),
}


@pytest.mark.parametrize("name", MIXED)
def test_rows_that_are_mixed(name: str) -> None:
    """A network that is asked about one row at a time may do that: it goes on to be."""
    net = Net(
        lambda n, x: MIXED[name](n, functional.relu(n.a(x))),
        a=nn.Conv2d(3, 4, 3, padding=1),
        b=nn.Conv2d(4, 4, 1),
    )
    agree(exported(net), 1, cut=False)


def test_of_rests_a_few_are_kept() -> None:
    """Boxes of many sizes, each of which is cut at another depth: answers stay right."""
    layers = [nn.Conv2d(3, 4, 3, padding=1)]
    layers += [nn.Conv2d(4, 4, 5, padding=2) for _ in range(7)]
    model = exported(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    whole, network = opened(model), Incremental(lambda: model, by_path)
    picture = np.random.default_rng(1).normal(size=(1, 3, 120, 120)).astype(np.float32)
    asked = Near(network, whole, picture)
    for side in (4, 60, 75, 90, 4, 60):
        views = picture.copy()
        views[..., 8 : 8 + side, 5 : 5 + side] += 1
        np.testing.assert_allclose(asked(views), whole(views), rtol=1e-4, atol=1e-5)
    assert len(network.trusted) > 2
    assert len(network._rests) == 2


@pytest.mark.parametrize("trusted", [False, True])
def test_no_room_for_parts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, trusted: bool
) -> None:
    """What is cut out goes by way of a temporary folder: where there is none, all is run whole.

    Also what was cut before, and has to be opened again.
    """
    model = exported(NETS["branches that meet"][0]())
    whole, network = opened(model), Incremental(lambda: model, by_path)
    picture = np.zeros((1, 3, SIDE, SIDE), np.float32)
    views = changed(picture, np.random.default_rng(0), 9)
    asked = Near(network, whole, picture)
    if trusted:
        asked(views)
        network._rests.clear()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    for _ in range(2):
        assert np.array_equal(asked(views), whole(views))
    assert set(network.trusted.values()) == {trusted}


def test_no_part_is_left_where_all_goes_by_window() -> None:
    """Something has to remain that is run whole: it is what gives the answer."""
    model = exported(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)))
    assert len(parts_of(model.graph)) == 1


slides = st.builds(
    Slide,
    reach=st.integers(1, 9),
    stride=st.integers(1, 4),
    before=st.integers(0, 4),
    after=st.integers(0, 4),
)


@settings(max_examples=300, deadline=None)
@given(slide=slides, start=st.integers(0, 30), length=st.integers(1, 12), side=st.integers(12, 42))
def test_slides_by_counting(slide: Slide, start: int, length: int, side: int) -> None:
    """What a box touches, and what is seen from it, one sample after the other."""
    box = slice(min(start, side - length), min(start, side - length) + length)
    count = slide.count(side)
    spans = [range(o * slide.stride - slide.before, 0) for o in range(count)]
    spans = [range(span.start, span.start + slide.reach) for span in spans]
    assert spans[-1].stop <= side + slide.after < spans[-1].stop + slide.stride
    seeing = [o for o, span in enumerate(spans) if set(span) & set(range(box.start, box.stop))]
    found = slide.touched(box, count)
    assert 0 <= found.start < found.stop <= count
    assert set(seeing) <= set(range(found.start, found.stop))
    if seeing:
        assert (seeing[0], seeing[-1] + 1) == (found.start, found.stop)
    window = slide.window(found)
    assert (window.start, window.stop) == (spans[found.start].start, spans[found.stop - 1].stop)


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50", "densenet121", "mobilenetv3", "inceptionv3", "vgg16", "vit"]
)
def test_the_architectures(tmp_path: Path, export_cache: Path, name: str) -> None:
    """Beside a known picture each says what it says anyway; of all but ViT a part is enough.

    And of these a row's answer has the same bits alone.
    """
    torch.manual_seed(2)
    network = getattr(networks, name)().eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    made = f"medlocker_dicom.bundles.networks.{name}", {"num_classes": 5}, network
    side = 160 if name == "vit" else 96
    write_bundle(tmp_path / name, "dr-classifier", GRADES, side, made)
    engine = OnnxEngine(read_bundle(tmp_path / name), export_cache)
    rng = np.random.default_rng(3)
    picture = rng.normal(size=(1, 3, side, side)).astype(np.float32)
    views = np.concatenate([changed(picture, rng, 24) for _ in range(4)])
    whole = engine(views)
    beside = near(engine, picture)(views)
    size = np.abs(whole).max()
    assert np.abs(whole[0] - whole[1]).max() > 3e-4 * size
    np.testing.assert_allclose(beside, whole, atol=2e-5 * size)
    network = engine._incremental
    assert network is not None
    assert set(network.trusted.values()) <= {True}
    for workers in (1, 4):
        rows = Near(network, engine, picture, workers)(views)
        np.testing.assert_allclose(rows, whole, atol=2e-5 * size)
        alone = [Near(network, engine, picture)(view[None]) for view in views]
        assert np.array_equal(rows, np.concatenate(alone))
    assert bool(network.parts) == bool(network.trusted) == (name != "vit")


def test_pictures_that_differ_nowhere_or_everywhere(tmp_path: Path, export_cache: Path) -> None:
    """The same picture, one px of it, a batch of unlike ones, another picture."""
    engine = OnnxEngine(read_bundle(write_classifier(tmp_path / "grader")), export_cache)
    rng = np.random.default_rng(4)
    picture = rng.normal(size=(1, 3, 64, 64)).astype(np.float32)
    one = picture.copy()
    one[0, 1, 40, 3] += 1
    other = rng.normal(size=(1, 3, 64, 64)).astype(np.float32)
    asked = near(engine, picture)
    for views in (
        picture,
        one,
        np.concatenate([one, picture]),
        other,
        np.concatenate([one, other]),
    ):
        np.testing.assert_allclose(asked(views), engine(views), rtol=1e-4, atol=1e-5)


def test_an_ensemble_beside_a_crop(tmp_path: Path, export_cache: Path) -> None:
    """Models of two sizes, one of them in torch, which has no such engine and answers as ever."""
    bundles = [read_bundle(write_classifier(tmp_path / name, n)) for n, name in enumerate("ab")]
    ensemble = Ensemble(
        [
            Classifier(bundles[0], OnnxEngine(bundles[0], export_cache)),
            Classifier(bundles[1], TorchEngine(bundles[1])),
        ],
        [0.25, 0.75],
    )
    rng = np.random.default_rng(5)
    crop = rng.integers(0, 256, (100, 100, 3), np.uint8)
    views = np.repeat(crop[None], 3, 0)
    views[1, 20:40, 60:90] = 255
    views[2, :9, :9] = 0
    found = ensemble.near(crop).probabilities(views)
    np.testing.assert_allclose(found, ensemble.probabilities(views), rtol=1e-4)
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_a_cache_that_was_damaged(tmp_path: Path) -> None:
    """An engine that is open goes on, whole."""
    cache = tmp_path / "cache"
    engine = OnnxEngine(read_bundle(write_classifier(tmp_path / "grader")), cache)
    (path,) = cache.iterdir()
    path.write_bytes(b"noise")
    assert near(engine, np.zeros((1, 3, 64, 64), np.float32)) is engine
