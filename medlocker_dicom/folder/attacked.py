"""What undoes a lock that was just made: for the owner's report."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from medlocker_dicom.evaluation.attacks import QUICK, attacked, logo_on

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medlocker_dicom.dicom.fundus import Fundus
    from medlocker_dicom.pipeline.lock import LockedInstance, Locker


def quick_attacks(source: Fundus, locked: LockedInstance, locker: Locker) -> list[dict[str, Any]]:
    """Attack each frame of a lock quickly.

    Returns
    -------
    list
        For each frame ``psnr``, dB over the px under the logo of the best that a thief without
        the key restores; and ``undone_by``, names of the attacks under which the models, together,
        decide as on the clean photograph; None where the lock did not change the decision.
    """

    def decide(views: list[NDArray[np.uint8]]) -> int:
        return int(locker.ensemble.probabilities(np.stack(views)).mean(0).argmax())

    told = []
    after = replace(source, pixels=locked.pixels)
    for number, record in enumerate(locked.record.frames):
        pair = (source.display(number), after.display(number))
        logo = logo_on(locker.logo, locker.policy, pair[0], record.logo_size)
        found = attacked(pair, logo, record.placement[:2], decide, QUICK)
        clean = locker.ensemble.labels.index(record.clean_grade)
        told.append(
            {
                "psnr": max(one["psnr"] for one in found.values() if "psnr" in one),
                "undone_by": [name for name, one in found.items() if one["locked"] == clean]
                if record.flipped
                else None,
            }
        )
    return told
