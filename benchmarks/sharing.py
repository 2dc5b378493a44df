"""Photographs a minute by processes that share a folder, and what its leader takes for each.

    python benchmarks/sharing.py [--photographs 24] [--side 768] [--processes 1,2,4]

Phantoms, locked with the models and options that `medlocker lock` has by default, one thread a
process, the queue in a PostgreSQL that waits for the disk. The leader's share is its CPU time for
a photograph while three helpers lock small ones with tiny models and it locks none, with a vault:
what is left when everything else is done elsewhere. A leader cannot enter more.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

from dbos import DBOS

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "node"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from running_node import settled

from desk import QUICK, Desk, eye_pixels, record_of
from factories import make_fundus
from medlocker_dicom.dicom.writing import to_bytes
from postgres import database, served, server_programs


def minutes(desk: Desk, url: str, processes: int, photographs: int) -> float:
    """Lock a folder by so many processes; give the minutes from first to last."""
    out = desk / f"out-{processes}"
    words: list[str | Path] = [
        "lock",
        desk / "src",
        out,
        "--to",
        desk.public("alice"),
        "--no-vault",
    ]
    words += ["--issuer", desk.person("issuer"), "--queue", url]
    environment = {key: value for key, value in os.environ.items() if key != "MEDLOCKER_BUNDLES"}
    began = time.monotonic()
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "medlocker_dicom.cli.main", *map(str, words)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment | {"OMP_NUM_THREADS": "1"},
        )
        for _ in range(processes)
    ]
    codes = [one.wait() for one in running]
    assert codes == [0] * processes, codes
    assert len(record_of(out)["instances"]) == photographs
    return (time.monotonic() - began) / 60


def leading(desk: Desk, url: str, photographs: int) -> float:
    """Lead a run without locking; give the CPU seconds of it."""
    source, out = f"small-{photographs}", desk / f"led-{photographs}"
    for number in range(photographs):
        uid = f"1.2.826.0.1.3680043.10.9.{photographs}.{number + 1}"
        desk.eye(f"{source}/eye{number}.dcm", number % 20, instance_uid=uid)
    words: list[str | Path] = ["lock", desk / source, out, "--to", "alice", *QUICK, "--queue", url]
    listen = DBOS.listen_queues
    with ExitStack() as stack:
        # It takes no work: what it took, and did not do, the others would wait for.
        stack.enter_context(patch.object(DBOS, "listen_queues", lambda _: listen([])))
        for _ in range(3):
            helper = stack.enter_context(desk.spawn(*words))
            stack.callback(helper.communicate)
        began = time.process_time()
        said = desk.good(*words).err
        taken = time.process_time() - began
    assert "another process leads" not in said
    assert len(record_of(out)["instances"]) == photographs
    return taken


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photographs", type=int, default=24)
    parser.add_argument("--side", type=int, default=768)
    parser.add_argument("--processes", default="1,2,4")
    arguments = parser.parse_args()
    programs = server_programs() or sys.exit("postgresql is not installed")
    with (
        tempfile.TemporaryDirectory() as folder,
        served(programs, Path(folder), durable=True) as server,
    ):
        desk = settled(Path(folder) / "desk")
        for number in range(arguments.photographs):
            uid = f"1.2.826.0.1.3680043.10.8.{number + 1}"
            photograph = make_fundus(eye_pixels(number, arguments.side), instance_uid=uid)
            desk.put(f"src/eye{number}.dcm", to_bytes(photograph))
        first = 0.0
        print("processes  photographs/min  ratio")
        for processes in map(int, arguments.processes.split(",")):
            with database(server) as url:
                rate = arguments.photographs / minutes(desk, url, processes, arguments.photographs)
            first = first or rate
            print(f"{processes:9}  {rate:15.2f}  {rate / first:5.2f}", flush=True)
        desk.good("lock", desk.eye("one.dcm", 50), desk / "warm", "--to", "alice", *QUICK)
        with database(server) as url:
            few, many = leading(desk, url, 20), leading(desk, url, 220)
        each = (many - few) / 200
        print(f"leader: {1000 * each:.1f} ms of CPU a photograph, {60 / each:.0f}/min at most")


if __name__ == "__main__":
    main()
