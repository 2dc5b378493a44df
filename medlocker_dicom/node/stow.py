"""Sends objects to a DICOMweb archive by STOW-RS (PS3.18 section 10.5), streamed from the disk.

dicomweb-client's `store_instances` encodes an object anew and holds it several
times in memory, and reads answers of any length; here a file goes as it is.
"""

from __future__ import annotations

import base64
import io
import json
import secrets
import ssl
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import urllib3
from pydicom.uid import ExplicitVRLittleEndian
from urllib3.exceptions import HTTPError

from medlocker_dicom.errors import TransferSyntaxError, UsageError
from medlocker_dicom.files import output_error
from medlocker_dicom.node.apart import EndedError
from medlocker_dicom.node.outcome import FEW_TRIES, Kind, Outcome, by_status, words_of
from medlocker_dicom.node.sender_object import CRASHED, converted, sendable
from medlocker_dicom.node.sender_sockets import network_words

if TYPE_CHECKING:
    from pathlib import Path

    from medlocker_dicom.node.config import StowDestination
    from medlocker_dicom.node.sender_object import Convert

_LONGEST_ANSWER: Final = 1 << 20  # bytes; of one instance a few hundred are to be expected
_LONGEST_PASSWORD: Final = 1 << 12  # bytes
_FAILED, _REFERENCED = "00081198", "00081199"  # Failed, Referenced SOP Sequence
_FAILURE_REASON, _WARNING_REASON = "00081197", "00081196"
_SYNTAX_UNSUPPORTED: Final = 0xC122
_PROCESSING_FAILURE: Final = 0x0110  # where a failure has no reason that can be read
_UNSUPPORTED_MEDIA: Final = 415
#: They speak of the node, its configuration or the moment, and not of the object: somebody
#: enters a password or an address, and all goes its way.
_RETRIED: Final = frozenset({401, 403, 404, 407, 408, 421, 425, 429})


class _Answer(NamedTuple):
    """What the archive answered: HTTP's status, and the bytes of its body that count."""

    code: int
    body: bytes


class _Body(io.RawIOBase):
    """A multipart/related message of one part, read from its file (PS3.18 section 8.6.1.2)."""

    def __init__(self, head: bytes, file: io.BufferedReader, tail: bytes) -> None:
        self._parts: list[Any] = [io.BytesIO(head), file, io.BytesIO(tail)]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while self._parts:
            count: int = self._parts[0].readinto(buffer)
            if count:
                return count
            del self._parts[0]
        return 0


class StowSender:
    """Sends to one archive; connections are kept for the next file.

    Parameters
    ----------
    destination
        Where to.
    scratch
        Folder for what has to be written in another transfer syntax first.
    convert
        Writes it, see `sender_object.converted`.
    """

    def __init__(self, destination: StowDestination, scratch: Path, convert: Convert) -> None:
        self._destination = destination
        self._scratch, self._convert = scratch, convert
        self._url = str(destination.url).rstrip("/") + "/studies"
        self._pool: urllib3.PoolManager | None = None

    def check(self) -> None:
        """Check certificates and password; raises as `sender.Senders.check`."""
        self._manager()
        self._authorization()

    def send(self, path: Path) -> Outcome:
        """Send a file; raises as `sender.Senders.send`."""
        source = sendable(path)
        outcome, unsupported = self._post(source.path)
        other = ExplicitVRLittleEndian
        if not unsupported or source.syntax == other or other not in source.candidates:
            return outcome
        try:
            with converted(source, other, self._scratch, self._convert) as part:
                return self._post(part)[0]
        except TransferSyntaxError as error:
            return Outcome(Kind.PARK, f"{outcome.said}; {error}")
        except EndedError:
            return CRASHED

    def close(self) -> None:
        """Close the connections that wait for a next file."""
        if self._pool is not None:
            self._pool.clear()

    def _post(self, path: Path) -> tuple[Outcome, bool]:
        """Send a file as it is; tell whether the archive wants another transfer syntax."""
        try:
            answer = self._exchange(path)
        except UsageError as error:  # of the password, of certificates
            return Outcome(Kind.RETRY, str(error)), False
        except (HTTPError, OSError) as error:
            return Outcome(Kind.RETRY, _words(error)), False
        return _judge(answer)

    def _exchange(self, path: Path) -> _Answer:
        boundary = secrets.token_hex(16)
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        with ExitStack() as stack:
            try:
                file = stack.enter_context(path.open("rb"))
                length = len(head) + path.stat().st_size + len(tail)
            except OSError as error:
                raise output_error(path, error) from error
            headers = {
                "Accept": "application/dicom+json",
                "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
                "Content-Length": str(length),
                **self._authorization(),
            }
            answer = self._manager().request(
                "POST",
                self._url,
                body=_Body(head, file, tail),
                headers=headers,
                preload_content=False,
                redirect=False,
                retries=False,
            )
            body = answer.read(_LONGEST_ANSWER)
            more = answer.read(1)
            (answer.close if more else answer.release_conn)()
            return _Answer(answer.status, b"" if more else body)

    def _manager(self) -> urllib3.PoolManager:
        if self._pool is None:
            one = self._destination
            try:
                context = ssl.create_default_context(cafile=one.authorities)
            except (OSError, ssl.SSLError) as error:
                raise UsageError(f"{one.authorities}: holds no certificates in PEM") from error
            self._pool = urllib3.PoolManager(
                maxsize=one.limits.associations,
                timeout=urllib3.Timeout(one.timeout_s),
                ssl_context=context,
            )
        return self._pool

    def _authorization(self) -> dict[str, str]:
        """Read the password anew: it is changed while the node runs."""
        one = self._destination
        if one.user is None or one.password_file is None:
            return {}
        try:
            with one.password_file.open("rb") as stream:
                password = stream.read(_LONGEST_PASSWORD).splitlines()[0].decode()
        except (OSError, IndexError, UnicodeDecodeError) as error:
            raise UsageError(f"{one.password_file}: holds no password") from error
        pair = base64.b64encode(f"{one.user}:{password}".encode()).decode()  # RFC 7617
        return {"Authorization": f"Basic {pair}"}


def _words(error: HTTPError | OSError) -> str:
    """Say what the network said; the error's own words may hold headers."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return network_words(cause)
        cause = cause.__cause__ or cause.__context__
    names = {"ReadTimeoutError": "timed out", "ConnectTimeoutError": "timed out"}
    return names.get(type(error).__name__, "the connection was broken off")


def _judge(answer: _Answer) -> tuple[Outcome, bool]:
    """Judge an answer (PS3.18 table 10.5.3-1); tell whether the transfer syntax is at fault."""
    said = f"HTTP {answer.code}"
    results = _results(answer.body)
    failed, taken = _items(results, _FAILED), _items(results, _REFERENCED)
    if failed:
        reason = _number(failed, _FAILURE_REASON, _PROCESSING_FAILURE)
        outcome = by_status(reason)
        words = f"{said}, {outcome.said}"
        return Outcome(outcome.kind, words, outcome.most), reason == _SYNTAX_UNSUPPORTED
    if answer.code == 200 or (answer.code == 202 and taken):
        warning = _number(taken, _WARNING_REASON, 0)
        words = f", {words_of(warning)}" if warning else ""
        return Outcome(Kind.STORED, said + words), False
    if answer.code == 202:
        # Stored with warnings, or not: its answer says neither.
        return Outcome(Kind.RETRY, f"{said} without a reason", FEW_TRIES), False
    if answer.code >= 500 or answer.code in _RETRIED or 300 <= answer.code < 400:
        return Outcome(Kind.RETRY, said), False
    return Outcome(Kind.PARK, said), answer.code == _UNSUPPORTED_MEDIA


def _results(body: bytes) -> dict[str, Any]:
    """Parse a Store Instances Response Module in JSON (PS3.18 annex F); empty for none."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if isinstance(content, list) and len(content) == 1:
        content = content[0]
    return content if isinstance(content, dict) else {}


def _items(results: dict[str, Any], sequence: str) -> list[Any]:
    """Give the items of a sequence; none where it is none."""
    element = results.get(sequence)
    value = element.get("Value") if isinstance(element, dict) else None
    return value if isinstance(value, list) else []


def _number(items: list[Any], element: str, otherwise: int) -> int:
    """Give a number of 16 bits in the first item."""
    try:
        value = items[0][element]["Value"][0]
    except (KeyError, IndexError, TypeError):
        return otherwise
    good = isinstance(value, int) and 0 <= value <= 0xFFFF
    return value if good else otherwise
