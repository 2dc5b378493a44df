"""Eyes, models of known answers, and lockers for the tests of the pipeline."""

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from factories import make_fundus
from medlocker_dicom.bundles.bundle import Bundle
from medlocker_dicom.bundles.models import Classifier, Ensemble
from medlocker_dicom.bundles.preprocess import crop_to_retina, normalise
from medlocker_dicom.dicom.fundus import Fundus, decode_fundus
from medlocker_dicom.dicom.locked import Locked, decode_locked
from medlocker_dicom.dicom.writing import to_bytes
from medlocker_dicom.keyfile import Identity, Kem
from medlocker_dicom.phantom import Bit, Phantom, phantom
from medlocker_dicom.pipeline.lock import LockedInstance, Locker, lock
from medlocker_dicom.pipeline.policy import Policy
from medlocker_dicom.watermark.logo import Logo

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SIZE = 160
"""Side of the eyes in px; the models' input is 64 px."""
GRADES = ("0", "1", "2", "3", "4")
LESIONS = Bit.MA | Bit.HE | Bit.EX | Bit.SE
QUICK = Policy(strategy="paper", budget=40, margin=0.2)
Mask = NDArray[np.bool_]


def person(name: str, kem: Kem = Kem.X25519) -> Identity:
    """Return a fixed identity for each name."""
    seeds = (name[0].encode() * 32, name[1].encode() * 32, name[2].encode() * 32)
    return Identity(kem, *seeds, name)


ISSUER, ALICE, BOB, MALLORY = (person(name) for name in ("issuer", "alice", "bob_", "mallory"))


@cache
def eye(seed: int = 0, side: int = SIZE) -> Phantom:
    """Return a generated eye with lesions."""
    return phantom(np.random.default_rng(seed), (side, side))


def make_source(
    seeds: Sequence[int] = (0,), channels: int = 3, bits: int = 8, **shot: Any
) -> Fundus:
    """Return a source instance: one generated eye a frame, in grey for one channel."""
    frames = np.stack([eye(seed).image for seed in seeds])
    if channels == 1:
        frames = frames[..., 1:2]
    if bits > 8:
        # low bits of their own, so that losing them would be noticed
        noise = np.random.default_rng(1).integers(0, 1 << (bits - 8), frames.shape)
        frames = ((frames.astype(np.uint32) << (bits - 8)) + noise).astype(np.uint16)
    return decode_fundus(reread(make_fundus(frames, bits, **shot)))


def reread(ds: Any) -> Any:
    """Return a data set as a reader of its file gets it."""
    return dcmread(io.BytesIO(to_bytes(ds)))


def opened(locked: LockedInstance) -> Locked:
    """Return a locked instance as its recipient reads it."""
    return decode_locked(reread(locked.ds))


def grader(seed: int, size: int = 64) -> Classifier:
    """Return a classifier that weighs 8 x 8 regions, centred on the generated eyes.

    Its decision depends on the picture, and a logo can change it.
    """
    weights = np.random.default_rng(seed).normal(size=(3 * 8 * 8, 5))

    def features(inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        step = size // 8
        pooled = inputs.astype(np.float64).reshape(len(inputs), 3, 8, step, 8, step).mean((3, 5))
        return np.asarray(pooled.reshape(len(inputs), -1) @ weights)

    centre = features(
        normalise(np.stack([crop_to_retina(eye(n).image, size) for n in range(4)]))
    ).mean(0)
    bundle = Bundle(Path("fake"), f"fake{seed}", "dr-classifier", GRADES, size, "0" * 64, {}, {})
    return Classifier(bundle, lambda inputs: ((features(inputs) - centre) / 3).astype(np.float32))


def ring(side: int = 96) -> Logo:
    """Return a logo: a white ring with a dark, half-transparent core."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    radius = np.hypot(x, y)
    rgba = np.zeros((side, side, 4), np.uint8)
    rgba[radius < 0.95] = (255, 255, 255, 255)
    rgba[radius < 0.6] = (10, 20, 90, 128)
    return Logo(rgba)


def no_lesions(rgb: NDArray[np.uint8]) -> Mask:
    """Find none."""
    return np.zeros(rgb.shape[:2], np.bool_)


def block(top: int, bottom: int, left: int, right: int) -> Callable[[NDArray[np.uint8]], Mask]:
    """Find one rectangle of lesion."""

    def find(rgb: NDArray[np.uint8]) -> Mask:
        found = no_lesions(rgb)
        found[top:bottom, left:right] = True
        return found

    return find


def make_locker(**fields: Any) -> Locker:
    """Return a quick locker for alice and bob with two models; `fields` differ."""
    locker = Locker(
        QUICK,
        Ensemble([grader(1), grader(2)]),
        no_lesions,
        ring(),
        ISSUER,
        (ALICE.public, BOB.public),
    )
    return replace(locker, **fields)


def make_locked(source: Fundus | None = None, **fields: Any) -> LockedInstance:
    """Lock a source instance, a colour eye by default."""
    return lock(source or make_source(), make_locker(**fields), now=NOW)
