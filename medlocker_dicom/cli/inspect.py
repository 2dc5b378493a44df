"""medlocker inspect: what a file is, in words."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from medlocker_dicom.cli.engine import check_engine
from medlocker_dicom.cli.guard import plain
from medlocker_dicom.dicom.fundus import check_source
from medlocker_dicom.dicom.locked import read_locked
from medlocker_dicom.dicom.marks import is_locked
from medlocker_dicom.dicom.reading import naming, parsing, read_file
from medlocker_dicom.errors import IdentityError, PacketMissingError, UsageError
from medlocker_dicom.keyfile import (
    canonical,
    fingerprint_of,
    load_detached,
    load_keyfile,
    load_public,
    load_receipt,
    load_status,
)
from medlocker_dicom.keyfile.caps import (
    MAX_IDENTITY_BYTES,
    MAX_KEYFILE_BYTES,
    MAX_RECEIPT_BYTES,
    MAX_STATUS_BYTES,
)
from medlocker_dicom.keyfile.detached import MAGIC, MAX_DETACHED_BYTES
from medlocker_dicom.keyfile.identity_text import FORMAT as IDENTITY_FORMAT
from medlocker_dicom.keyfile.moments import text_of
from medlocker_dicom.keyfile.public import parse_line
from medlocker_dicom.keyfile.receipt import UNLOCKED
from medlocker_dicom.keyfile.status import FORMAT as STATUS_FORMAT

Facts = dict[str, Any]
_HEAD = 4096


def inspect(
    path: Annotated[Path, typer.Argument(help="DICOM object, key file, identity or bundle.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say in words what a locked object, key file, identity or bundle is."""
    facts = describe(path)
    if as_json:
        sys.stdout.write(json.dumps(facts, indent=1) + "\n")
        return
    for key, value in facts.items():
        words = ", ".join(map(str, value)) if isinstance(value, list) else value
        sys.stdout.write(plain(f"{key.replace('_', ' '):18} {words}") + "\n")


def describe(path: Path) -> Facts:
    """Find out what a path holds; nothing secret is looked at.

    Raises
    ------
    MedLockerError
        It is damaged, or none of the things that MedLocker knows.
    """
    if path.is_dir():
        return _bundle(path)
    if path.exists() and not path.is_file():
        raise UsageError(f"{path}: is no plain file")  # a pipe would keep its reader waiting
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    if head.startswith((b"{", b"medlocker")):
        with naming(path):
            return _text(path, head)
    if head.startswith(MAGIC):
        with naming(path):
            return _detached(path)
    return _dicom(path)


def _text(path: Path, head: bytes) -> Facts:
    if head.startswith(b"medlocker"):
        return _public(head)
    if head.startswith(b'{"entries":'):  # members are sorted, and no other file has this one
        return _receipt(path)
    if STATUS_FORMAT.encode() in head:
        return _status(path)
    return _identity(path) if IDENTITY_FORMAT.encode() in head else _keyfile(path)


def _content(path: Path, size: int) -> bytes:
    """Read a file up to one byte more than its cap."""
    with path.open("rb") as stream:
        return stream.read(size + 1)


def _bundle(path: Path) -> Facts:
    check_engine("bundles need")
    from medlocker_dicom.bundles.bundle import read_bundle  # noqa: PLC0415  the engine

    bundle = read_bundle(path)
    figures = bundle.metadata.get("eval_metrics")
    tables = figures.items() if isinstance(figures, dict) else ()
    return {
        "what": f"MONAI bundle, {bundle.kind}",
        "name": bundle.name,
        "network": bundle.network["_target_"],
        "labels": list(bundle.labels),
        "input_size": f"{bundle.input_size} px",
        "weights_sha256": f"{bundle.weights_sha256} (verified)",
        "version": bundle.metadata.get("version", "not given"),
        **{f"on_{name}": _words(row) for name, row in tables},
    }


def _words(figures: Any) -> str:
    """Lay out a row of figures; what is no table is shown as it is."""
    if not isinstance(figures, dict):
        return str(figures)
    return ", ".join(f"{name} {value}" for name, value in figures.items())


def _identity(path: Path) -> Facts:
    data = _content(path, MAX_IDENTITY_BYTES)
    record = canonical.loads(data, IdentityError, max_bytes=MAX_IDENTITY_BYTES, max_values=256)
    if not isinstance(record, dict):
        raise IdentityError("not an identity")
    public = parse_line(str(record.get("public")))
    protected = "Argon2id" if record.get("kdf") else "none: whoever can read the file can use it"
    return {
        "what": "identity (private key)",
        "name": public.name,
        "fingerprint": public.fingerprint,
        "key": public.kem.name,
        "passphrase": protected,
    }


def _keyfile(path: Path) -> Facts:
    keyfile = load_keyfile(_content(path, MAX_KEYFILE_BYTES))
    ends = sorted({f"{g.expires:%Y-%m-%d}" if g.expires else "never" for g in keyfile.grants})
    return {
        "what": "key file",
        "issuer": f"{keyfile.issuer.name} {keyfile.issuer.fingerprint}".strip(),
        "recipient": fingerprint_of(keyfile.recipient),
        "grants": len(keyfile.grants),
        "expires": ends,
        "signature": "valid for the issuer that it names",
    }


def _status(path: Path) -> Facts:
    status = load_status(_content(path, MAX_STATUS_BYTES))
    return {
        "what": "status list: grants that their issuer revoked",
        "issuer": status.lineage.issuer.fingerprint,
        "number": status.number,
        "issued": text_of(status.issued),
        "revoked": len(status.revoked),
        "signature": "valid for the issuer that it names",
    }


def _receipt(path: Path) -> Facts:
    receipt = load_receipt(_content(path, MAX_RECEIPT_BYTES))
    opened = sum(entry.outcome == UNLOCKED for entry in receipt.entries)
    return {
        "what": "receipt: what a recipient says was unlocked",
        "recipient": f"{receipt.recipient.name} {receipt.recipient.fingerprint}".strip(),
        "unlocked": opened,
        "refused": len(receipt.entries) - opened,
        "signature": "valid for the recipient that it names",
    }


def _detached(path: Path) -> Facts:
    detached = load_detached(_content(path, MAX_DETACHED_BYTES))
    return {
        "what": "recovery packet, detached",
        "locked_sop_instance_uid": detached.locked_uid,
        "source_sop_instance_uid": detached.source_uid,
        "recovery_packet": f"{len(detached.packet)} bytes, sealed",
        "issuer_key": detached.issuer.hex(),
    }


def _public(data: bytes) -> Facts:
    public = load_public(data)
    return {
        "what": "public key",
        "name": public.name,
        "fingerprint": public.fingerprint,
        "in_words": public.words,
        "key": public.kem.name,
    }


def _dicom(path: Path) -> Facts:
    ds = read_file(path)
    if not is_locked(ds):
        with naming(path), parsing("the data set"):
            check_source(ds)
            size = f"{ds.get('Columns', '?')} x {ds.get('Rows', '?')} px"
        return {
            "what": "fundus photograph, not locked",
            "sop_class": ds.SOPClassUID.name,
            "sop_instance_uid": str(ds.SOPInstanceUID),
            "size": size,
        }
    try:
        locked = read_locked(path)
    except PacketMissingError as error:
        return {"what": "locked photograph whose recovery packet was stripped", "why": str(error)}
    frames, rows, columns, _ = locked.pixels.shape
    return {
        "what": "locked photograph",
        "sop_class": locked.ds.SOPClassUID.name,
        "locked_sop_instance_uid": str(locked.ds.SOPInstanceUID),
        "source_sop_instance_uid": locked.source_uid,
        "size": f"{columns} x {rows} px, {frames} frames, {locked.bits} bits, {locked.photometric}",
        "recovery_packet": f"{len(locked.packet)} bytes, sealed" if locked.packet else "detached",
        "issuer_key": locked.issuer.hex(),
    }
