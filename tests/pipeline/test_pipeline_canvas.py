"""The search's canvas agrees with the full image."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pipeline_factories import eye, ring

from medlocker_dicom.bundles.preprocess import Crop, crop_to_retina, cut, resample, retina_crop
from medlocker_dicom.lesions.fov import field_of_view
from medlocker_dicom.lesions.positions import Mode, feasible_positions
from medlocker_dicom.pipeline.canvas import KNOTS, Canvas
from medlocker_dicom.pipeline.compose import compose
from medlocker_dicom.watermark.alpha import grid_shape, pack_grid
from medlocker_dicom.watermark.logo import Logo
from medlocker_dicom.watermark.scale import scale_logo

SEED = bytes(range(32))


def composed(
    display: NDArray[np.uint8], canvas: Canvas, logo: Logo, crop: Crop, genes: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """Compose a candidate on the photograph, and bring that to the canvas."""
    full = display.copy()
    compose(full, canvas.placement(*genes), logo, SEED, 8)
    return resample(cut(full, crop), (canvas.size, canvas.size))


@pytest.mark.parametrize(("side", "size"), [(640, 64), (900, 224), (160, 64), (700, 200)])
def test_composing_agrees_with_the_full_image(side: int, size: int) -> None:
    """Composed small and composed large then shrunk, candidates differ little, edges included."""
    display = eye(3, side).image
    crop = retina_crop(display)
    logo = scale_logo(ring(400), side, side, 4)
    canvas = Canvas(display, crop, size, logo, SEED)
    allowed = canvas.allowed(
        feasible_positions(field_of_view(display), (logo.width, logo.height), (), Mode.ANYWHERE)
    )
    rng = np.random.default_rng(0)
    places = np.argwhere(allowed)[:, ::-1][rng.integers(allowed.sum(), size=12)]
    alphas = [100, 255, *rng.integers(100, 256, 10)]
    genes = np.column_stack([alphas, places]).astype(np.int32)
    width, height = canvas.logo_size
    for small, row in zip(canvas.compose(genes), genes.tolist(), strict=True):
        large = composed(display, canvas, logo, crop, (row[0], row[1], row[2]))
        apart = np.abs(small.astype(int) - large)
        _, x, y = row
        under = apart[y : y + height, x : x + width]
        beside = apart.copy()
        beside[max(y - 1, 0) : y + height + 1, max(x - 1, 0) : x + width + 1] = 0
        assert beside.max() <= 1
        assert under.mean() < 10
        assert np.quantile(under, 0.95) < 40
        assert apart.mean() < 1


def test_composing_at_full_size_is_the_blend() -> None:
    """On a canvas of the photograph's own size, a candidate is the exact blend to a level."""
    display = eye(0, 128).image
    logo = scale_logo(ring(64), 128, 128, 4)
    canvas = Canvas(display, Crop(0, 0, 128), 128, logo, SEED)
    for alpha in KNOTS.tolist():
        small = canvas.compose(np.array([[alpha, 30, 40]], np.int32))[0]
        large = composed(display, canvas, logo, Crop(0, 0, 128), (alpha, 30, 40))
        assert np.abs(small.astype(int) - large).max() <= 1


def test_a_grey_photograph_has_one_opacity_a_px() -> None:
    """Stored in one channel, with the logo's luma: candidates and lists stay grey, and exact."""
    grey = np.random.default_rng(0).integers(0, 256, (128, 128, 1), np.uint8)
    logo = scale_logo(ring(64), 128, 128, 4)
    display = np.ascontiguousarray(np.broadcast_to(grey, (128, 128, 3)))
    canvas = Canvas(display, Crop(0, 0, 128), 128, logo, SEED, channels=1)
    rows, columns = grid_shape(logo.alpha.shape, 8)
    nodes = np.random.default_rng(1).integers(100, 256, (1, rows, columns), np.uint8)
    large = grey.copy()
    compose(large, canvas.placement(180, 30, 40, pack_grid(8, nodes)), logo, SEED, 8)
    small, slope = canvas.listed((30, 40), spread(canvas, nodes, 8))
    assert np.abs(small - large).max() <= 6  # opacities lie between the knots
    assert np.ptp(small, -1).max() == np.ptp(slope, -1).max() == 0
    large = grey.copy()
    compose(large, canvas.placement(255, 30, 40), logo, SEED, 8)
    assert np.abs(canvas.compose(np.array([[255, 30, 40]], np.int32))[0] - large).max() <= 1


def test_opacities_between_the_knots() -> None:
    """Between the knots, interpolated opacities are right to a few levels of 255."""
    display = np.full((128, 128, 3), 40, np.uint8)
    logo = scale_logo(ring(64), 128, 128, 4)
    canvas = Canvas(display, Crop(0, 0, 128), 128, logo, SEED)
    for alpha in (105, 115, 140, 177, 208, 230, 250, 254):
        small = canvas.compose(np.array([[alpha, 30, 40]], np.int32))[0]
        large = composed(display, canvas, logo, Crop(0, 0, 128), (alpha, 30, 40))
        assert np.abs(small.astype(int) - large).max() <= 6


def test_compose_leaves_the_canvas_alone() -> None:
    """Candidates do not mark each other, and the picture beside the logo is the crop."""
    display = eye(0).image
    canvas = Canvas(display, retina_crop(display), 64, scale_logo(ring(), 160, 160, 4), SEED)
    genes = np.array([[200, 5, 5], [200, 30, 30], [200, 5, 5]], np.int32)
    first, second, third = canvas.compose(genes)
    assert np.array_equal(first, third)
    clean = crop_to_retina(display, 64)
    assert np.array_equal(first[30:], clean[30:])
    assert np.array_equal(second[:30], clean[:30])


@settings(max_examples=150, deadline=None)
@example(20, 20, 0, 0, 29, 14, 1, 1, 1)  # 7 * 29 / 14 is a half
@given(
    st.integers(20, 90),
    st.integers(20, 90),
    st.integers(-15, 40),
    st.integers(-15, 40),
    st.integers(10, 110),
    st.integers(8, 48),
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(0, 2**32 - 1),
)
def test_allowed_is_exactly_the_placements(  # noqa: PLR0917  the sides of everything
    height: int,
    width: int,
    x: int,
    y: int,
    side: int,
    size: int,
    logo_width: int,
    logo_height: int,
    seed: int,
) -> None:
    """A canvas position is allowed if and only if its placement on the photograph is."""
    rng = np.random.default_rng(seed)
    logo = Logo(rng.integers(1, 256, (logo_height, logo_width, 4), dtype=np.uint8))
    canvas = Canvas(np.zeros((height, width, 3), np.uint8), Crop(x, y, side), size, logo, SEED)
    feasible = rng.random((height - logo_height + 1, width - logo_width + 1)) < 0.7
    allowed = canvas.allowed(feasible)
    assert allowed.shape == (size - canvas.logo_size[1] + 1, size - canvas.logo_size[0] + 1)
    for row, column in np.ndindex(*allowed.shape):
        there_x, there_y = (
            x + round(column * side / size + 0.0),
            y + round(row * side / size + 0.0),
        )
        inside = 0 <= there_y < feasible.shape[0] and 0 <= there_x < feasible.shape[1]
        assert allowed[row, column] == (inside and feasible[there_y, there_x])
        if allowed[row, column]:
            place = canvas.placement(100, column, row)
            assert (place.x, place.y) == (there_x, there_y)


@pytest.fixture
def laid() -> tuple[NDArray[np.uint8], Crop, Logo, Canvas]:
    """Return an eye, its crop, a logo, and the canvas of both."""
    display = eye(3, 640).image
    crop = retina_crop(display)
    logo = scale_logo(ring(400), 640, 640, 4)
    return display, crop, logo, Canvas(display, crop, 160, logo, SEED)


def spread(canvas: Canvas, nodes: NDArray[Any], cells: int) -> NDArray[np.float32]:
    """Bring a grid to the canvas."""
    rows, columns = canvas.lattice(cells)
    alphas = rows @ nodes.astype(np.float32) @ columns.T
    return np.moveaxis(np.asarray(alphas, np.float32), 0, -1)


@pytest.mark.parametrize("cells", [4, 28, 56])
def test_a_grid_on_the_canvas_agrees_with_the_full_image(
    laid: tuple[NDArray[np.uint8], Crop, Logo, Canvas], cells: int
) -> None:
    """Composed small by opacities, or large by the packed grid and then shrunk: nearly the same."""
    display, crop, logo, canvas = laid
    shape = (3, *grid_shape(logo.alpha.shape, cells))
    nodes = np.random.default_rng(cells).integers(100, 256, shape, np.uint8)
    small, _ = canvas.listed((40, 50), spread(canvas, nodes, cells))
    full = display.copy()
    compose(full, canvas.placement(180, 40, 50, pack_grid(cells, nodes)), logo, SEED, 8)
    large = resample(cut(full, crop), (160, 160))
    width, height = canvas.logo_size
    under = np.abs(small - large)[50 : 50 + height, 40 : 40 + width]
    assert under.mean() < 8
    even, _ = canvas.listed((40, 50), np.full((height, width, 1), 180, np.float32))
    assert np.abs(even - large)[50 : 50 + height, 40 : 40 + width].mean() > 1.5 * under.mean()


def test_an_even_list_is_the_candidate(
    laid: tuple[NDArray[np.uint8], Crop, Logo, Canvas],
) -> None:
    """With one opacity everywhere, the list composes what the search composes."""
    canvas = laid[3]
    width, height = canvas.logo_size
    for alpha in (100, 131, 180, 255):
        image, _ = canvas.listed((30, 60), np.full((height, width, 1), alpha, np.float32))
        there = canvas.compose(np.array([[alpha, 30, 60]], np.int32))[0]
        assert np.abs(image - there).max() <= 1


def test_the_slope_is_what_opacity_does(
    laid: tuple[NDArray[np.uint8], Crop, Logo, Canvas],
) -> None:
    """One level more of opacity changes the px by the slope, within a pair of knots."""
    canvas = laid[3]
    width, height = canvas.logo_size
    rng = np.random.default_rng(2)
    alphas = rng.uniform(102, 129, (height, width, 3)).astype(np.float32)
    image, slope = canvas.listed((30, 60), alphas)
    more, _ = canvas.listed((30, 60), alphas + 1)
    change = (more - image)[60 : 60 + height, 30 : 30 + width]
    assert np.allclose(change, slope, atol=1e-3)
    assert np.abs(slope).max() > 0.1
