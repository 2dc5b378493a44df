"""The ground of the picture: reflectance, light, macula and optic disc."""

import cv2
import numpy as np

from medlocker_dicom.phantom.eye import Eye, Floats, noise, rgb

GROUNDS = ((0.80, 0.40, 0.17), (0.76, 0.36, 0.21), (0.70, 0.36, 0.13), (0.84, 0.41, 0.27))
"""Colours of real retinas under white light, from brown to pink, RGB 0 to 1."""

DISC_RIM = (0.97, 0.66, 0.38)
DISC_CUP = (1.0, 0.87, 0.63)


def ground(rng: np.random.Generator, eye: Eye) -> Floats:
    """Paint the retina without vessels or disc.

    Returns
    -------
    numpy.ndarray
        float32 ``(H, W, 3)`` RGB, 0 to about 1.
    """
    first, second = rng.choice(len(GROUNDS), 2, replace=False)
    mix = rng.uniform(0, 1)
    base = (1 - mix) * np.array(GROUNDS[first]) + mix * np.array(GROUNDS[second])
    tint = base.astype(np.float32)[None, None, :]
    shade = _texture(rng, eye)[..., None] * rgb(0.6, 1.0, 1.1)
    patches = noise(rng, (eye.height, eye.width), 0.45 * eye.radius)[..., None]
    hue = 1 + patches * rgb(0.012, -0.03, -0.05)
    painted: Floats = tint * (1 + shade) * hue * _macula(rng, eye) * _sheen(rng, eye)
    return painted


def light(rng: np.random.Generator, eye: Eye) -> Floats:
    """Brightness of the flash over the field, float32 ``(H, W)``, about 0.4 to 1.1."""
    u, v = eye.grid
    along = rng.uniform(0, 2 * np.pi)
    slope = np.float32(rng.uniform(0.03, 0.1))
    tilt = slope * (u * np.float32(np.cos(along)) + v * np.float32(np.sin(along)))
    fall = np.square(np.hypot(u, v))
    edge = np.exp((np.sqrt(fall) - 1) / np.float32(0.05)) * np.float32(0.18)
    return np.clip(1 + tilt - np.float32(0.24) * fall - edge, 0.1, None)


def _texture(rng: np.random.Generator, eye: Eye) -> Floats:
    """Draw the grain of the pigment and, faintly, the vessels of the choroid."""
    shape = (eye.height, eye.width)
    total = np.zeros(shape, dtype=np.float32)
    for size, strength in ((0.006, 0.012), (0.02, 0.014), (0.06, 0.018), (0.2, 0.03)):
        total += np.float32(strength) * noise(rng, shape, size * eye.radius)
    ridges = np.exp(-np.square(noise(rng, shape, 0.085 * eye.radius) / np.float32(0.28)))
    away = np.clip(eye.distance(eye.macula) - np.float32(0.25), 0, 0.6)
    grain: Floats = total + np.float32(rng.uniform(0.05, 0.13)) * (ridges - np.float32(0.3)) * away
    return grain


def _macula(rng: np.random.Generator, eye: Eye) -> Floats:
    """Darken the macula; its pigment takes blue first, the fovea most of all."""
    u, v = eye.grid
    across = (u - np.float32(eye.macula[0])) / np.float32(1.15)
    away = np.hypot(across, v - np.float32(eye.macula[1]))
    depth = rng.uniform(0.85, 1.1)
    wide = np.exp(-np.square(away / np.float32(0.26)))[..., None]
    fovea = np.exp(-np.square(away / np.float32(0.085)))[..., None]
    taken = wide * rgb(0.13, 0.22, 0.24) + fovea * rgb(0.11, 0.24, 0.28)
    passed: Floats = np.exp(-np.float32(depth) * taken)
    return passed


def _sheen(rng: np.random.Generator, eye: Eye) -> Floats:
    """Brighten the nerve fibres that fan out from the disc."""
    u, v = eye.grid
    away = eye.distance(eye.disc)
    angle = np.arctan2(v - np.float32(eye.disc[1]), u - np.float32(eye.disc[0]))
    knots = rng.standard_normal(181)
    knots[-1] = knots[0]
    streaks = np.interp(angle, np.linspace(-np.pi, np.pi, 181), knots).astype(np.float32)
    fan = np.exp(-np.square((away - np.float32(0.25)) / np.float32(0.22)))
    arches = 0.5 + 0.5 * np.abs(np.sin(angle))
    glow = np.exp(-np.square(away / np.float32(0.36))) * np.float32(0.13)
    veil = fan * arches * (np.float32(0.05) + np.float32(0.014) * streaks)
    gain: Floats = 1 + (glow + veil)[..., None] * rgb(0.8, 1.2, 1.5)
    return gain


def disc_coverage(eye: Eye) -> Floats:
    """Coverage by the optic disc, float32 ``(H, W)``, 0 to 1; 0.5 at its border."""
    covered: Floats = np.clip(np.float32(0.5) + (1 - _disc_norm(eye)) * np.float32(4.5), 0, 1)
    return covered


def painted_disc(rng: np.random.Generator, eye: Eye, picture: Floats) -> Floats:
    """Lay the optic disc with its pale cup and its rim on the retina.

    Returns
    -------
    numpy.ndarray
        The picture with the disc, float32 ``(H, W, 3)``.
    """
    away = _disc_norm(eye)
    covered = disc_coverage(eye)[..., None]
    shift = np.array([eye.temporal * 0.02, 0.005])
    cup = eye.distance(eye.disc + shift) / np.float32(eye.disc_axes[0] * rng.uniform(0.42, 0.58))
    cup_share = (0.5 - 0.5 * np.tanh((cup - 1) * np.float32(3.5)))[..., None]
    rim = rgb(*DISC_RIM) * np.float32(rng.uniform(0.94, 1.02))
    pale = rgb(*DISC_CUP)
    grain = 1 + np.float32(0.025) * noise(rng, away.shape, 0.02 * eye.radius)[..., None]
    u, _ = eye.grid
    nasal = np.clip(-(u - np.float32(eye.disc[0])) * eye.temporal / eye.disc_axes[0], -1, 1)
    pink = 1 - nasal[..., None] * rgb(0.02, 0.09, 0.10)
    surface = (rim * (1 - cup_share) * pink + pale * cup_share) * grain
    ring = np.exp(-np.square((away - np.float32(1.08)) / np.float32(0.07)))[..., None]
    crescent = 1 - ring * rgb(0.05, 0.13, 0.12) * (1 - covered)
    shown: Floats = picture * crescent * (1 - covered) + surface * covered
    return shown


def _disc_norm(eye: Eye) -> Floats:
    """Distance from the disc's centre in its own half-axes; 1 on the border."""
    u, v = eye.grid
    across = (u - np.float32(eye.disc[0])) / np.float32(eye.disc_axes[0])
    down = (v - np.float32(eye.disc[1])) / np.float32(eye.disc_axes[1])
    norm: Floats = np.hypot(across, down)
    return norm


def softened(picture: Floats, sigma: float) -> Floats:
    """Blur as the camera's optics do; `sigma` in pixels."""
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), max(sigma, 0.3)), dtype=np.float32)
