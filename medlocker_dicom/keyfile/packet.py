"""The recovery packet: what takes the logo off again, and the source's header."""

import re
from dataclasses import dataclass

from medlocker_dicom.errors import PacketError
from medlocker_dicom.keyfile import caps

SEED_BYTES = 32
DIGEST_BYTES = 32
_RULE = re.compile(r"[a-z0-9][a-z0-9.-]*")
_MAX_U16 = 2**16 - 1


@dataclass(frozen=True, repr=False)
class PacketLogo:
    """A logo as it was blended.

    Parameters
    ----------
    width, height
        In pixels, 1 to 65535.
    planes
        Its compressed samples, opaque here.

    Raises
    ------
    PacketError
        Out of range, or larger than the cap.
    """

    width: int
    height: int
    planes: bytes

    def __post_init__(self) -> None:
        """Check what the class promises."""
        _check_range("logo width", self.width, 1, _MAX_U16)
        _check_range("logo height", self.height, 1, _MAX_U16)
        _check_size("logo", self.planes, caps.MAX_LOGO_BYTES)

    def __repr__(self) -> str:
        """Show the size alone; what a packet holds is for the recipient."""
        return f"<PacketLogo {self.width}x{self.height}>"


@dataclass(frozen=True, repr=False)
class FrameMark:
    """How one frame was locked, and what the blend lost of it.

    Parameters
    ----------
    x, y
        Top left corner of the logo, 0 to 65535 px from the frame's.
    alpha
        Opacity, 0 to 255.
    rule
        Name of the rule that expands `alpha`, `grid` and `seed` to the list
        L: 1 to 32 of ``a-z 0-9 . -``.
    seed
        Of the dither, 32 bytes.
    logo_sha256
        Digest of the logo as blended, 32 bytes.
    logo
        Its index in `Packet.logos`.
    residual
        Compressed residual of the covered pixels, opaque here.
    grid
        The optimised alpha grid, opaque here; empty where `alpha` is all.

    Raises
    ------
    PacketError
        Out of range, or larger than the cap.
    """

    x: int
    y: int
    alpha: int
    rule: str
    seed: bytes
    logo_sha256: bytes
    logo: int
    residual: bytes
    grid: bytes = b""

    def __post_init__(self) -> None:
        """Check what the class promises."""
        _check_range("x", self.x, 0, _MAX_U16)
        _check_range("y", self.y, 0, _MAX_U16)
        _check_range("alpha", self.alpha, 0, 255)
        _check_range("logo index", self.logo, 0, caps.MAX_LOGOS - 1)
        if len(self.rule) > caps.MAX_RULE_CHARS or not _RULE.fullmatch(self.rule):
            raise PacketError("rule in the recovery packet is no name")
        if len(self.seed) != SEED_BYTES or len(self.logo_sha256) != DIGEST_BYTES:
            raise PacketError("seed or logo digest in the recovery packet is not 32 bytes")
        _check_size("residual", self.residual, caps.MAX_RESIDUAL_BYTES)
        _check_size("alpha grid", self.grid, caps.MAX_GRID_BYTES)

    def __repr__(self) -> str:
        """Show the rule alone; position, opacity and seed are the lock's secret."""
        return f"<FrameMark {self.rule}>"


@dataclass(frozen=True, repr=False)
class Packet:
    """Everything that unlocking needs beside the locked object.

    Parameters
    ----------
    frames
        One mark for each frame, in order.
    logos
        The logos that the marks refer to; each is used, none is there twice.
    original_sha256
        SHA-256 of the original decoded pixels, 32 bytes.
    attributes
        The packed source dataset without its pixels, opaque here.

    Raises
    ------
    PacketError
        No frame, a logo that is missing, unused or doubled, or a cap exceeded.
    """

    frames: tuple[FrameMark, ...]
    logos: tuple[PacketLogo, ...]
    original_sha256: bytes
    attributes: bytes

    def __post_init__(self) -> None:
        """Check what the class promises."""
        _check_range("number of frames", len(self.frames), 1, caps.MAX_FRAMES)
        _check_range("number of logos", len(self.logos), 1, caps.MAX_LOGOS)
        if len(self.original_sha256) != DIGEST_BYTES:
            raise PacketError("digest of the original in the recovery packet is not 32 bytes")
        _check_size("attributes", self.attributes, caps.MAX_ATTRIBUTES_BYTES)
        if {mark.logo for mark in self.frames} != set(range(len(self.logos))):
            raise PacketError("a logo in the recovery packet is missing or unused")
        if len(set(self.logos)) < len(self.logos):
            raise PacketError("a logo is in the recovery packet twice")

    def __repr__(self) -> str:
        """Show counts alone."""
        return f"<Packet of {len(self.frames)} frames, {len(self.logos)} logos>"


def _check_range(what: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise PacketError(f"{what} in the recovery packet is not in {low} to {high}")


def _check_size(what: str, data: bytes, cap: int) -> None:
    if len(data) > cap:
        raise PacketError(
            f"{what} in the recovery packet has {len(data)} bytes, more than the {cap} allowed"
        )
