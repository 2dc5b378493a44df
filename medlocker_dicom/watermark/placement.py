"""Where the logo lies and how opaque it is."""

from dataclasses import dataclass, field

from medlocker_dicom.errors import PlacementError

ALPHA_MIN = 100
"""Smallest opacity of the paper's setting: below it the logo is hard to see."""
ALPHA_MAX = 255


@dataclass(frozen=True)
class Placement:
    """What the search optimises: the three numbers of equation 3, and the list L by a grid.

    Parameters
    ----------
    x, y
        Column and row of the logo's top-left pixel at the image's full size,
        in pixels from the image's top-left pixel.
    alpha
        Opacity of the logo's opaque pixels before the dither, 100 to 255; the mean over the
        grid where there is one.
    grid
        Opacities of the logo's parts for each channel, from `pack_grid`; empty where all have
        `alpha`.

    Raises
    ------
    PlacementError
        If a coordinate is negative or alpha is out of range.
    """

    x: int
    y: int
    alpha: int
    grid: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        """Refuse what the class does not allow."""
        if self.x < 0 or self.y < 0:
            raise PlacementError(
                f"the logo's corner ({self.x}, {self.y}) lies outside the image",
                "positions count from the image's top-left pixel",
            )
        if not ALPHA_MIN <= self.alpha <= ALPHA_MAX:
            raise PlacementError(
                f"alpha {self.alpha} is not between {ALPHA_MIN} and {ALPHA_MAX}",
                "choose an opacity at which the logo can be seen",
            )
        least = min(self.grid[1:], default=ALPHA_MIN)
        if least < ALPHA_MIN:
            raise PlacementError(
                f"the alpha grid goes down to {least}, below {ALPHA_MIN}",
                "choose opacities at which the logo can be seen",
            )
