"""Fuzzes the parsers of what strangers send, guided by coverage, from the vectors on.

    pip install atheris
    python tests/keyfile/fuzz.py keyfile -max_total_time=600
    python tests/keyfile/fuzz.py status -max_total_time=600
    python tests/keyfile/fuzz.py packet -max_total_time=600

A parser must refuse with an error of ours, or read something that is written back byte by byte.
Anything else, five seconds for one input, or more than 1 GiB is a finding, which libFuzzer writes
to a file. Not a part of the test suite: it takes as long as it is given.
"""

import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["medlocker_dicom"]):
    from medlocker_dicom.errors import MedLockerError
    from medlocker_dicom.keyfile import (
        dump_detached,
        dump_identity,
        dump_keyfile,
        dump_public,
        dump_receipt,
        dump_status,
        load_detached,
        load_identity,
        load_keyfile,
        load_public,
        load_receipt,
        load_status,
    )
    from medlocker_dicom.keyfile.keyfile import parse_keyfile
    from medlocker_dicom.keyfile.packet_codec import decode_packet, encode_packet
    from medlocker_dicom.keyfile.receipt import parse_receipt
    from medlocker_dicom.keyfile.status import parse_status

VECTORS = Path(__file__).parents[2] / "keys" / "vectors"


def same(data: bytes, load: Callable[[bytes], object], dump: Callable[..., bytes]) -> None:
    """Check that input is refused, or written back as it was."""
    with suppress(MedLockerError):
        if dump(load(data)) != data:
            raise AssertionError("read and written back otherwise")


def keyfile(data: bytes) -> None:
    """Key files, public keys and open identities."""
    same(data, parse_keyfile, dump_keyfile)
    same(data, load_keyfile, dump_keyfile)
    same(data, load_public, dump_public)
    same(data, lambda text: load_identity(text, bytes), lambda one: dump_identity(one, None))


def status(data: bytes) -> None:
    """Status lists and receipts."""
    same(data, parse_status, dump_status)
    same(data, load_status, dump_status)
    same(data, parse_receipt, dump_receipt)
    same(data, load_receipt, dump_receipt)


def packet(data: bytes) -> None:
    """Packets as they are sealed, and detached ones."""
    same(data, decode_packet, encode_packet)
    same(data, load_detached, dump_detached)


def seeds(kind: str) -> dict[str, bytes]:
    """What to begin with: every vector of a kind, and one made of each thing without vectors."""
    # These import this folder's factories, which need no instrumentation.
    from keyfile_factories import (  # noqa: PLC0415
        BINDING,
        ISSUER,
        NOW,
        RECIPIENT,
        make_packet,
    )

    from medlocker_dicom.keyfile import ReceiptEntry, sign_receipt  # noqa: PLC0415

    suffixes = {"keyfile": ".mlkey", "status": ".mlstatus", "packet": ".mlpacket"}
    found = {
        path.name: path.read_bytes() for path in VECTORS.iterdir() if path.suffix == suffixes[kind]
    }
    if kind == "keyfile":
        found |= {"public": dump_public(ISSUER.public), "identity": dump_identity(ISSUER, None)}
    elif kind == "status":
        entry = ReceiptEntry(BINDING.locked_uid, bytes(16), NOW, "unlocked")
        found["receipt"] = dump_receipt(sign_receipt(RECIPIENT, [entry]))
    else:
        found |= {f"packet {n}": encode_packet(make_packet(n)) for n in (1, 2)}
    return found


def main() -> None:
    """Run from the command line."""
    kind = sys.argv.pop(1)
    target = {"keyfile": keyfile, "status": status, "packet": packet}[kind]
    with tempfile.TemporaryDirectory() as folder:
        for name, data in seeds(kind).items():
            (Path(folder) / name.replace(" ", "-")).write_bytes(data)
        options = ["-timeout=5", "-rss_limit_mb=1024", "-max_len=20000", "-print_final_stats=1"]
        atheris.Setup([sys.argv[0], *options, *sys.argv[1:], folder], target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
