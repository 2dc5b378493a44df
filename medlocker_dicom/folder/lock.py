"""Lock a folder of instances."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import cv2
import numpy as np

from medlocker_dicom.dicom.fundus import read_fundus
from medlocker_dicom.dicom.reading import naming
from medlocker_dicom.dicom.writing import to_bytes
from medlocker_dicom.errors import (
    DuplicateInstanceError,
    MedLockerError,
    OutputError,
    SourceError,
    VaultChangedError,
    VaultError,
)
from medlocker_dicom.files import move_file, sha256_of, write_file, write_private
from medlocker_dicom.folder.attacked import quick_attacks
from medlocker_dicom.folder.contain import contained
from medlocker_dicom.folder.journal import STAGED, open_journal
from medlocker_dicom.folder.keys import PACKETS
from medlocker_dicom.folder.listing import (
    KEYS,
    check_apart,
    check_names,
    folder_of,
    list_files,
    plain_file,
)
from medlocker_dicom.folder.report import render_report
from medlocker_dicom.keyfile import (
    caps,
    dump_detached,
    dump_grant,
    dump_keyfile,
    load_grant,
    sign_keyfile,
)
from medlocker_dicom.keyfile.detached import SUFFIX
from medlocker_dicom.keyfile.moments import moment_of, seconds
from medlocker_dicom.parts import batched, numbered
from medlocker_dicom.pipeline.lock import LockedInstance, Locker, lock
from medlocker_dicom.vault.instances import check_new, instance_of, keep
from medlocker_dicom.vault.people import check_issuer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from medlocker_dicom.bundles.bundle import Bundle
    from medlocker_dicom.folder.journal import Journal
    from medlocker_dicom.vault.vault import Vault

    #: A file's entry for the journal, or why it failed.
    Outcome = dict[str, Any] | MedLockerError

T = TypeVar("T")
THUMBNAIL = 360  # px, longer side


@dataclass(frozen=True)
class Item:
    """What became of one file.

    Attributes
    ----------
    path
        Relative to the source.
    number, total
        Its place among all files.
    state
        ``locked``, ``already`` (by an earlier run) or ``failed``.
    error
        Why it failed.
    entry
        Its journal entry where it is locked.
    """

    path: Path
    number: int
    total: int
    state: str
    error: MedLockerError | None = None
    entry: dict[str, Any] | None = None


class _Made(NamedTuple):
    """Contents of a locked file and of its detached packet, if that is kept apart."""

    data: bytes
    packet: bytes | None


class Crew(Protocol):
    """Those who lock the files of a run."""

    def left(self, run: LockRun) -> Iterable[dict[str, Any]]:
        """Give what was locked and not entered when an earlier process was killed."""
        ...

    def lock(
        self, run: LockRun, paths: Sequence[Path], owners: Mapping[str, str]
    ) -> Iterator[tuple[Path, Outcome]]:
        """Have each file staged, see `LockRun.stage`, in any order; raises what ends the run."""
        ...

    def end(self, run: LockRun) -> None:
        """Hear that the run is over."""
        ...


class Alone:
    """One process, which locks one file after the other."""

    def left(self, run: LockRun) -> Iterable[dict[str, Any]]:  # noqa: ARG002  as the protocol says
        """Give nothing: nobody else wrote any."""
        return ()

    def lock(
        self, run: LockRun, paths: Sequence[Path], owners: Mapping[str, str]
    ) -> Iterator[tuple[Path, Outcome]]:
        """Stage each file."""
        for path in paths:
            yield path, _tried(partial(run.stage, path, owners))

    def end(self, run: LockRun) -> None:
        """Nothing is left to do."""


@dataclass(frozen=True)
class LockRun:
    """Locks every instance of a folder; goes on where the same run stopped earlier.

    One bad file does not stop the others. The key files, ``lock.json`` and
    ``report.html`` are written when the last file is done.

    Attributes
    ----------
    source
        A folder, or one file.
    destination
        A folder outside of it: new, empty, or begun by the same command.
    locker
        How, and for whom.
    names
        Name of each of the locker's `everyone`: their key files are called so.
    segmenter
        The bundle that the locker's lesions come from, for the record.
    labels
        True grades by relative path, file name or SOP Instance UID.
    vault
        Keeps what is locked and its grants; None for none. Its recipients are everyone.
    again
        Whether what the vault knows is locked anew.
    attack
        Whether each lock is attacked, so that the report tells what undoes it.
    crew
        Who locks: this process, or several.
    clock
        Gives the time with a time zone.
    """

    source: Path
    destination: Path
    locker: Locker
    names: Sequence[str]
    segmenter: Bundle
    labels: Mapping[str, int] = field(default_factory=dict)
    vault: Vault | None = None
    again: bool = False
    attack: bool = False
    crew: Crew = field(default_factory=Alone)
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    @cached_property
    def key(self) -> str:
        """What this run is called among others: the same for each process that shares it."""
        whole = json.dumps([self._header(), os.path.realpath(self.destination)], sort_keys=True)
        return hashlib.sha256(whole.encode()).hexdigest()[:32]

    def items(self) -> Iterator[Item]:
        """Lock file after file.

        Yields
        ------
        Item
            For each file, as it is done; first for those that were done before.

        Raises
        ------
        DestinationBusyError
            Another process leads this run.
        DestinationError, DiskFullError
            The destination is unusable; what is done stays done.
        VaultError
            The vault fails; what is done stays done.
        UsageError
            There is nothing to lock, or something in the source has the name of a result.
        """
        check_names(self.source, KEYS, *([PACKETS] if self.locker.detached else []))
        check_apart(self.source, self.destination)
        files = list_files(self.source)
        with open_journal(self.destination, self._header()) as journal:
            owners = {_uid(entry): path for path, entry in journal.entries.items()}
            failed: list[dict[str, str]] = []
            outcomes = self._outcomes(journal, owners, files)
            for number, (path, state, outcome) in enumerate(outcomes, 1):
                if isinstance(outcome, MedLockerError):
                    failed.append({"path": str(path), "error": str(outcome), "hint": outcome.hint})
                    yield Item(path, number, len(files), "failed", outcome)
                else:
                    yield Item(path, number, len(files), state, entry=outcome)
            self._finish(journal, failed)
            self.crew.end(self)
            shutil.rmtree(self.destination / STAGED, ignore_errors=True)

    def _outcomes(
        self, journal: Journal, owners: dict[str, str], files: Sequence[Path]
    ) -> Iterator[tuple[Path, str, Outcome]]:
        """Tell of each file what became of it; see `Item.state`."""
        known = {str(path): path for path in files}
        for entry in self.crew.left(self):
            path = known.get(entry["path"])
            with suppress(SourceError):
                if path is not None and self._done(journal, path) is None:
                    self._enter(journal, owners, entry)
        rest = []
        for path in files:
            done = _tried(partial(self._done, journal, path))
            if done is None:
                rest.append(path)
            else:
                yield path, "already", done
        for path, outcome in self.crew.lock(self, rest, owners):
            if isinstance(outcome, MedLockerError):
                yield path, "failed", outcome
            else:
                yield path, "locked", _tried(partial(self._enter, journal, owners, outcome))

    def _done(self, journal: Journal, path: Path) -> dict[str, Any] | None:
        """Give the entry of a file that an earlier run locked; it is in the vault then."""
        whole = plain_file(self.source, path)
        if str(path) not in journal.entries:  # which spares a digest
            return None
        done = journal.done(path, sha256_of(whole))
        if done is None or not self._packet_there(done):
            return None
        self._into_vault(journal, done)
        return done

    def stage(self, path: Path, owners: Mapping[str, str]) -> dict[str, Any]:
        """Lock one file; what it becomes is on the disk, and not yet in its place.

        Parameters
        ----------
        path
            Relative to the source.
        owners
            Path by SOP Instance UID, of what is locked already.

        Returns
        -------
        dict
            For the journal; JSON.

        Raises
        ------
        MedLockerError
            The file cannot be locked, or its results not be written.
        """
        whole = plain_file(self.source, path)
        digest = sha256_of(whole)
        with contained(whole):
            made, entry = self._lock_file(path, owners)
        staged, packet = self._staged(entry)
        try:
            if made.packet is not None:
                write_file(packet, made.packet)
            write_file(staged, made.data)
        except OutputError:
            _remove(staged, packet)
            raise
        return entry | {"source_sha256": digest}

    def _enter(
        self, journal: Journal, owners: dict[str, str], entry: dict[str, Any]
    ) -> dict[str, Any]:
        """Put what was locked in its place; without its grants it would be of no use."""
        path, uid = entry["path"], _uid(entry)
        self._check_owner(path, uid, owners)
        target = self.destination / path
        staged, packet = self._staged(entry)
        if not staged.is_file():
            raise SourceError(
                f"{folder_of(self.source) / path}: what was locked of it is gone",
                "repeat the command",
            )
        before = journal.entries.get(path, entry)
        try:
            if entry["packet_sha256"]:
                move_file(packet, self._packet_path(entry))
            move_file(staged, target)
            journal.add(entry)
        except OutputError:
            _remove(target, staged, packet)
            raise
        self._into_vault(journal, entry)
        owners.pop(_uid(before), None)
        owners[uid] = path
        return entry

    def _check_owner(self, path: str, uid: str, owners: Mapping[str, str]) -> None:
        if owners.get(uid, path) != path:
            raise DuplicateInstanceError(
                f"{folder_of(self.source) / path}: SOP Instance UID {uid} is that of {owners[uid]}",
                "keep one of the two; an instance is locked once",
            )

    def _staged(self, entry: Mapping[str, Any]) -> tuple[Path, Path]:
        """Tell where a locked file and its packet lie before they are in their places."""
        path = self.destination / STAGED / str(entry["record"]["locked_sop_instance_uid"])
        return path, path.with_name(path.name + SUFFIX)

    def _packet_path(self, entry: Mapping[str, Any]) -> Path:
        uid = str(entry["record"]["locked_sop_instance_uid"])
        return self.destination / PACKETS / f"{uid}{SUFFIX}"

    def _packet_there(self, entry: Mapping[str, Any]) -> bool:
        """Whether a done file needs no packet beside it, or has the one that belongs to it."""
        wanted: str | None = entry["packet_sha256"]
        return wanted is None or sha256_of(self._packet_path(entry)) == wanted

    def _into_vault(self, journal: Journal, entry: Mapping[str, Any]) -> None:
        """Store a done file in the vault, if there is one and it is not there yet.

        What the vault refuses is undone: nobody could revoke the grants of a file that it does
        not know.
        """
        if self.vault is None:
            return
        try:
            self._store(self.vault, entry)
        except (DuplicateInstanceError, VaultChangedError):
            journal.drop(entry["path"])
            _remove(self.destination / entry["path"], self._packet_path(entry))
            raise

    def _store(self, vault: Vault, entry: Mapping[str, Any]) -> None:
        record, path = entry["record"], self._packet_path(entry)
        issued = [load_grant(base64.b64decode(text)) for text in entry["grants"]]
        packet = path.read_bytes() if entry["packet_sha256"] else None
        signer = self.locker.issuer.public.verify_key
        instance = instance_of(record, issued, signer, packet)
        with vault.writing() as writing:
            if keep(writing, instance, issued, again=self.again):
                writing.checkpoint(self.locker.issuer)

    def _header(self) -> dict[str, Any]:
        """Say what makes two commands the same run."""
        locker = self.locker
        everyone = zip(self.names, locker.everyone, strict=True)
        return {
            "format": "medlocker lock journal",
            "version": 1,
            "source": str(folder_of(self.source).resolve()),
            "policy": locker.policy.digest,
            "models": [c.bundle.weights_sha256 for c in locker.ensemble.classifiers],
            "segmenter": self.segmenter.weights_sha256,
            "labels": hashlib.sha256(json.dumps(self.labels, sort_keys=True).encode()).hexdigest(),
            "logo": locker.logo.sha256.hex(),
            "issuer": locker.issuer.public.id.hex(),
            "recipients": {name: recipient.id.hex() for name, (recipient, _) in everyone},
            "expires": locker.expires and locker.expires.isoformat(),
            "detached": locker.detached,
            "attack": self.attack,
            "vault": self.vault and str(self.vault.place),
        }

    def _lock_file(self, path: Path, owners: Mapping[str, str]) -> tuple[_Made, dict[str, Any]]:
        """Lock one file; ``owners`` maps SOP Instance UIDs to paths."""
        whole = folder_of(self.source) / path
        fundus = read_fundus(whole)
        uid = str(fundus.ds.SOPInstanceUID)
        self._check_owner(str(path), uid, owners)
        if self.vault is not None and not self.again:
            with naming(whole), self.vault.reading() as connection:
                check_new(connection, uid)
        keys = _label_keys(path, uid)
        label = next((self.labels[key] for key in keys if key in self.labels), None)
        now = self.clock()
        with naming(whole):
            locked = lock(fundus, self.locker, now=now, label=label)
        packet = None if locked.detached is None else dump_detached(locked.detached)
        made = _Made(to_bytes(locked.ds), packet)
        record = locked.record.as_json()
        if self.attack:
            with naming(whole):
                attacks = quick_attacks(fundus, locked, self.locker)
            for frame, told in zip(record["frames"], attacks, strict=True):
                frame["attacks"] = told
        return made, {
            "path": str(path),
            "record": record,
            "locked": seconds(now),
            "grants": [base64.b64encode(dump_grant(grant)).decode() for grant in locked.grants],
            "result_sha256": hashlib.sha256(made.data).hexdigest(),
            "packet_sha256": made.packet and hashlib.sha256(made.packet).hexdigest(),
            "thumbnail": base64.b64encode(_thumbnail(locked)).decode(),
        }

    def _finish(self, journal: Journal, failed: list[dict[str, str]]) -> None:
        """Write key files, lock.json and the report from the journal."""
        locker, entries = self.locker, list(journal.entries.values())
        lineage = None
        if self.vault is not None:
            with self.vault.reading() as connection:
                lineage = check_issuer(connection, locker.issuer)
        # As of the last lock, not of this moment: a run that is repeated changes nothing.
        issued = moment_of(max((e["locked"] for e in entries), default=seconds(self.clock())))
        everyone = zip(self.names, locker.everyone, strict=True)
        for column, (name, (recipient, _)) in enumerate(everyone):
            grants = [load_grant(base64.b64decode(entry["grants"][column])) for entry in entries]
            parts = list(batched(grants, caps.MAX_GRANTS)) or [grants]
            paths = numbered(self.destination / KEYS / f"{name}.mlkey", len(parts))
            for path, part in zip(paths, parts, strict=True):
                keyfile = sign_keyfile(locker.issuer, recipient, part, issued, lineage)
                write_file(path, dump_keyfile(keyfile))
        used = {
            key for entry in entries for key in _label_keys(PurePath(entry["path"]), _uid(entry))
        }
        summary = {
            "format": "medlocker lock record",
            "version": 1,
            "policy": _policy(locker),
            "models": [_named(c.bundle) for c in locker.ensemble.classifiers],
            "segmenter": _named(self.segmenter),
            "labels": list(locker.ensemble.labels),
            "instances": [{"path": e["path"], **e["record"]} for e in entries],
            "failed": failed,
            "labels_unused": sorted(set(self.labels) - used),
        }
        text = json.dumps(summary, indent=1).encode() + b"\n"
        write_private(self.destination / "lock.json", text)
        thumbnails = {entry["path"]: entry["thumbnail"] for entry in entries}
        # A file name that is no UTF-8 comes as lone surrogates, which have no encoding.
        report = render_report(summary, thumbnails).encode(errors="backslashreplace")
        write_private(self.destination / "report.html", report)


def _tried(call: Callable[[], T]) -> T | MedLockerError:
    """Give what a call gives, or why one file failed; what ends the run is raised."""
    try:
        return call()
    except (OutputError, VaultError):
        raise
    except MedLockerError as error:
        return error


def _remove(*paths: Path) -> None:
    """Remove what is not to stay, as far as that can be done."""
    for path in paths:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _thumbnail(locked: LockedInstance) -> bytes:
    """JPEG of the first locked frame with its lesion boxes; never of the original."""
    frame = locked.pixels[0]
    scale = min(1.0, THUMBNAIL / max(frame.shape[:2]))
    size = (max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale)))
    small = np.atleast_3d(cv2.resize(frame, size, interpolation=cv2.INTER_AREA))
    if small.dtype != np.uint8:
        small = (small.astype(np.uint32) * 255 // max(1, int(small.max()))).astype(np.uint8)
    picture = np.ascontiguousarray(np.broadcast_to(small, (*small.shape[:2], 3))[..., ::-1])
    for x, y, width, height in locked.record.frames[0].boxes:
        corners = np.rint(np.array([x, y, x + width, y + height]) * scale).astype(int)
        cv2.rectangle(picture, corners[:2].tolist(), corners[2:].tolist(), (255, 255, 255), 1)
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 80])
    return data.tobytes()


def _uid(entry: Mapping[str, Any]) -> str:
    """SOP Instance UID of an entry's source."""
    return str(entry["record"]["source_sop_instance_uid"])


def _label_keys(path: PurePath, uid: str) -> tuple[str, ...]:
    """By what a label may name an instance, the first found counts."""
    return str(path), path.name, uid


def _named(bundle: Bundle) -> dict[str, str]:
    return {"name": bundle.name, "sha256": bundle.weights_sha256}


def _policy(locker: Locker) -> dict[str, Any]:
    policy = locker.policy
    return {
        "mode": str(policy.mode),
        "strategy": policy.strategy,
        "budget": policy.budget,
        "margin": policy.margin,
        "sl": policy.sl,
        "look": policy.look.words,
        "legibility": policy.legibility,
        "seed": policy.seed,
        "codec": policy.codec,
    }
