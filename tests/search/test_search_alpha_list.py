"""The grid of opacities, and what a gradient foretells of places."""

import numpy as np
import numpy.typing as npt
import pytest
from search_landscapes import WIDTH, Bowl, islands, open_canvas

from medlocker_dicom.errors import NoGradientError
from medlocker_dicom.search import Evaluator, Feasible, Genes, SearchParameters, Stop, search
from medlocker_dicom.search.alpha_list import ListParameters, evolve_list, optimise
from medlocker_dicom.search.guide import Guide

Floats = npt.NDArray[np.float32]
KNOTS = np.array([100, 180, 255])


class Paper:
    """A canvas on which a px shows its opacity itself, and a grid that is the logo's px."""

    side = 12

    def listed(self, xy: tuple[int, int], alphas: Floats) -> tuple[Floats, Floats]:
        """The image is the opacities, at their place."""
        x, y = xy
        image = np.zeros((40, 40, 3), np.float32)
        image[y : y + self.side, x : x + self.side] = alphas[..., None]
        return image, np.ones((self.side, self.side, 3), np.float32)

    def lattice(self, cells: int) -> tuple[Floats, Floats]:
        """One node a px."""
        assert cells in {8, 28}
        return np.eye(self.side, dtype=np.float32), np.eye(self.side, dtype=np.float32)


def test_the_grid_goes_where_the_gradient_leads() -> None:
    """Every node comes near to the opacity that is best for it, within the bounds."""
    wanted = np.random.default_rng(0).uniform(60, 300, (12, 12)).astype(np.float32)

    def apart(image: Floats) -> Floats:
        pull = np.zeros_like(image)
        pull[5:17, 9:21] = (image[5:17, 9:21] - wanted[..., None]) / 100
        return pull

    parameters = ListParameters(steps=60)
    nodes = optimise(Paper(), apart, Genes(180, 9, 5), parameters)
    assert nodes.dtype == np.uint8
    assert nodes.min() >= 100
    assert np.abs(nodes - wanted.clip(100, 255)).max() < 12
    again = optimise(Paper(), apart, Genes(180, 9, 5), parameters)
    assert np.array_equal(nodes, again)


def test_without_a_slope_nothing_moves() -> None:
    """A gradient of zero leaves the opacity of the start everywhere."""
    nodes = optimise(Paper(), np.zeros_like, Genes(133, 0, 0), ListParameters())
    assert np.all(nodes == 133)


def test_without_a_gradient_evolution_finds_some_of_it() -> None:
    """Trial alone comes nearer with every child that succeeds, within the bounds, by the seed."""
    wanted = np.random.default_rng(0).uniform(60, 300, (12, 12)).astype(np.float32)
    asked = []

    def apart(image: Floats) -> float:
        asked.append(float(np.abs(image[5:17, 9:21, 0] - wanted).mean()))
        return asked[-1]

    def evolved(steps: int) -> npt.NDArray[np.uint8]:
        asked.clear()
        rng = np.random.default_rng(2)
        parameters = ListParameters(steps=steps)
        return evolve_list(Paper(), apart, Genes(180, 9, 5), parameters, rng)

    few, many = evolved(50), evolved(400)
    assert len(asked) == 400
    losses = [float(np.abs(nodes - wanted).mean()) for nodes in (few, many)]
    assert asked[0] > losses[0] + 3 > losses[1] + 6
    assert many.dtype == np.uint8
    assert many.min() >= 100
    assert np.array_equal(evolved(400), many)


def guide_of(scores: Floats) -> Guide:
    """Foretell fixed scores."""
    return Guide(KNOTS, lambda: scores)


def test_the_foretold_best_come_first_and_apart() -> None:
    """Best first, each with its best opacity, none near another, none where it is forbidden."""
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(3, WIDTH, WIDTH)).astype(np.float32)
    scores[1, 10, 7] = -90  # on an island
    scores[2, 60, 60] = -99  # not feasible
    scores[0, 168, 0] = -80
    feasible = islands()
    found = guide_of(scores).best(feasible, 9, apart=4)
    assert found[:2].tolist() == [[180, 7, 10], [100, 0, 168]]
    assert all(feasible.contains(x, y) for _, x, y in found.tolist())
    values = [scores[:, y, x].min() for _, x, y in found.tolist()]
    assert values == sorted(values)
    gaps = np.abs(found[:, None, 1:] - found[None, :, 1:]).max(-1)
    assert gaps[~np.eye(len(found), dtype=bool)].min() > 4


def test_as_many_as_there_are() -> None:
    """Where few places are left, few are picked: at least one."""
    one = Feasible(np.array([[3, 4]]))
    assert guide_of(np.zeros((3, 9, 9), np.float32)).best(one, 24, apart=14).tolist() == [
        [100, 3, 4]
    ]


def test_where_no_gradient_is_told_chance_begins() -> None:
    """A guide that models do not feed leaves a search that still gets better."""

    def none() -> Floats:
        raise NoGradientError("no gradient is told")

    judge = Evaluator(Bowl(), 0, budget=64, stop=Stop.NEVER)
    rng = np.random.default_rng(3)
    found = search("guided", judge, open_canvas(), rng, SearchParameters(), Guide(KNOTS, none))
    assert found.queries == 64
    assert found.history[-1].queries > 24


@pytest.mark.parametrize("budget", [1, 8, 64])
def test_a_true_guide_is_worth_many_queries(budget: int) -> None:
    """Guided to the bowl's bottom, a search finds better than chance with four times as many."""
    alphas, ys, xs = np.meshgrid(KNOTS, *[np.arange(WIDTH)] * 2, indexing="ij")
    apart = np.stack([(alphas - 160) / 155, (xs - 40) / WIDTH, (ys - 120) / WIDTH])
    guide = guide_of(np.linalg.norm(apart, axis=0).astype(np.float32))
    found = {}
    for strategy, queries in (("guided", budget), ("random-placement", 4 * budget)):
        judge = Evaluator(Bowl(), 0, budget=queries, stop=Stop.NEVER)
        rng = np.random.default_rng(3)
        found[strategy] = search(strategy, judge, open_canvas(), rng, SearchParameters(), guide)
        assert found[strategy].queries <= queries
    assert found["guided"].probability < found["random-placement"].probability
