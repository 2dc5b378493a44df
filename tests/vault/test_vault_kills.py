"""An issuing run that is killed leaves nothing half-issued, and the next one does the rest."""

import random
from pathlib import Path

from issuing import Issuing


def test_kill_9_while_issuing(vault_place: str, tmp_path: Path) -> None:
    """After each kill the vault checks clean; at last every grant is there once."""
    desk = Issuing(tmp_path, vault_place, 2000)
    desk.prepare().vault.close()
    rng = random.Random(4)
    before = 2000
    for _ in range(3):
        desk.kill_after(rng.uniform(0.9, 2.2))
        grants, live = desk.check()
        assert before <= grants == live <= 4000
        before = grants
    assert desk.finish() == 4000 - before
    assert desk.check() == (4000, 4000)
    assert desk.finish() == 0
