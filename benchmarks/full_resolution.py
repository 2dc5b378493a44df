"""Seconds and peak memory to lock and unlock photographs at a camera's own size.

    python benchmarks/full_resolution.py [--data ../shared/data/full_resolution]

Each image is wrapped unchanged as Ophthalmic Photography (JPEG Baseline), then locked and unlocked
by a process of its own, as a user would.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from medlocker_dicom.dicom.fundus import read_fundus
from medlocker_dicom.dicom.photograph import photograph_jpeg, uids_for
from medlocker_dicom.dicom.writing import to_bytes

COMMAND = (sys.executable, "-m", "medlocker_dicom.cli.main")
ROOT = b"medlocker benchmark"


def wrap(path: Path) -> bytes:
    """Wrap a JPEG file as a DICOM instance."""
    return to_bytes(
        photograph_jpeg(
            path.read_bytes(),
            patient_name="Benchmark",
            patient_id="B-1",
            laterality="R",
            **uids_for(ROOT, path.name),
            instance_number=1,
            taken=datetime(2024, 1, 1, tzinfo=UTC),
        )
    )


def timed(*arguments: str | Path) -> tuple[float, float]:
    """Run a command; wall seconds and peak resident memory in MiB."""
    started = time.monotonic()
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    errors = process.stderr.read() if process.stderr else b""
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(errors.decode())
    return time.monotonic() - started, usage.ru_maxrss / 1024


def main() -> None:
    """Lock and unlock every image; print a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/full_resolution"))
    arguments = parser.parse_args()
    images = sorted(arguments.data.glob("IDRiD*.jpg"))
    if not images:
        print(f"{arguments.data}: no images, skipped; name their folder by --data")
        return
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        key = work / "me.key"
        timed("identity", "new", key, "--no-passphrase")
        for image in images:
            source = work / f"{image.stem}.dcm"
            source.write_bytes(wrap(image))
            locked, out = work / f"{image.stem}-locked", work / f"{image.stem}-unlocked"
            to = ("--to", f"{key}.pub", "--issuer", key)
            lock_s, lock_mib = timed("lock", source, locked, *to)
            unlock_s, unlock_mib = timed("unlock", locked, out, "--identity", key)
            before, after = read_fundus(source).pixels, read_fundus(out / source.name).pixels
            print(
                f"{image.name} {before.shape[2]}x{before.shape[1]}: "
                f"lock {lock_s:.1f} s, {lock_mib:.0f} MiB; "
                f"unlock {unlock_s:.1f} s, {unlock_mib:.0f} MiB; "
                f"locked {(locked / source.name).stat().st_size / 1e6:.1f} MB; "
                f"equal {np.array_equal(before, after)}"
            )


if __name__ == "__main__":
    main()
