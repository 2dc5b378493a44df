"""No secret in a repr, in an error, or in a traceback; and a small import."""

import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace

import pytest
from keyfile_factories import (
    BINDING,
    DEK,
    ISSUER,
    NOW,
    RECIPIENT,
    STRANGER,
    make_grant,
    make_identity,
    make_keyfile,
    make_packet,
    swap,
)

from medlocker_dicom.errors import MedLockerError
from medlocker_dicom.keyfile import (
    Kem,
    dump_identity,
    load_identity,
    open_grant,
    open_packet,
    seal_packet,
)
from medlocker_dicom.keyfile.canonical import text_of

PASSPHRASE = b"correct horse battery staple"
PACKET = make_packet()
SECRETS = [
    *(
        secret
        for who in (RECIPIENT, ISSUER, STRANGER)
        for secret in (who.hpke_seed, who.signing_seed, who.site_secret)
    ),
    DEK,
    PASSPHRASE,
    *(mark.seed for mark in PACKET.frames),
    *(mark.residual for mark in PACKET.frames),
    PACKET.attributes,
]


def assert_silent(text: str) -> None:
    """None of the secrets is in the text, raw, in hex, in base64 or as Python writes it."""
    for secret in SECRETS:
        for shown in (secret.hex(), text_of(secret)[:16], repr(secret)[2:18]):
            assert shown not in text


@pytest.mark.parametrize(
    "value",
    [
        RECIPIENT,
        make_identity("recipient", Kem.MLKEM768_X25519),
        RECIPIENT.public,
        make_grant(),
        make_keyfile(make_grant()),
        PACKET,
        PACKET.frames[0],
        PACKET.logos[0],
    ],
    ids=lambda value: type(value).__name__,
)
def test_repr_is_short_and_silent(value: object) -> None:
    """Reprs show who and how many; they are short enough for a log."""
    for text in (repr(value), str(value), f"{value}"):
        assert_silent(text)
        assert len(text) < 200


OPEN = dump_identity(RECIPIENT, None)
SEALED = dump_identity(RECIPIENT, PASSPHRASE)
KEY = ISSUER.public.verify_key
FAILURES: dict[str, Callable[[], object]] = {
    "identity is not JSON": lambda: load_identity(OPEN[:-9], lambda: b""),
    "identity is not canonical": lambda: load_identity(OPEN.replace(b":", b": "), lambda: b""),
    "identity is damaged": lambda: load_identity(
        OPEN.replace(b'"secret":"', b'"secret":"A'), bytes
    ),
    "identity has a member twice": lambda: load_identity(
        OPEN.replace(b'"secret"', b'"secret":"","secret"'), bytes
    ),
    "passphrase is wrong": lambda: load_identity(SEALED, lambda: PASSPHRASE + b"r"),
    "identity is of someone else": lambda: open_grant(make_grant(), BINDING, STRANGER, KEY, NOW),
    "binding differs": lambda: open_grant(make_grant(), swap("rows"), RECIPIENT, KEY, NOW),
    "signature differs": lambda: open_grant(
        replace(make_grant(), signature=bytes(64)), BINDING, RECIPIENT, KEY, NOW
    ),
    "packet is foreign": lambda: open_packet(seal_packet(PACKET, DEK, BINDING), DEK, swap("rows")),
    "mark is out of range": lambda: replace(PACKET.frames[0], x=-1),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_errors_are_silent(failure: str) -> None:
    """Neither message, hint nor printed traceback of a failure shows a secret."""
    with pytest.raises(MedLockerError) as caught:
        FAILURES[failure]()
    error = caught.value
    assert_silent("".join(traceback.format_exception(error)) + error.hint + repr(error))
    message = str(error)
    assert message[0].islower()
    assert not message.endswith(".")


def test_import_needs_nothing_but_cryptography() -> None:
    """The recipient's small install is enough: no numpy, no imaging, no network library."""
    script = (
        "import sys, medlocker_dicom.keyfile, medlocker_dicom.keyfile.identity_file\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & set(sys.argv[1:])))"
    )
    heavy = ["numpy", "torch", "monai", "cv2", "PIL", "pynetdicom", "SimpleITK", "pydicom"]
    done = subprocess.run(
        [sys.executable, "-c", script, *heavy], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
