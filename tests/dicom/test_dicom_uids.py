"""UIDs: grammar and derivation."""

import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medlocker_dicom.dicom.uids import check_uid, derive_uid
from medlocker_dicom.errors import UIDError

KEY = bytes(range(32))

HOSTILE = [
    "../../x",
    "/etc/passwd",
    "1.2.3/4",
    "1.2.3\\4",
    "1.2.3\n",
    "1.2.3\0",
    " 1.2.3",
    "1.2.03",
    "1..2",
    "1.2.",
    ".1.2",
    "1",
    "1.2.x",
    "1.2.\u0663",
    "1." + "2" * 63,
    "",
    None,
    ["1.2.3", "1.2.4"],
    123,
]


@pytest.mark.parametrize("uid", HOSTILE, ids=repr)
def test_what_is_no_uid_is_refused(uid: object) -> None:
    """Anything that breaks PS3.5 9.1, such as a path, raises and names the element."""
    with pytest.raises(UIDError, match=r"^SOP Instance UID "):
        check_uid(uid, "SOP Instance UID")


@pytest.mark.parametrize("uid", ["1.2", "0.0", "2.25.0", "1." + "2" * 62])
def test_a_uid_is_returned_as_it_is(uid: str) -> None:
    """Valid UIDs up to 64 characters pass unchanged."""
    assert check_uid(uid, "UID") == uid


@given(st.text())
def test_a_checked_uid_is_a_safe_file_name(text: str) -> None:
    """Whatever passes consists of digits and dots, without an empty part."""
    try:
        uid = check_uid(text, "UID")
    except UIDError:
        return
    assert re.fullmatch(r"[0-9]+(\.[0-9]+)+", uid)


def test_derived_uids_are_fixed_and_uuid_shaped() -> None:
    """The same input gives the same UID, forever; it is a version 8 UUID as a number."""
    uid = derive_uid(KEY, "locked series", "1.2.3")
    # printf 'locked series\0001.2.3' | openssl dgst -sha256 -mac HMAC, version and variant set
    assert uid == "2.25.194508188648683094701401260510637601640"
    number = uuid.UUID(int=int(uid.removeprefix("2.25.")))
    assert (number.version, number.variant) == (8, uuid.RFC_4122)


def test_derived_uids_depend_on_key_purpose_and_uid() -> None:
    """A change of any input changes the result."""
    inputs = [
        (KEY, "series", "1.2.3"),
        (KEY[::-1], "series", "1.2.3"),
        (KEY, "instance", "1.2.3"),
        (KEY, "series", "1.2.4"),
    ]
    derived = {derive_uid(*each) for each in inputs}
    assert len(derived) == len(inputs)
    for uid in derived:
        assert check_uid(uid, "UID") == uid


def test_derivation_refuses_misuse() -> None:
    """A short key, an ambiguous purpose and a hostile UID are errors."""
    with pytest.raises(ValueError, match="16 bytes"):
        derive_uid(b"short", "series", "1.2.3")
    with pytest.raises(ValueError, match="NUL"):
        derive_uid(KEY, "a\0b", "1.2.3")
    with pytest.raises(UIDError):
        derive_uid(KEY, "series", "../x")
