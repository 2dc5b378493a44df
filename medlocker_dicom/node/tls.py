"""TLS for DICOM: 1.2 and 1.3, certificates on both sides (PS3.15 B.12, BCP 195)."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

from medlocker_dicom.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from medlocker_dicom.node.config import TLS

#: Of TLS 1.2: forward secrecy and authenticated encryption alone (RFC 9325 section 4.2).
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20"


def server_context(tls: TLS) -> ssl.SSLContext:
    """Make what a listener speaks TLS with; who calls must show a certificate.

    Raises
    ------
    UsageError
        A file cannot be read, or is not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    return _furnished(context, tls)


def client_context(tls: TLS) -> ssl.SSLContext:
    """Make what a caller speaks TLS with; the other side's certificate must name its host.

    Raises
    ------
    UsageError
        A file cannot be read, or is not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return _furnished(context, tls)


def _furnished(context: ssl.SSLContext, tls: TLS) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_ciphers(_CIPHERS)
    for path in (tls.certificate, tls.key, tls.authorities):
        _check_readable(path)
    try:
        context.load_verify_locations(tls.authorities)
    except (ssl.SSLError, ValueError) as error:
        raise UsageError(f"{tls.authorities}: holds no certificates in PEM") from error
    try:
        # Without a password of ours, OpenSSL would ask for one at a terminal.
        context.load_cert_chain(tls.certificate, tls.key, password="")
    except (ssl.SSLError, ValueError) as error:
        if "KEY_VALUES_MISMATCH" in str(error):
            raise UsageError(f"{tls.key}: is not the key of {tls.certificate}") from error
        raise UsageError(
            f"{tls.certificate}, {tls.key}: are no certificate and key that can be used",
            "both in PEM, the key without a passphrase",
        ) from error
    return context


def _check_readable(path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
