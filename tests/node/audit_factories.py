"""A server of syslog over TLS, certificates for it, and what an audit message must hold."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HEADER = re.compile(
    rb"<(8[45])>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00 \S{1,255} medlocker-node \d+ "
    rb"DICOM\+RFC3881 - \xef\xbb\xbf"
)


def certificate(folder: Path) -> tuple[Path, Path]:
    """Return a certificate for this machine that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, secret = folder / "server.crt", folder / "server.key"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return pem, secret


class SyslogServer:
    """Takes frames of RFC 5425 over TLS, in a thread; after so many of them it goes away."""

    def __init__(
        self, pem: Path, key: Path, port: int = 0, leaves_after: int | None = None
    ) -> None:
        self.messages: list[bytes] = []
        self.connections = 0
        self._leaves_after = leaves_after
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pem, key)
        self._context.load_verify_locations(pem)
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._listener = socket.create_server(("127.0.0.1", port))
        # Syslog confirms nothing: a sender knows what this system took, not what was read of it.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop, and close all connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
                secure = self._context.wrap_socket(plain, server_side=True)
            except (ssl.SSLError, ConnectionError):
                continue
            except OSError:
                return
            self.connections += 1
            self._open.append(secure)
            threading.Thread(target=self._serve, args=(secure,), daemon=True).start()

    def _serve(self, secure: ssl.SSLSocket) -> None:
        with contextlib.suppress(OSError, ValueError), secure.makefile("rb") as stream:
            while digits := _until_space(stream.read):
                self.messages.append(stream.read(int(digits)))
                if self._leaves_after == len(self.messages):
                    self.close()
                    return


def _until_space(read: Callable[[int], bytes]) -> bytes:
    found = b""
    while (one := read(1)) not in (b" ", b""):
        found += one
    return found


@contextlib.contextmanager
def syslog_server(
    pem: Path, key: Path, port: int = 0, leaves_after: int | None = None
) -> Iterator[SyslogServer]:
    """Run a server of syslog."""
    server = SyslogServer(pem, key, port, leaves_after)
    try:
        yield server
    finally:
        server.close()


def parsed(line: bytes) -> ET.Element:
    """Check a message against PS3.15 A.5.1, RFC 5424 and A.5.2, and return its XML."""
    header = HEADER.match(line)
    assert header, line[:120]
    assert b"\n" not in line
    text = line[header.end() :].decode()
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?><AuditMessage>')
    root = ET.fromstring(text)
    names = [child.tag for child in root]
    order = (
        "EventIdentification",
        "ActiveParticipant",
        "AuditSourceIdentification",
        "ParticipantObjectIdentification",
    )
    assert sorted(names, key=order.index) == names
    assert names.count("EventIdentification") == names.count("AuditSourceIdentification") == 1
    assert "ActiveParticipant" in names
    _check_event(root[0], header.group(1))
    for element in root.iter("ActiveParticipant"):
        _check_participant(element)
    for element in root.iter("ParticipantObjectIdentification"):
        _check_object(element)
    source = root.find("AuditSourceIdentification")
    assert source is not None
    assert source.get("AuditSourceID")
    assert [one.get("csd-code") for one in source] == ["4"]
    return root


def code_of(element: ET.Element | None) -> tuple[str, str]:
    """Check a coded value (csd-attributes), and return its value and scheme."""
    assert element is not None
    assert set(element.keys()) == {"csd-code", "codeSystemName", "displayName", "originalText"}
    assert all(element.attrib.values())
    return element.attrib["csd-code"], element.attrib["codeSystemName"]


def _check_event(element: ET.Element, priority: bytes) -> None:
    assert set(element.keys()) == {"EventActionCode", "EventDateTime", "EventOutcomeIndicator"}
    assert element.attrib["EventActionCode"] in set("CRUDE")
    assert datetime.fromisoformat(element.attrib["EventDateTime"]).tzinfo is not None
    outcome = element.attrib["EventOutcomeIndicator"]
    assert outcome in {"0", "4", "8", "12"}
    assert (priority == b"85") is (outcome == "0")
    tags = [child.tag for child in element]
    assert tags in (
        ["EventID"],
        ["EventID", "EventTypeCode"],
        ["EventID", "EventTypeCode", "EventOutcomeDescription"],
    )
    for child in element:
        if child.tag != "EventOutcomeDescription":
            assert code_of(child)[1] == "DCM"


def _check_participant(element: ET.Element) -> None:
    assert element.get("UserID")
    assert element.get("UserIsRequestor") in {"true", "false"}
    assert (element.get("AlternativeUserID") or "AETITLES=").startswith("AETITLES=")
    place, kind = element.get("NetworkAccessPointID"), element.get("NetworkAccessPointTypeCode")
    assert (place is None) is (kind is None)
    assert kind in {None, "1", "2", "5"}
    assert [child.tag for child in element] in (
        [],
        ["RoleIDCode"],
        ["RoleIDCode", "MediaIdentifier"],
    )
    for child in element.iter("RoleIDCode"):
        code_of(child)


def _check_object(element: ET.Element) -> None:
    assert element.get("ParticipantObjectID")
    assert element.get("ParticipantObjectTypeCode") in {"1", "2"}
    tags = [child.tag for child in element]
    assert tags[:2] == ["ParticipantObjectIDTypeCode", "ParticipantObjectName"]
    assert set(tags[2:]) <= {"ParticipantObjectDetail", "ParticipantObjectDescription"}
    code_of(element[0])
    assert element[1].text
    for one in element.iter("SOPClass"):
        assert int(one.attrib["NumberOfInstances"]) > 0
