"""What a stranger does to a locked photograph before a grader sees it.

Restorers lift or paint over the logo: they know it, the rule without its seed, and its place, and
where a number has to be guessed the truth picks the best of a grid, so that they do better than a
thief would by the same means. Pipelines are what graders do with every photograph.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar

import cv2
import numpy as np

from medlocker_dicom.bundles.preprocess import cut, resample, retina_crop
from medlocker_dicom.evaluation.wiener import missed, solid_of, spectra
from medlocker_dicom.search.alpha_list import ListParameters
from medlocker_dicom.watermark.alpha import (
    SEED_BYTES,
    alpha_map,
    grid_shape,
    pack_grid,
    plain_map,
)
from medlocker_dicom.watermark.blend import logo_samples
from medlocker_dicom.watermark.scale import scale_logo, scaled_size
from medlocker_dicom.watermark.style import drawn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medlocker_dicom.pipeline.policy import Policy
    from medlocker_dicom.watermark.logo import Logo

MARGIN: Final = 12  # px around the logo that a restorer looks at as well
_OPACITIES: Final = range(40, 255, 3)
_MIDDLE: Final = 150  # opacity at which a thief tries keys of his own
_WINDOWS: Final = (1, 3)  # px, that the colour prior corrects as one
_NOISES: Final = (3.0, 30.0, 300.0)  # variances, in levels, of what no eye's colours explain
_GAINS: Final = (4, 16)  # beyond which too little of an eye is left to be lifted
_LARGEST: Final = 512  # px, longer side of what a restorer works on
_SMALL: Final = 512  # px, of a retina that is purified or resized
_RADIUS: Final = 5  # px, of inpainting
_COARSE: Final = 192  # px, longer side at which statistics are asked
_OTHERS: Final = 6  # other parts of a photograph to learn from
_KEYS: Final = 2  # of the thief's own, to learn from
_DARK, _DARK_SHARE = 25, 0.02  # level, and share of darker px from which a part is no retina


@dataclass(frozen=True)
class Scene:
    """The covered part of a photograph, with a margin.

    Attributes
    ----------
    locked, truth
        uint8 (h, w, 3).
    logo, logo_alpha
        Its colours uint8 (h, w, 3) and its own opacity uint8 (h, w).
    photograph
        The whole locked one, uint8 (H, W, 3).
    where
        Rows and columns of the scene in it.
    whole_logo, corner
        As it lies there; row and column of its corner in the scene, before that is made smaller.
    grey
        Whether the photograph has one channel.
    """

    locked: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    logo: NDArray[np.uint8]
    logo_alpha: NDArray[np.uint8]
    photograph: NDArray[np.uint8]
    where: tuple[slice, slice]
    whole_logo: Logo
    corner: tuple[int, int]
    grey: bool

    @cached_property
    def texture(self) -> NDArray[np.float64]:
        """How colours differ from those around them, all over the photograph: covariance (3, 3)."""
        small = _small(self.photograph)
        rough = small - cv2.GaussianBlur(small, (0, 0), 8).astype(np.float64)
        eye = rough[small.max(2) > 30]  # not what is dark around it
        return np.cov(eye.T) if len(eye) > 1 else np.eye(3)

    def elsewhere(self) -> list[NDArray[np.uint8]]:
        """Other parts of the photograph, as large, that show retina: uint8 (h, w, 3), a few."""
        return [
            _small(self.photograph[part]) for part in _parts_beside(self.photograph, self.where)
        ]

    def shades(self, *, listed: bool) -> list[NDArray[np.uint8]]:
        """Lock with keys of the thief's own: what shines through, uint8 (h, w, 3) each.

        With one opacity all over, or with lists of the default's bounds, drawn at random.
        """
        logo, (y, x) = self.whole_logo, self.corner
        height, width = (part.stop - part.start for part in self.where)
        channels, bounds = 1 if self.grey else 3, ListParameters()
        shape = channels, *grid_shape(logo.alpha.shape, bounds.cells)
        rng, result = np.random.default_rng(0), []
        for n in range(_KEYS):
            clear, seed, grid = np.full((height, width, 3), 255, np.uint8), bytes([n]), b""
            if listed:
                nodes = rng.integers(bounds.low, bounds.high, shape, np.uint8, endpoint=True)
                grid = pack_grid(bounds.cells, nodes)
            clear[y : y + logo.height, x : x + logo.width] -= alpha_map(
                logo.alpha, _MIDDLE, seed * SEED_BYTES, grid=grid, channels=channels
            )
            result.append(_small(clear))
        return result

    @property
    def covered(self) -> NDArray[np.bool_]:
        """Px that the logo covers."""
        return self.logo_alpha > 0

    def psnr(self, guess: NDArray[np.float64] | NDArray[np.uint8]) -> float:
        """PSNR in dB over the covered px, all channels, peak 255."""
        error = guess.astype(np.float64)[self.covered] - self.truth[self.covered]
        return float(10 * np.log10(255.0**2 / max(float(np.mean(error**2)), 1e-6)))

    def inverse(self, alpha: int) -> NDArray[np.uint8]:
        """Equation 9 with one assumed opacity."""
        keep = 1 - plain_map(self.logo_alpha, alpha)[..., np.newaxis] / 255
        lifted = (self.locked - (1 - keep) * self.logo) / np.maximum(keep, 1 / 510)
        return np.clip(np.rint(lifted), 0, 255).astype(np.uint8)

    def best(self, guesses: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Let the truth pick."""
        return max(guesses, key=self.psnr)


def edges_of(photograph: NDArray[np.uint8], logo: Logo, place: tuple[int, int]) -> NDArray[np.intp]:
    """Tell how many px, at most `MARGIN`, a photograph has beside the logo.

    Returns
    -------
    ndarray
        int (2, 2): above and below it, left and right of it.
    """
    (x, y), (height, width) = place, photograph.shape[:2]
    room = np.array([[y, height - y - logo.height], [x, width - x - logo.width]])
    return np.asarray(np.minimum(room, MARGIN))


def scene_of(
    locked: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    logo: Logo,
    place: tuple[int, int],
    edges: NDArray[np.intp] | None = None,
) -> tuple[Scene, tuple[slice, slice]]:
    """Cut a scene out of photographs.

    Parameters
    ----------
    locked, truth
        uint8 (H, W, 3).
    logo
        As it lies on the photograph.
    place
        x and y of its corner.
    edges
        Px beside the logo that are cut out as well; by default as of `edges_of`.

    Returns
    -------
    tuple
        The scene, at most 512 px a side, and where it lies in the photographs.
    """
    edges = edges_of(locked, logo, place) if edges is None else edges
    (x, y), ((above, below), (before, behind)) = place, edges
    where = np.s_[y - above : y + logo.height + below, x - before : x + logo.width + behind]
    alpha = np.pad(logo.alpha, edges)
    grey = bool((locked[..., 1:] == locked[..., :1]).all())
    samples = logo_samples(logo.rgba, 1 if grey else 3, 8).astype(np.uint8)
    colours = np.pad(np.broadcast_to(samples, (*logo.alpha.shape, 3)), (*edges, (0, 0)))
    seen, clean, colours, alpha = map(_small, (locked[where], truth[where], colours, alpha))
    corner = (int(above), int(before))
    return Scene(seen, clean, colours, alpha, locked, where, logo, corner, grey), where


def pasted(
    locked: NDArray[np.uint8], scene: Scene, guess: NDArray[np.uint8], where: tuple[slice, slice]
) -> NDArray[np.uint8]:
    """Put a guess in the place of the covered px of a photograph uint8 (H, W, 3)."""
    result = locked.copy()
    window = result[where]
    size = (window.shape[1], window.shape[0])
    large = np.asarray(cv2.resize(guess, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    covered = cv2.resize(scene.covered.astype(np.uint8), size, interpolation=cv2.INTER_LINEAR) > 0
    window[covered] = large[covered]
    return result


def known_logo(scene: Scene) -> NDArray[np.uint8]:
    """A1: equation 9 over a grid of opacities."""
    return scene.best([scene.inverse(alpha) for alpha in _OPACITIES])


def known_logo_median(scene: Scene) -> NDArray[np.uint8]:
    """A1, each cleaned by a 5 x 5 median."""
    return scene.best([_median(scene.inverse(alpha), 5) for alpha in _OPACITIES])


def known_logo_nlm(scene: Scene) -> NDArray[np.uint8]:
    """A1, the best cleaned by non-local means at several strengths."""
    start = known_logo(scene)
    return scene.best([_nlm(start, strength) for strength in (3, 10, 20)])


def telea(scene: Scene) -> NDArray[np.uint8]:
    """A4: inpainting (Telea 2004)."""
    return _painted(scene.locked, scene.covered)


def navier_stokes(scene: Scene) -> NDArray[np.uint8]:
    """A4: inpainting (Bertalmio et al. 2001)."""
    return _painted(scene.locked, scene.covered, cv2.INPAINT_NS)


def mean_fill(scene: Scene) -> NDArray[np.uint8]:
    """A4: the mean colour around the logo."""
    result = scene.locked.copy()
    result[scene.covered] = scene.locked[~scene.covered].mean(0).round()
    return result


def colour_prior(scene: Scene) -> NDArray[np.uint8]:
    """A1 and A4: lift the logo as far as it makes px likeliest beside what is painted over it.

    As if a px had one opacity for its three channels, as by the rules before mlv3. How an eye's
    colours go together (`Scene.texture`) then tells which of the colours on the line from the
    logo's through the px it is. Where nothing is left to be lifted, the painting stays.
    """
    logo, painted = scene.logo.astype(np.float64), telea(scene)
    seen, wanted = scene.locked - logo, painted - logo
    left = (seen**2).sum(-1) >= 1
    guesses = []
    for noise in _NOISES:
        likely = np.linalg.inv(scene.texture + noise * np.eye(3))
        match = np.einsum("...i,ij,...j", seen, likely, wanted) * scene.covered
        power = np.einsum("...i,ij,...j", seen, likely, seen) * scene.covered
        for window in _WINDOWS:
            over, under = (
                np.asarray(cv2.boxFilter(one, -1, (window, window), normalize=False))
                for one in (match, power)
            )
            gain = np.maximum(over / np.maximum(under, 1e-9), 1)
            lifted = np.clip(np.rint(logo + gain[..., np.newaxis] * seen), 0, 255)
            for most in _GAINS:
                kept = (left & scene.covered & (gain <= most))[..., np.newaxis]
                guesses.append(np.where(kept, lifted, painted).astype(np.uint8))
    return scene.best(guesses)


def wiener(scene: Scene) -> NDArray[np.uint8]:
    """A1 and A4: paint over, and correct that by what statistics tell (`missed`).

    Of what is left where each channel of a px has its own opacity, the strongest that we know.
    """
    painted = telea(scene)
    size = _fitting(painted.shape, min(_COARSE, max(painted.shape)))
    locked, logo, own = (
        _resized(one, size) for one in (scene.locked, scene.logo, scene.logo_alpha)
    )
    covered, solid, colours = own > 0, solid_of(own), logo.astype(np.float64)
    others = [_resized(one, size) for one in scene.elsewhere()]
    if not others or not solid.any():
        return painted
    over, *paintings = (_painted(one, covered).astype(np.float64) for one in (locked, *others))
    errors = spectra([one - wrong for one, wrong in zip(others, paintings, strict=True)], covered)
    guesses = [painted]
    for listed in (False, True):
        clear = scene.shades(listed=listed)
        dim = [np.log(np.maximum(_resized(one, size), 1) / 255.0) for one in clear]
        shades = spectra([one - one[solid].mean(0) for one in dim], solid)
        found = missed(locked - colours, over - colours, own, errors, shades)
        large = cv2.resize(found, painted.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        better = np.clip(np.rint(painted + large), 0, 255).astype(np.uint8)
        guesses.append(np.where(scene.covered[..., np.newaxis], better, painted))
    return scene.best(guesses)


def matting(scenes: Sequence[Scene]) -> list[NDArray[np.uint8]]:
    """A3: lift a logo that nobody knows off many photographs that carry it (Dekel et al. 2017).

    Eyes differ, a logo does not: over the photographs, px under it vary less than those around,
    by as much as it is opaque, and what their mean has beside the eyes' share is its colour.

    Parameters
    ----------
    scenes
        Of one logo at one size, all as large; at least `FEWEST`.

    Returns
    -------
    list
        A guess for each.
    """
    seen = np.stack([one.locked for one in scenes]).astype(np.float64)
    around = ~scenes[0].covered
    if not around.any():  # a logo without a transparent px, cut out at its edges
        around = scenes[0].covered
    light = seen[:, around].mean(1)[:, np.newaxis, np.newaxis]  # of each photograph
    spread = np.asarray(cv2.blur((seen - light).std(0), (3, 3)))
    keep = np.clip(spread / np.maximum(spread[around].mean(0), 1), 0.02, 1)
    colour = seen.mean(0) - keep * light.mean(0)
    return list(np.clip(np.rint((seen - colour) / keep), 0, 255).astype(np.uint8))


ATTACKS_VERSION: Final = 6
"""Raised whenever an attack changes: what it found before is not taken for what it finds now."""

FEWEST: Final = 4
"""Photographs from which a logo can be told by `matting`."""

RESTORERS: Mapping[str, Callable[[Scene], NDArray[np.uint8]]] = MappingProxyType(
    {
        "A1 known logo": known_logo,
        "A1 + median 5 x 5": known_logo_median,
        "A1 + non-local means": known_logo_nlm,
        "A1 colour prior": colour_prior,
        "A1 Wiener": wiener,
        "A4 Telea": telea,
        "A4 Navier-Stokes": navier_stokes,
        "A4 mean fill": mean_fill,
    }
)
"""Attacks that know the logo and its place."""

Pipeline = Callable[["NDArray[np.uint8]"], "list[NDArray[np.uint8]]"]
"""A retina's square uint8 (S, S, 3) to the views whose probabilities a grader averages."""


def jpeg(quality: int) -> Pipeline:
    """Code as JPEG."""

    def coded(rgb: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        back = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
        return [np.ascontiguousarray(back[..., ::-1])]

    return coded


def there_and_back(rgb: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Resize the retina to 512 px, or to half where that is less, and back to its size."""
    side = len(rgb)
    small = resample(rgb, (min(_SMALL, side // 2),) * 2)
    return [np.asarray(cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)]


def clahe(rgb: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Equalise the lightness by tiles (CLAHE, Zuiderveld 1994)."""
    lab = cv2.cvtColor(_at_512(rgb), cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(2.0, (8, 8)).apply(lab[..., 0])
    return [np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), np.uint8)]


def ben_graham(rgb: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Subtract the local mean (B. Graham's preparation for Kaggle's competition of 2015)."""
    small = _at_512(rgb)
    blurred = cv2.GaussianBlur(small, (0, 0), _SMALL / 30)
    flat = np.asarray(cv2.addWeighted(small, 4, blurred, -4, 128), np.uint8)
    flat[small.max(2) < 10] = 0  # the border stays a border
    return [flat]


def closer(rgb: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Keep the middle nine tenths of the retina's square."""
    small = _at_512(rgb)
    edge = _SMALL // 20
    return [np.ascontiguousarray(small[edge:-edge, edge:-edge])]


def rotated(rgb: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Turn by 15 degrees."""
    small = _at_512(rgb)
    turn = cv2.getRotationMatrix2D((_SMALL / 2, _SMALL / 2), 15, 1)
    return [np.asarray(cv2.warpAffine(small, turn, (_SMALL, _SMALL)), np.uint8)]


def median(rgb: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Take the median of 5 x 5 px of a retina of 512 px."""
    return [_median(_at_512(rgb), 5)]


def poses(rgb: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Average over the eight ways to turn and mirror (test-time augmentation)."""
    small = _at_512(rgb)
    turns = [np.rot90(small, n) for n in range(4)]
    return [np.ascontiguousarray(v) for turn in turns for v in (turn, turn[:, ::-1])]


def denoised(rgb: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """A6: non-local means over a retina of 512 px (Buades et al. 2011)."""
    return [_nlm(_at_512(rgb), 10)]


def smoothed(rgb: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """A6: total variation over a retina of 512 px (Chambolle 2004)."""
    from skimage.restoration import denoise_tv_chambolle  # noqa: PLC0415  slow to import

    small = _at_512(rgb).astype(np.float32) / 255
    flat = denoise_tv_chambolle(small, weight=0.08, channel_axis=-1)  # type: ignore[no-untyped-call]  # as skimage ships it
    return [np.rint(255 * np.clip(flat, 0, 1)).astype(np.uint8)]


PIPELINES: Mapping[str, Pipeline] = MappingProxyType(
    {
        "A6 non-local means": denoised,
        "A6 total variation": smoothed,
        "A9 JPEG 75": jpeg(75),
        "A9 JPEG 50": jpeg(50),
        "A9 resized to 512 px or half, and back": there_and_back,
        "A9 CLAHE": clahe,
        "A9 Ben Graham": ben_graham,
        "A9 closer crop": closer,
        "A9 rotated": rotated,
        "A9 median": median,
        "A9 eight poses": poses,
    }
)
"""Attacks that know nothing of the logo."""


QUICK: Final = (
    "A1 + median 5 x 5",
    "A1 Wiener",
    "A4 Telea",
    "A9 JPEG 75",
    "A9 resized to 512 px or half, and back",
    "A9 CLAHE",
)
"""Those that take a few seconds at most, for every photograph that is locked."""

T = TypeVar("T")


def attacked(
    pair: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    logo: Logo,
    place: tuple[int, int],
    ask: Callable[[list[NDArray[np.uint8]]], T],
    names: Collection[str] = (*RESTORERS, *PIPELINES),
) -> dict[str, dict[str, float | T]]:
    """Attack a locked photograph, and ask graders about what comes out.

    Parameters
    ----------
    pair
        The clean and the locked photograph, uint8 (H, W, 3).
    logo
        As it lies on the photograph.
    place
        x and y of its corner.
    ask
        What graders say of views of a retina, uint8 (S, S, 3) each.
    names
        Of the attacks.

    Returns
    -------
    dict
        By attack: ``locked``, what is said of the attacked photograph; ``psnr`` in dB of a
        restorer; ``clean`` of a pipeline, what is said of the clean photograph treated so.
    """
    clean, locked = pair
    scene, where = scene_of(locked, clean, logo, place)
    retinas = [_retina(one) for one in pair]
    found: dict[str, dict[str, float | T]] = {}
    for name in names:
        if name in RESTORERS:
            found[name] = _judged(locked, scene, RESTORERS[name](scene), where, ask)
        else:
            before, after = (ask(PIPELINES[name](one)) for one in retinas)
            found[name] = {"clean": before, "locked": after}
    return found


def matted(
    pairs: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]],
    logos: Sequence[Logo],
    places: Sequence[tuple[int, int]],
    ask: Callable[[list[NDArray[np.uint8]]], T],
) -> list[dict[str, float | T]]:
    """Attack locked photographs together by `matting`; parameters and rows as `attacked`.

    The logos are of one size.
    """
    marks = list(zip(pairs, logos, places, strict=True))
    edges = np.min([edges_of(locked, logo, at) for (_, locked), logo, at in marks], axis=0)
    parts = [scene_of(locked, clean, logo, at, edges) for (clean, locked), logo, at in marks]
    guesses = matting([scene for scene, _ in parts])
    return [
        _judged(locked, scene, guess, where, ask)
        for (_, locked), (scene, where), guess in zip(pairs, parts, guesses, strict=True)
    ]


def _judged(
    locked: NDArray[np.uint8],
    scene: Scene,
    guess: NDArray[np.uint8],
    where: tuple[slice, slice],
    ask: Callable[[list[NDArray[np.uint8]]], T],
) -> dict[str, float | T]:
    said = ask([_retina(pasted(locked, scene, guess, where))])
    return {"psnr": round(scene.psnr(guess), 2), "locked": said}


def logo_on(
    own: Logo, policy: Policy, photograph: NDArray[np.uint8], size: tuple[int, int]
) -> Logo:
    """Give a logo as it lies on a photograph uint8 (H, W, 3), from its width and height there."""
    height, width = photograph.shape[:2]
    sl = next(sl for sl in policy.sizes() if scaled_size(own, width, height, sl) == size)
    return drawn(scale_logo(own, width, height, sl), policy.look, width)


def _retina(photograph: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return cut(photograph, retina_crop(photograph))


def _at_512(retina: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return resample(retina, (_SMALL, _SMALL))


def _small(part: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if max(part.shape[:2]) <= _LARGEST:
        return np.ascontiguousarray(part)
    return _resized(part, _fitting(part.shape, _LARGEST))


def _resized(part: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)


def _fitting(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """Width and height of a picture (h, w, ...) brought to a longer side."""
    scale = side / max(shape[:2])
    return round(shape[1] * scale), round(shape[0] * scale)


def _parts_beside(
    photograph: NDArray[np.uint8], where: tuple[slice, slice]
) -> list[tuple[slice, slice]]:
    """Find parts as large that do not touch this one, evenly chosen of those with retina alone."""
    high, wide = (part.stop - part.start for part in where)
    dark = photograph.max(2) < _DARK
    found = []
    for y in range(0, photograph.shape[0] - high + 1, max(1, high // 2)):
        for x in range(0, photograph.shape[1] - wide + 1, max(1, wide // 2)):
            apart = abs(y - where[0].start) >= high or abs(x - where[1].start) >= wide
            if apart and dark[y : y + high, x : x + wide].mean() <= _DARK_SHARE:
                found.append(np.s_[y : y + high, x : x + wide])
    chosen = np.unique(np.linspace(0, len(found) - 1, min(_OTHERS, len(found))).round().astype(int))
    return [found[n] for n in chosen]


def _median(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.medianBlur(image, side), np.uint8)


def _nlm(image: NDArray[np.uint8], strength: float) -> NDArray[np.uint8]:
    clean = cv2.fastNlMeansDenoisingColored(image, None, strength, strength, 5, 15)
    return np.asarray(clean, np.uint8)


def _painted(
    image: NDArray[np.uint8], covered: NDArray[np.bool_], how: int = cv2.INPAINT_TELEA
) -> NDArray[np.uint8]:
    return np.asarray(cv2.inpaint(image, covered.astype(np.uint8), _RADIUS, how), np.uint8)
