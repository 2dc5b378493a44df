"""An owner's desk with many instances in the vault, and the real command that issues for them.

For the test that kills it a few times, and `benchmarks/vault_kills.py`, which does so often.
"""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from medlocker_dicom.keyfile import dump_identity
from medlocker_dicom.vault.instances import keep
from vault_factories import CUSTODIAN, ISSUER, House, granted, house, instance


@dataclass(frozen=True)
class Issuing:
    """Where the command runs.

    Attributes
    ----------
    folder
        Holds the identities.
    place
        Of the vault.
    count
        Instances in it.
    """

    folder: Path
    place: str
    count: int

    def prepare(self) -> House:
        """Make the vault, its instances and the identity files."""
        home = house(self.place)
        for first in range(0, self.count, 1000):
            with home.vault.writing() as writing:
                for number in range(first, min(first + 1000, self.count)):
                    one = instance(number)
                    keep(writing, one, granted(one, [CUSTODIAN]))
                writing.checkpoint(ISSUER)
        for name, identity in (("issuer", ISSUER), ("custodian", CUSTODIAN)):
            path = self.folder / f"{name}.key"
            path.touch(mode=0o600)
            path.write_bytes(dump_identity(identity, None))
        return home

    def start(self) -> "subprocess.Popen[str]":
        """Start issuing to bob."""
        keys = ("--issuer", "issuer.key", "--custodian", "custodian.key")
        return self._spawn("grant", "reissue", "--to", "bob", *keys)

    def finish(self) -> int:
        """Issue to the end; how many were left."""
        process = self.start()
        out, err = process.communicate()
        assert process.returncode == 0, err
        found = re.match(r"(\d+) grants issued", out)
        assert found, out
        return int(found[1])

    def check(self) -> tuple[int, int]:
        """Check the vault; how many grants there are, and how many are live."""
        process = self._spawn("vault", "check")
        out, err = process.communicate()
        assert process.returncode == 0, err
        found = re.search(r"(\d+) grants, (\d+) of them live", out)
        assert found, out
        return int(found[1]), int(found[2])

    def kill_after(self, seconds: float) -> bool:
        """Start issuing and kill -9 it; whether it was still running then."""
        process = self.start()
        time.sleep(seconds)
        running = process.poll() is None
        if running:
            process.send_signal(signal.SIGKILL)
        process.communicate()
        return running

    def _spawn(self, *words: str) -> "subprocess.Popen[str]":
        command = (sys.executable, "-m", "medlocker_dicom.cli.main", *words)
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=os.environ | {"MEDLOCKER_VAULT": self.place},
        )
