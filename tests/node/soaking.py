"""Senders that do not give up, a node that is killed, an archive that goes away: who loses what?

For the test that does so a little, and `benchmarks/node_soak.py`, which does so for long.
"""

import random
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import dcmread
from running_node import Node

import archives

SENDERS = 4


@dataclass
class Soak:
    """One soak.

    Attributes
    ----------
    node
        Runs already; its one destination is an archive at `port`.
    files
        What is sent.
    folder, port
        Of the archive.
    kills
        How often the node is killed.
    rng
        Says when.
    """

    node: Node
    files: Sequence[Path]
    folder: Path
    port: int
    kills: int
    rng: random.Random
    answered: list[str] = field(default_factory=list)
    tries: int = 0

    def run(self) -> None:
        """Send everything, kill, bring everything to its end."""
        senders = [
            threading.Thread(target=self._send, args=(self.files[n::SENDERS],))
            for n in range(SENDERS)
        ]
        for sender in senders:
            sender.start()
        away = {self.kills // 3, 2 * self.kills // 3}
        with ExitStack() as stack:
            archive = stack.enter_context(ExitStack())
            archive.enter_context(archives.storescp_in(self.folder, port=self.port))
            for number in range(self.kills):
                time.sleep(self.rng.uniform(0.0, 4.0))
                if number in away:
                    archive.close()
                if number - 1 in away:
                    archive.enter_context(archives.storescp_in(self.folder, port=self.port))
                self.node.kill()
                self.node.start()
            if self.kills - 1 in away:
                archive.enter_context(archives.storescp_in(self.folder, port=self.port))
            for sender in senders:
                sender.join()
            self.node.wait_for({"done": len(self.files)}, patience=1800)

    def _send(self, files: Sequence[Path]) -> None:
        """Send each file until it is answered Success."""
        for path in files:
            while True:
                self.tries += 1
                command = ["/usr/bin/storescu", "-v", "-to", "10", "-aec", "MEDLOCKER"]
                said = subprocess.run(
                    [*command, "127.0.0.1", str(self.node.port), str(path)],
                    capture_output=True, text=True, check=False,
                )  # fmt: skip
                if "(Success)" in said.stderr + said.stdout:
                    self.answered.append(str(dcmread(path, stop_before_pixels=True).SOPInstanceUID))
                    break
                time.sleep(0.3)

    def kept(self) -> list[str]:
        """List what the archive has, by the SOP Instance UID of the source."""
        found = []
        for path in sorted(self.folder.iterdir()):
            ds = dcmread(path, stop_before_pixels=True)
            found.append(str(ds.SourceImageSequence[0].ReferencedSOPInstanceUID))
        return found
