"""How instances are to be locked."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from medlocker_dicom.dicom.capture import CODECS
from medlocker_dicom.errors import UsageError
from medlocker_dicom.lesions.positions import Mode
from medlocker_dicom.search import ALPHA_LIST, STRATEGIES, SearchParameters
from medlocker_dicom.watermark.style import AS_IT_IS, Look, read_look

PAPER = SearchParameters()


@dataclass(frozen=True)
class Policy:
    """What the owner chose; on a CPU, equal policies give equal placements.

    Attributes
    ----------
    mode
        Where the logo may lie (WSM).
    strategy
        Name in `medlocker_dicom.search.STRATEGIES`, or ``alpha-list``.
    budget
        Distinct candidates that a search may look at, for each frame; a gradient counts three.
    margin
        By how much the ensemble's wrong class must lead (0 to 1) for the search to stop
        before the budget; 0 stops at the first flip, as the paper does. Either way at one that
        turns the grade at full size too.
    sl
        Logo size: the image's width over the logo's (eq. 2).
    smallest_sl
        How far the logo may shrink where no position is feasible.
    look
        What the logo looks like.
    legibility
        How much of the logo's strokes a list of opacities has to leave; it is flattened until it
        does.
    seed
        Of the search.
    batch_size
        Candidates computed together, on a GPU at least a population of `parameters`; changes
        results by rounding at most.
    codec
        Of the locked pixels: ``uncompressed``, ``rle``, ``jpegls`` or ``j2k``.
    parameters
        Numbers of the evolution, the paper's by default; the canvas has its own width.
    """

    mode: Mode = Mode.AVOID
    strategy: str = ALPHA_LIST
    budget: int = 200
    margin: float = 0.1
    sl: float = 4.0
    smallest_sl: float = 8.0
    look: Look = AS_IT_IS
    legibility: float = 0.8
    seed: int = 0
    batch_size: int = 8
    codec: str = "uncompressed"
    parameters: SearchParameters = PAPER

    @property
    def digest(self) -> str:
        """SHA-256 of what changes a placement, hexadecimal."""
        fields = {key: value for key, value in asdict(self).items() if key != "batch_size"}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    def sizes(self) -> list[float]:
        """Scaling factors to try, largest logo first."""
        steps = [self.sl * factor for factor in (1.0, 1.25, 1.5, 2.0)]
        return [self.sl, *(step for step in steps[1:] if step <= self.smallest_sl)]


def make_policy(  # noqa: PLR0913  the options of a command, checked together
    *,
    mode: str,
    strategy: str,
    budget: int,
    margin: float,
    sl: float,
    look: str,
    seed: int,
    codec: str,
) -> Policy:
    """Check a user's choices.

    Raises
    ------
    UsageError
        One of them is none of those allowed.
    """
    _check("mode", mode, [str(m) for m in Mode])
    _check("strategy", strategy, [ALPHA_LIST, *STRATEGIES])
    _check("codec", codec, ["uncompressed", *CODECS])
    return Policy(
        mode=Mode(mode),
        strategy=strategy,
        budget=budget,
        margin=margin,
        sl=sl,
        smallest_sl=2 * sl,
        look=read_look(look),
        seed=seed,
        codec=codec,
    )


def _check(option: str, value: str, allowed: list[str]) -> None:
    if value not in allowed:
        raise UsageError(f"{option} {value!r} is unknown", f"choose from {', '.join(allowed)}")
