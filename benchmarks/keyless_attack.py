"""Measure what an attacker without the key restores of the covered region.

The attacker knows the logo, the rule without its seed, and the position, and
is given the benefit of every doubt: where a number has to be guessed (the
opacity, a window), the truth picks the best of a grid.

    python benchmarks/keyless_attack.py [--data FOLDER] [--images N] [--logo PNG]

PSNR is over the pixels that the logo covers, at most 512 px a side (a larger
region is averaged down), all channels, peak 255: higher is better for the
attacker. `inpaint` looks at the surroundings alone, so no dither can push it
down: it is the floor of what hiding pixels can achieve. The last two begin
with it: `colour prior` lifts the logo as far as the colours of an eye make
likeliest, which undoes a dither of one opacity a px (the earlier rule mlv1);
`Wiener` corrects it by what the statistics of eyes and of the dither tell, the
strongest attack on an opacity for each channel that we know.
"""

import argparse
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from medlocker_dicom.bundles.picture import read_rgb
from medlocker_dicom.evaluation.attacks import (
    Scene,
    colour_prior,
    known_logo,
    known_logo_median,
    known_logo_nlm,
    scene_of,
    telea,
    wiener,
)
from medlocker_dicom.watermark.alpha import RULE, alpha_map, plain_map
from medlocker_dicom.watermark.blend import blend, logo_samples
from medlocker_dicom.watermark.logo import Logo
from medlocker_dicom.watermark.png import default_logo, load_logo
from medlocker_dicom.watermark.scale import scale_logo

ALPHAS = (100, 150, 200, 230)
Image = NDArray[np.uint8]

ATTACKS: dict[str, Callable[[Scene], Image]] = {
    "as locked": lambda scene: scene.locked,
    "known logo": known_logo,
    "+ median 5x5": known_logo_median,
    "+ NLM": known_logo_nlm,
    "inpaint": telea,
    "colour prior": colour_prior,
    "Wiener": wiener,
}


def scenes(images: Sequence[Image], logo: Logo, alpha: int, rule: str) -> Iterator[Scene]:
    """Lock each image at a drawn position on the retina's middle half."""
    rng = np.random.default_rng(20240229)
    for index, image in enumerate(images):
        height, width = image.shape[:2]
        small = scale_logo(logo, width, height, 4.0)
        x = int(rng.integers(width // 4, 3 * width // 4 - small.width))
        y = int(rng.integers(height // 4, 3 * height // 4 - small.height))
        colours = logo_samples(small.rgba, 3, 8).astype(np.uint8)
        seed = hashlib.sha256(b"benchmark %d" % index).digest()
        one = plain_map(small.alpha, alpha)[..., np.newaxis]
        if rule:
            one = alpha_map(small.alpha, alpha, seed, rule=rule)
        window = np.s_[y : y + small.height, x : x + small.width]
        locked = image.copy()
        locked[window] = blend(image[window], colours, one)
        yield scene_of(locked, image, small, (x, y))[0]


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
        for rule in ("", "mlv1", RULE):
            every = list(scenes(images, logo, alpha, rule))
            line = f"{alpha:>5} {rule or 'off':>6}"
            for attack in ATTACKS.values():
                found = [scene.psnr(attack(scene)) for scene in every]
                line += f"{np.mean(found):>8.1f} ({max(found):.1f})".rjust(16)
            print(line, flush=True)


if __name__ == "__main__":
    main()
