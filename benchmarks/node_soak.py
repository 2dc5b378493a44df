"""Kills the node again and again while four modalities send to it, and counts what arrives.

    python benchmarks/node_soak.py [--instances 300] [--kills 40] [--seed 0] [--queue NAME]

Once with a queue in sqlite and one worker, once in postgresql with two, or one of them. The archive
is DCMTK's storescp, and it goes away twice. Each sender sends an instance until it is answered
Success, as a modality does. What was answered Success has to be in the archive, locked, and once;
and `vault check` has to find everything in order. The models are tiny: this is about loss, not
about time.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "node"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from running_node import running, settled
from soaking import Soak

import archives
from postgres import database, served, server_programs


def soaked(url: str, arguments: argparse.Namespace, folder: Path) -> None:
    """Soak once; print what was sent and what arrived."""
    desk = settled(folder)
    port = archives.free_port()
    there = {"kind": "dicom", "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": port}
    files = sorted(desk.eyes("src", arguments.instances).iterdir())
    rng = random.Random(arguments.seed)  # noqa: S311  no secret
    changes = {"database": url} if url else {}
    started = time.monotonic()
    with running(desk, {"archive": there}, changes=changes, workers=2 if url else 1) as node:
        soak = Soak(node, files, folder / "kept", port, arguments.kills, rng)
        soak.run()
    kept = soak.kept()
    checked = desk.good("vault", "check").out.splitlines()[0]
    print(
        f"{'PostgreSQL, 2 workers' if url else 'SQLite, 1 worker'}: {arguments.kills} kills in "
        f"{time.monotonic() - started:.0f} s; {soak.tries} attempts at {len(files)} instances, "
        f"{len(set(soak.answered))} answered Success; in the archive {len(kept)}, "
        f"{len(set(kept))} different, {len(set(soak.answered) - set(kept))} missing; "
        f"vault: {checked}",
        flush=True,
    )
    assert sorted(kept) == sorted(soak.answered)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=300)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--queue", choices=("sqlite", "postgresql"))
    arguments = parser.parse_args()
    programs = server_programs() or sys.exit("postgresql is not installed")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in ("sqlite", "postgresql"):
            (folder / name).mkdir()
        if arguments.queue != "postgresql":
            soaked("", arguments, folder / "sqlite")
        if arguments.queue == "sqlite":
            return
        server = stack.enter_context(served(programs, folder / "postgresql", durable=True))
        soaked(stack.enter_context(database(server)), arguments, folder / "postgresql")


if __name__ == "__main__":
    main()
