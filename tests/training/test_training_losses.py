"""Losses, sampling and starting points, against values worked out by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from medlocker_dicom.bundles.unetplusplus import BLOCK, LesionUNetPlusPlus
from medlocker_dicom.training.checkpoint import half_precision
from medlocker_dicom.training.classifier import feature_loss
from medlocker_dicom.training.grading import (
    grade_loss,
    held_out_figures,
    predict,
    sampling_weights,
    training_rows,
)
from medlocker_dicom.training.photographs import EQUALISED, Crops
from medlocker_dicom.training.segmenter import RARE, expect_rare, lesion_loss
from training_sets import TinyGrader, graded, rings, tiny_segmenter

LN2 = math.log(2)


def test_grade_loss_of_no_opinion() -> None:
    """Equal logits: ln 5, smoothed or not, and 0.15 times the mean squared distance to 2."""
    loss = grade_loss(torch.zeros(2, 5), torch.tensor([0, 3]))
    assert float(loss) == pytest.approx(math.log(5) + 0.15 * (4 + 1) / 2, rel=1e-6)


def test_grade_loss_of_an_opinion() -> None:
    """Probabilities 1/2, 1/8 x 4: 0.95 of the grade's entropy, 0.05 of the mean's, the error."""
    logits = torch.log(torch.tensor([[0.5, 0.125, 0.125, 0.125, 0.125]]))
    smoothing = 0.05 * (LN2 + 4 * 3 * LN2) / 5
    expected = 0.125 * (1 + 2 + 3 + 4)
    for grade, entropy in ((0, LN2), (4, 3 * LN2)):
        by_hand = 0.95 * entropy + smoothing + 0.15 * (expected - grade) ** 2
        assert float(grade_loss(logits, torch.tensor([grade]))) == pytest.approx(by_hand, rel=1e-5)


def test_grade_loss_minds_how_far_off() -> None:
    """Being sure of grade 4 costs more the lower the true grade is."""
    sure = torch.tensor([[0.0, 0, 0, 0, 6]])
    losses = [float(grade_loss(sure, torch.tensor([grade]))) for grade in range(5)]
    assert losses == sorted(losses, reverse=True)
    assert len(set(losses)) == 5


@pytest.mark.parametrize(("scale", "offset"), [(1, 0), (0.1, 3), (40, -200), (-5, 1)])
def test_feature_loss_by_hand(scale: float, offset: float) -> None:
    """0 for the standardised map, 1 for zero, 1/2 for one unit off in half of the places."""
    maps = torch.randn(8, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    places = (0, 2, 3)
    spread = maps.std(places, correction=0, keepdim=True)
    standard = (maps - maps.mean(places, keepdim=True)) / spread
    # each channel in a scale of its own, as those of a network are
    wanted = offset + scale * maps * torch.tensor([1.0, 2, 3, 4])[:, None, None]
    standard *= math.copysign(1, scale)
    assert float(feature_loss(standard, wanted)) == pytest.approx(0, abs=1e-5)
    assert float(feature_loss(torch.zeros_like(maps), wanted)) == pytest.approx(1, rel=2e-3)
    off = standard.clone()
    off[..., :3] += 1
    assert float(feature_loss(off, wanted)) == pytest.approx(0.5, rel=5e-3)


def test_feature_loss_wants_what_tells_pictures_apart() -> None:
    """Channels are standardised over the batch: what differs between pictures alone counts."""
    levels = torch.tensor([1.0, 2, 3, 4])[:, None, None, None]
    wanted, standard = levels.expand(4, 1, 3, 3), (levels - 2.5) / math.sqrt(1.25)
    assert float(feature_loss(standard.expand(4, 1, 3, 3), wanted)) == pytest.approx(0, abs=1e-6)


def ramp(side: int) -> torch.Tensor:
    """Return maps (2, 1, side, side) that rise from left to right, -1.5 to 1.5 or so."""
    x = ((torch.arange(side) + 0.5) / side - 0.5) * math.sqrt(12)
    return x.expand(2, 1, side, side)


@pytest.mark.parametrize(("predicted", "wanted"), [(16, 4), (4, 16), (7, 5), (5, 7), (14, 2)])
def test_feature_loss_brings_the_wanted_map_to_size(predicted: int, wanted: int) -> None:
    """The same picture at another size costs next to nothing; mirrored it costs almost 4."""
    assert float(feature_loss(ramp(predicted), ramp(wanted))) < 0.1
    assert float(feature_loss(ramp(predicted).flip(3), ramp(wanted))) > 3.5


def test_feature_loss_averages_a_finer_map() -> None:
    """Noise that is finer than the student's places is averaged away, not sampled."""
    generator = torch.Generator().manual_seed(3)
    levels = torch.randn(32, 1, 1, 1, generator=generator)
    wanted = levels + torch.randn(32, 1, 16, 16, generator=generator)
    standard = (levels - levels.mean()) / levels.std(correction=0)
    assert float(feature_loss(standard.expand(32, 1, 4, 4), wanted)) < 0.1


def test_feature_loss_takes_maps_of_half_precision() -> None:
    """Maps of half precision will do; the loss and its gradient are of single precision."""
    predicted = torch.zeros(4, 2, 3, 3, requires_grad=True)
    wanted = torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(1)).bfloat16()
    loss = feature_loss(predicted, wanted)
    (gradient,) = torch.autograd.grad(loss, predicted)
    assert loss.dtype == gradient.dtype == torch.float32
    assert gradient.abs().min() > 0


def test_lesion_loss_by_hand() -> None:
    """One factor times the entropy, plus one minus Dice, over cases that tell the two apart."""
    known, factors = torch.ones(1, 5), []
    for probability in (0.5, 0.2, 0.9):
        for lesions in (0, 4, 16):
            truth = torch.zeros(1, 5, 4, 4)
            truth.view(1, 5, 16)[..., :lesions] = 1
            logits = torch.full((1, 5, 4, 4), math.log(probability / (1 - probability)))
            share = lesions / 16
            entropy = -share * math.log(probability) - (1 - share) * math.log(1 - probability)
            dice = (2 * lesions * probability + 1) / (16 * probability + lesions + 1)
            loss = float(lesion_loss(logits, truth, known))
            factors.append((loss - (1 - dice)) / entropy)
    assert factors == pytest.approx([factors[0]] * len(factors), rel=1e-4)
    assert factors[0] > 1


def test_lesion_loss_of_a_perfect_answer() -> None:
    """The truth itself costs nothing; its opposite costs the most."""
    truth = torch.zeros(2, 5, 8, 8)
    truth[:, :, :3] = 1
    logits = 60 * (truth - 0.5)
    known = torch.ones(2, 5)
    assert float(lesion_loss(logits, truth, known)) == pytest.approx(0, abs=1e-6)
    assert float(lesion_loss(-logits, truth, known)) > 29


def test_labels_that_are_not_annotated_teach_nothing() -> None:
    """No gradient reaches an unknown label, in the photographs where it is unknown."""
    torch.manual_seed(1)
    logits = torch.randn(2, 5, 6, 6, requires_grad=True)
    known = torch.ones(2, 5)
    known[1, 4] = 0
    loss = lesion_loss(logits, (torch.rand(2, 5, 6, 6) > 0.7).float(), known)
    (gradient,) = torch.autograd.grad(loss, logits)
    reached = (gradient != 0).flatten(2).any(2)
    assert torch.equal(reached, known.bool())


def test_a_label_unknown_in_the_whole_batch_costs_nothing() -> None:
    """Whatever is said of it, the loss is the same, and finite."""
    truth, known = torch.zeros(1, 5, 4, 4), torch.ones(1, 5)
    known[0, 4] = 0
    losses = []
    for said in (-9.0, 0.0, 9.0):
        logits = torch.full((1, 5, 4, 4), -30.0)
        logits[:, 4] = said
        losses.append(float(lesion_loss(logits, truth, known)))
    assert losses == pytest.approx([0, 0, 0], abs=1e-6)


def test_sampling_favours_the_rare_and_the_trusted() -> None:
    """Sum 1; each grade by the root of its rarity; sets by their trust; held-out rows do not count.

    Two of grade 0 and eight of grade 1: one of the former is drawn twice as often.
    """
    items = [graded(0)] * 2 + [graded(1)] * 8
    items += [graded(3, "idrid_grading"), graded(3, "eyepacs_equalised")]
    items += [graded(0, validation=True)] * 30
    crops = Crops(items, np.zeros((len(items), 1, 1, 3), np.uint8))
    weights = sampling_weights(crops, np.arange(12))
    assert weights.shape == (12,)
    assert weights.dtype == np.float64
    assert weights.sum() == pytest.approx(1)
    assert weights.min() > 0
    assert weights[0] == weights[1] == pytest.approx(2 * weights[2])
    assert weights[11] < weights[0] < weights[10]
    assert np.unique(weights[2:10]).size == 1


def test_held_out_rows_are_not_trained_on() -> None:
    """Training rows and held-out ones share nothing, and together are all."""
    items = [graded(n % 5, validation=n in (1, 4)) for n in range(6)]
    assert training_rows(Crops(items, np.zeros((6, 1, 1, 3), np.uint8))).tolist() == [0, 2, 3, 5]


def test_held_out_figures_go_by_set() -> None:
    """Training rows count nowhere; unnatural colours have figures of their own alone."""
    sources = ("odir", "odir", EQUALISED, "srahim", "odir")
    items = [graded(n, s, validation=n < 4) for n, s in enumerate(sources)]
    crops = Crops(items, np.stack([rings(n, n, 24) for n in range(5)]))
    network, cpu = TinyGrader(), torch.device("cpu")
    figures = held_out_figures(network, crops, 24, cpu)
    counts = {name: row["n"] for name, row in figures.items()}
    assert counts == {"val": 3, EQUALISED: 1, "odir": 2, "srahim": 1}
    chosen = predict(network, crops.pixels, 24, cpu).argmax(1)
    for name, rows in (("val", [0, 1, 3]), (EQUALISED, [2])):
        right = float(np.mean(chosen[rows] == rows))
        assert figures[name]["accuracy"] == pytest.approx(right, abs=1e-4)


def test_expect_rare_sets_one_bias() -> None:
    """Silent weights then answer the rare probability; nothing but the last bias changes."""
    network = tiny_segmenter()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    expect_rare(network)
    changed = [n for n, v in network.state_dict().items() if not torch.equal(v, before[n])]
    assert changed == ["6.bias"]
    last = network.get_submodule("6")
    assert isinstance(last, nn.Conv2d)
    nn.init.zeros_(last.weight)
    answer = network(torch.randn(1, 3, 16, 16)).sigmoid()
    assert torch.allclose(answer, torch.full_like(answer, RARE))


def test_expect_rare_finds_the_output_of_the_shipped_network() -> None:
    """Each place of a block moves by one step: the biases that it sets are the output's."""
    torch.manual_seed(0)
    network, eyes = LesionUNetPlusPlus().eval(), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = network(eyes)
        expect_rare(network)
        step = nn.functional.pixel_unshuffle(network(eyes) - before, BLOCK).flatten(2)
        again = network(eyes)
        expect_rare(network)
        assert torch.equal(network(eyes), again)
    assert step.abs().min() > 1
    assert torch.allclose(step, step[..., :1].expand_as(step), atol=1e-4)


def test_half_precision_halves_the_floats_alone() -> None:
    """Weights become float16, counters stay; the network itself keeps its float32."""
    network = TinyGrader()
    state = half_precision(network)
    assert state.keys() == network.state_dict().keys()
    for name, value in network.state_dict().items():
        wanted = torch.float16 if value.is_floating_point() else value.dtype
        assert state[name].dtype == wanted
        assert torch.allclose(state[name].to(value.dtype), value, atol=1e-3)
    assert state["features.1.num_batches_tracked"].dtype == torch.int64
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


def test_what_is_beyond_half_precision_stays_whole() -> None:
    """A variance too large for float16 is kept, not made infinite; its neighbours are halved."""
    layer = nn.BatchNorm2d(2)
    layer.get_buffer("running_var")[1] = 1e5
    state = half_precision(layer)
    assert state["running_var"].tolist() == [1.0, 1e5]
    assert state["running_mean"].dtype == state["weight"].dtype == torch.float16


def test_predictions_are_probabilities_in_order() -> None:
    """More crops than a batch holds: each row is what its crop gives alone."""
    crops = np.stack([rings(n % 5, n, 24) for n in range(40)])
    network = TinyGrader()
    probabilities = predict(network, crops, 16, torch.device("cpu"))
    assert probabilities.shape == (40, 5)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert not network.training
    for row in (0, 31, 32, 39):
        alone = predict(network, crops[row : row + 1], 16, torch.device("cpu"))
        np.testing.assert_allclose(probabilities[row], alone[0], atol=1e-6)
