"""MB/s into our receiver (durable), DCMTK's storescp and Orthanc, side by side; and our memory.

    python benchmarks/ingest.py [--objects 80] [--rounds 4] [--small 5000]

Objects of 36 MB raw, 3.4 MB JPEG and 0.5 MB, by 1 and by 4 senders (DCMTK's storescu, each
on one association). In each round the three take turns; the best round of each counts.
Every object of a run has UIDs of its own, and what an earlier turn left unwritten is not charged to
the next: a file system may write all of it before it calls one file durable. Ours is the whole node
with two receivers, its queue in SQLite, without a worker; neither storescp nor Orthanc waits for
the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pydicom import dcmread, uid
from pydicom.encaps import encapsulate

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "node"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from running_node import running, settled

from factories import make_fundus, save
from receiving import dcmtk, free_socket, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CALLED = "MEDLOCKER"
_NUMBERS = count(1)
_ORTHANC = {
    "DicomServerEnabled": True,
    "DicomCheckCalledAet": False,
    "DicomCheckCalledAETitle": False,
    "DicomAlwaysAllowStore": True,
    "HttpServerEnabled": False,
    "DicomAet": CALLED,
    "ExecuteLuaEnabled": False,
    "OverwriteInstances": True,
}


class Kind(NamedTuple):
    """A kind of object: its file, how storescu proposes it, and how many a sender sends."""

    name: str
    path: Path
    option: str
    objects: int


class Peer(NamedTuple):
    """A running receiver."""

    name: str
    port: int
    processes: list[int]


def kinds(folder: Path, objects: int) -> list[Kind]:
    """Make one object of each kind; the pixels are noise, and nothing here looks at them."""
    rng = np.random.default_rng(7)

    def raw(side: int, name: str) -> Path:
        pixels = rng.integers(0, 256, (1, side, side, 3), dtype=np.uint8)
        return save(make_fundus(pixels), folder, f"{name}.dcm")

    jpeg = dcmread(raw(8, "jpeg"))
    jpeg.PixelData = encapsulate([rng.bytes(3_400_000)])
    jpeg.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    jpeg.save_as(folder / "jpeg.dcm")
    return [
        Kind("36 MB raw", raw(3465, "large"), "-xe", max(1, objects // 8)),
        Kind("3.4 MB JPEG", folder / "jpeg.dcm", "-xy", objects),
        Kind("0.5 MB", raw(408, "small"), "-xe", objects),
    ]


def prepared(kind: Kind, folder: Path, objects: int) -> Path:
    """Write copies of an object, each with a SOP Instance UID of its own."""
    folder.mkdir(parents=True)
    ds = dcmread(kind.path)
    for _ in range(objects):
        ds.SOPInstanceUID = uid.UID(f"1.2.826.0.1.3680043.10.1.77.{next(_NUMBERS)}")
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.save_as(folder / f"{objects}-{next(_NUMBERS)}.dcm")
    return folder


def sent(port: int, kind: Kind, folders: list[Path]) -> float:
    """Send a folder by each of as many senders; give MB/s in total."""
    size = sum(path.stat().st_size for folder in folders for path in folder.iterdir())

    def send(folder: Path) -> None:
        words = (kind.option, "-aec", CALLED, "127.0.0.1", port, "+sd", folder)
        code, output = dcmtk("storescu", *words, limit_s=3600)
        if code != 0:
            sys.exit(output[-2000:])

    os.sync()
    begun = time.monotonic()
    with ThreadPoolExecutor(len(folders)) as pool:
        list(pool.map(send, folders))
    return size / 1e6 / (time.monotonic() - begun)


@contextmanager
def ours(folder: Path) -> Iterator[Peer]:
    """Run the node with two receivers."""
    folder.mkdir()
    port = _free()
    archive = {"kind": "dicom", "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": _free()}
    listen = {"port": port, "ae_title": CALLED, "processes": 2}
    desk = settled(folder)
    with running(
        desk, {"archive": archive}, changes={"listen": listen}, port=port, workers=0
    ) as node:
        yield _up(Peer("ours", port, node.processes()))


@contextmanager
def storescp(folder: Path) -> Iterator[Peer]:
    """Run DCMTK's storescp, a process for each association."""
    folder.mkdir()
    port = _free()
    words = ["/usr/bin/storescp", "--fork", "+xa", "-uf", "-od", str(folder), str(port)]
    with _running(words) as pid:
        yield _up(Peer("storescp", port, [pid]))


@contextmanager
def orthanc(folder: Path) -> Iterator[Peer]:
    """Run Orthanc as it comes, without plugins."""
    folder.mkdir()
    port = _free()
    storage = {"StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db")}
    config = folder / "orthanc.json"
    config.write_text(json.dumps({**_ORTHANC, **storage, "DicomPort": port}))
    program = shutil.which("Orthanc", path="/usr/sbin:/usr/bin") or sys.exit("Orthanc is missing")
    with _running([str(program), str(config)]) as pid:
        yield _up(Peer("Orthanc", port, [pid]))


@contextmanager
def _running(words: list[str]) -> Iterator[int]:
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process.pid
        finally:
            process.terminate()


def _free() -> int:
    with free_socket() as listening:
        return int(listening.getsockname()[1])


def _up(peer: Peer) -> Peer:
    def answers() -> bool:
        return dcmtk("echoscu", "-aec", CALLED, "127.0.0.1", peer.port)[0] == 0

    if not until(answers, 30):
        sys.exit(f"{peer.name} does not answer")
    return peer


def resident(processes: list[int]) -> int:
    """Add up the resident memory of processes, in KiB."""
    total = 0
    for process in processes:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    return total


def compare(work: Path, objects: int, rounds: int) -> None:
    """Print MB/s of the three, and our ratio to the others."""
    print("objects       senders     ours  storescp  Orthanc   ours/storescp  ours/Orthanc")
    servers: list[Callable[[Path], object]] = [ours, storescp, orthanc]
    with ExitStack() as stack:
        peers: list[Peer] = [
            stack.enter_context(server(work / f"server-{number}"))  # type: ignore[arg-type]
            for number, server in enumerate(servers)
        ]
        for kind in kinds(work, objects):
            for senders in (1, 4):
                best = dict.fromkeys((peer.name for peer in peers), 0.0)
                for turn in range(rounds):
                    for peer in peers[turn % 3 :] + peers[: turn % 3]:
                        folder = work / "outgoing"
                        each = max(1, kind.objects // senders)
                        folders = [prepared(kind, folder / str(n), each) for n in range(senders)]
                        best[peer.name] = max(best[peer.name], sent(peer.port, kind, folders))
                        shutil.rmtree(folder)
                mine, theirs, other = (best[peer.name] for peer in peers)
                print(
                    f"{kind.name:<12}  {senders:7}  {mine:7.1f}  {theirs:8.1f}  {other:7.1f}"
                    f"   {mine / theirs:13.2f}  {mine / other:12.2f}"
                )


def memory(work: Path, objects: int) -> None:
    """Print our resident memory while small objects come in, a fifth of them at a time."""
    small = kinds(work, 1)[2]
    with ours(work / "memory") as peer:
        print(f"\nobjects  our processes, MiB\n{0:7}  {resident(peer.processes) / 1024:6.1f}")
        for part in range(1, 6):
            folder = prepared(small, work / "outgoing", objects // 5)
            sent(peer.port, small, [folder])
            shutil.rmtree(folder)
            print(f"{part * (objects // 5):7}  {resident(peer.processes) / 1024:6.1f}")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--small", type=int, default=5000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        compare(Path(work), arguments.objects, arguments.rounds)
        memory(Path(work), arguments.small)


if __name__ == "__main__":
    main()
