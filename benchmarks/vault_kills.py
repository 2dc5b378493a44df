"""Kills an issuing run with kill -9 again and again, and checks the vault each time.

    python benchmarks/vault_kills.py [--kills 50] [--instances 10000]

The real command issues to a new recipient, and is killed at a random moment; then `vault check`
runs. When nothing is left to issue, the vault is made anew. At last a run that nobody kills
completes it. Once on SQLite, once on PostgreSQL.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from issuing import Issuing
from postgres import database, served, server_programs

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def places(url: str, folder: Path) -> Iterator[str]:
    """Give a place for a new vault: a file, or a database where there is a server."""
    if url:
        with database(url) as place:
            yield place
    else:
        yield str(folder / "vault.db")


def killed(url: str, kills: int, instances: int, rng: random.Random) -> None:
    """Kill until enough runs died at work; print what the checks found."""
    done = clean = rounds = 0
    while done < kills:
        with tempfile.TemporaryDirectory() as folder, places(url, Path(folder)) as place:
            desk = Issuing(Path(folder), place, instances)
            desk.prepare().vault.close()
            rounds, issued = rounds + 1, instances
            while done < kills and issued < 2 * instances:
                if not desk.kill_after(rng.uniform(0.5, 3.0)):
                    break
                done += 1
                grants, live = desk.check()
                assert issued <= grants == live <= 2 * instances, (issued, grants, live)
                clean, issued = clean + 1, grants
            left = desk.finish()
            assert desk.check() == (2 * instances, 2 * instances)
    kind = "PostgreSQL" if url else "SQLite"
    print(f"{kind}: {done} kills, {clean} clean checks, {rounds} vaults completed", end="")
    print(f" (the last run issued {left}), {2 * instances} grants in each, none twice")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--instances", type=int, default=10_000)
    arguments = parser.parse_args()
    rng = random.Random(7)  # noqa: S311  moments, no secrets
    killed("", arguments.kills, arguments.instances, rng)
    programs = server_programs() or sys.exit("postgresql is not installed")
    with tempfile.TemporaryDirectory() as folder, served(programs, Path(folder)) as url:
        killed(url, arguments.kills, arguments.instances, rng)


if __name__ == "__main__":
    main()
