"""Measure what an attacker without the key restores of the covered region.

The attacker knows the logo, the rule without its seed, and the position, and
is given the benefit of every doubt: where a number has to be guessed (the
opacity, a window), the truth picks the best of a grid.

    python benchmarks/keyless_attack.py [--data FOLDER] [--images N] [--logo PNG]

PSNR is over the pixels that the logo covers, all channels, peak 255: higher is
better for the attacker. `inpaint` looks at the surroundings alone, so no
dither can push it down: it is the floor of what hiding pixels can achieve.
`colour prior` takes its guess from that inpainting and corrects the opacity
window by window: the strongest keyless attack that we know.
"""

import argparse
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from medlocker_dicom.bundles.picture import read_rgb
from medlocker_dicom.watermark.alpha import alpha_map, plain_map
from medlocker_dicom.watermark.blend import blend, logo_samples
from medlocker_dicom.watermark.logo import Logo
from medlocker_dicom.watermark.png import default_logo, load_logo
from medlocker_dicom.watermark.scale import scale_logo

ALPHAS = (100, 150, 200, 230)
WINDOWS = (1, 3, 7, 15)
MARGIN = 12
Image = NDArray[np.uint8]
Real = NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """What the attacker has (locked crop, logo, nominal opacity) and what is true."""

    locked: Image
    truth: Image
    logo: Image
    logo_alpha: Image

    @property
    def covered(self) -> NDArray[np.bool_]:
        """Pixels that the logo covers."""
        return self.logo_alpha > 0

    def psnr(self, guess: Real | Image) -> float:
        """PSNR in dB over the covered pixels."""
        error = guess.astype(np.float64)[self.covered] - self.truth[self.covered]
        return float(10 * np.log10(255.0**2 / max(float(np.mean(error**2)), 1e-6)))

    def inverse(self, alpha: int) -> Image:
        """Equation 9 with one assumed opacity."""
        keep = 1 - plain_map(self.logo_alpha, alpha)[..., np.newaxis] / 255
        lifted = (self.locked - (1 - keep) * self.logo) / np.maximum(keep, 1 / 510)
        return np.clip(np.rint(lifted), 0, 255).astype(np.uint8)


def best_inverse(scene: Scene, clean: Callable[[Image], Image]) -> float:
    """Equation 9 over a grid of opacities, each cleaned; the best."""
    return max(scene.psnr(clean(scene.inverse(alpha))) for alpha in range(40, 255, 3))


def plain(image: Image) -> Image:
    """Clean nothing."""
    return image


def median(image: Image) -> Image:
    """Clean with a 5 x 5 median."""
    return np.asarray(cv2.medianBlur(image, 5), np.uint8)


def nlm(scene: Scene) -> float:
    """Non-local means at several strengths on the best plain inverse; the best."""
    start = max((scene.inverse(alpha) for alpha in range(40, 255, 3)), key=scene.psnr)
    strengths = (3, 10, 20)
    return max(scene.psnr(_nlm(start, h)) for h in strengths)


def _nlm(image: Image, h: float) -> Image:
    return np.asarray(cv2.fastNlMeansDenoisingColored(image, None, h, h, 5, 15), np.uint8)


def inpainted(scene: Scene) -> Image:
    """Telea's inpainting of the covered pixels."""
    mask = scene.covered.astype(np.uint8)
    return np.asarray(cv2.inpaint(scene.locked, mask, 5, cv2.INPAINT_TELEA), np.uint8)


def colour_prior(scene: Scene) -> float:
    """Correct the opacity so that windows match the inpainting; the best window."""
    logo = scene.logo.astype(np.float64)
    seen, wanted = scene.locked - logo, inpainted(scene) - logo
    guesses = []
    for window in WINDOWS:
        size = (window, window)
        match = cv2.boxFilter((seen * wanted).sum(-1), -1, size, normalize=False)
        power = cv2.boxFilter((seen**2).sum(-1), -1, size, normalize=False)
        gain = np.asarray(match)[..., np.newaxis] / np.maximum(power, 1)[..., np.newaxis]
        guesses.append(np.clip(logo + np.maximum(gain, 1) * seen, 0, 255))
    return max(scene.psnr(guess) for guess in guesses)


ATTACKS: dict[str, Callable[[Scene], float]] = {
    "as locked": lambda scene: scene.psnr(scene.locked),
    "known logo": lambda scene: best_inverse(scene, plain),
    "+ median 5x5": lambda scene: best_inverse(scene, median),
    "+ NLM": nlm,
    "inpaint": lambda scene: scene.psnr(inpainted(scene)),
    "colour prior": colour_prior,
}


def scenes(images: Sequence[Image], logo: Logo, alpha: int, *, keyed: bool) -> Iterator[Scene]:
    """Lock each image at a drawn position on the retina's middle half."""
    rng = np.random.default_rng(20240229)
    for index, image in enumerate(images):
        height, width = image.shape[:2]
        small = scale_logo(logo, width, height, 4.0)
        x = int(rng.integers(width // 4, 3 * width // 4 - small.width))
        y = int(rng.integers(height // 4, 3 * height // 4 - small.height))
        edge = ((MARGIN, MARGIN), (MARGIN, MARGIN))
        logo_alpha = np.pad(small.alpha, edge)
        colours = np.pad(logo_samples(small.rgba, 3, 8).astype(np.uint8), (*edge, (0, 0)))
        truth = image[y - MARGIN : y + small.height + MARGIN, x - MARGIN : x + small.width + MARGIN]
        seed = hashlib.sha256(b"benchmark %d" % index).digest()
        one = alpha_map(small.alpha, alpha, seed) if keyed else plain_map(small.alpha, alpha)
        locked = blend(truth, colours, np.pad(one, edge))
        yield Scene(locked, truth, colours, logo_alpha)


def photographs(folder: Path, count: int) -> tuple[list[Image], str]:
    """Load the first photographs of a folder, or scikit-image's retina."""
    paths = sorted(folder.rglob("*.jpg"))[:count]
    if not paths:
        from skimage import data  # noqa: PLC0415  # only without the photographs

        retina: Image = data.retina()  # type: ignore[no-untyped-call]  # as skimage ships it
        return [retina], "skimage.data.retina()"
    return [read_rgb(path) for path in paths], str(folder)


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description="PSNR of a keyless attacker")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/idrid_grading"))
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--logo", type=Path, help="another logo, PNG with transparency")
    options = parser.parse_args()
    logo = (
        load_logo(options.logo.read_bytes(), options.logo.name) if options.logo else default_logo()
    )
    images, source = photographs(options.data, options.images)
    cv2.setNumThreads(1)
    print(f"region PSNR in dB, mean (worst = highest) of n = {len(images)}, {source}")
    print(f"{'alpha':>5} {'dither':>6}" + "".join(f"{name:>16}" for name in ATTACKS))
    for alpha in ALPHAS:
        for keyed in (False, True):
            every = list(scenes(images, logo, alpha, keyed=keyed))
            line = f"{alpha:>5} {'on' if keyed else 'off':>6}"
            for attack in ATTACKS.values():
                found = [attack(scene) for scene in every]
                line += f"{np.mean(found):>8.1f} ({max(found):.1f})".rjust(16)
            print(line, flush=True)


if __name__ == "__main__":
    main()
