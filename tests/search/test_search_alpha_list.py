"""The grid of opacities: by gradient, and without."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from medlocker_dicom.search import Genes
from medlocker_dicom.search.alpha_list import ListParameters, evolve_list, optimise

Floats = npt.NDArray[np.float32]


@dataclass
class Paper:
    """A canvas on which a px shows its opacity itself, and a grid that is the logo's px."""

    side = 12
    channels: int = 3

    def listed(self, xy: tuple[int, int], alphas: Floats) -> tuple[Floats, Floats]:
        """The image is the opacities, at their place."""
        x, y = xy
        image = np.zeros((40, 40, 3), np.float32)
        image[y : y + self.side, x : x + self.side] = alphas
        return image, np.ones((self.side, self.side, 3), np.float32)

    def lattice(self, cells: int) -> tuple[Floats, Floats]:
        """One node a px."""
        assert cells in {8, 56}
        return np.eye(self.side, dtype=np.float32), np.eye(self.side, dtype=np.float32)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_grid_goes_where_the_gradient_leads(channels: int) -> None:
    """Every node comes near to the opacity that is best for it, within the bounds."""
    wanted = np.random.default_rng(0).uniform(60, 300, (12, 12, channels)).astype(np.float32)

    def apart(image: Floats) -> Floats:
        pull = np.zeros_like(image)
        pull[5:17, 9:21] = (image[5:17, 9:21] - wanted) / 100
        return pull

    parameters, paper = ListParameters(steps=60), Paper(channels=channels)
    nodes = optimise(paper, apart, Genes(180, 9, 5), parameters)
    assert nodes.dtype == np.uint8
    assert nodes.shape == (channels, 12, 12)
    assert nodes.min() >= 100
    assert np.abs(np.moveaxis(nodes, 0, -1) - wanted.clip(100, 255)).max() < 12
    again = optimise(paper, apart, Genes(180, 9, 5), parameters)
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
    losses = [float(np.abs(nodes[0] - wanted).mean()) for nodes in (few, many)]
    assert np.array_equal(many[0], many[1])
    assert asked[0] > losses[0] + 3 > losses[1] + 6
    assert many.dtype == np.uint8
    assert many.min() >= 100
    assert np.array_equal(evolved(400), many)
