"""Senders that do not give up, a node that is struck, an archive that goes away: who loses what?

For the test that does so a little, and `benchmarks/node_soak.py`, which does so for long.
"""

import random
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import dcmread
from running_node import Node

import archives

SENDERS = 4
PATIENCE = 900  # s
OVER = {"done", "gone"}


def killed(node: Node) -> None:
    """Kill all of a node's processes at once, and start it again."""
    node.kill()
    node.start()


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
    strikes
        How often the node is struck.
    rng
        Says when.
    strike
        What is done to it; by default it is killed, and started again.
    """

    node: Node
    files: Sequence[Path]
    folder: Path
    port: int
    strikes: int
    rng: random.Random
    strike: Callable[[Node], None] = killed
    answered: list[str] = field(default_factory=list)
    tries: int = 0

    def run(self) -> None:
        """Send everything, strike, bring everything to its end."""
        senders = [
            threading.Thread(target=self._send, args=(self.files[n::SENDERS],))
            for n in range(SENDERS)
        ]
        for sender in senders:
            sender.start()
        away = {self.strikes // 3, 2 * self.strikes // 3}
        with ExitStack() as stack:
            archive = stack.enter_context(ExitStack())
            archive.enter_context(archives.storescp_in(self.folder, port=self.port))
            for number in range(self.strikes):
                time.sleep(self.rng.uniform(0.0, 4.0))
                if number in away:
                    archive.close()
                if number - 1 in away:
                    archive.enter_context(archives.storescp_in(self.folder, port=self.port))
                self.strike(self.node)
            if self.strikes - 1 in away:
                archive.enter_context(archives.storescp_in(self.folder, port=self.port))
            for sender in senders:
                sender.join()
            until = time.monotonic() + PATIENCE
            while (states := self.node.states()).keys() - OVER or not states:
                assert time.monotonic() < until, (states, self.node.reasons())
                time.sleep(0.2)
            assert sum(states.values()) == len(self.files)

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
