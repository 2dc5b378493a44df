"""Key files: identities, grants and recovery packets, bytes in and bytes out."""

from medlocker_dicom.keyfile.binding import Binding
from medlocker_dicom.keyfile.grant import Grant, issue_grant, open_grant
from medlocker_dicom.keyfile.grant_text import dump_grant, load_grant
from medlocker_dicom.keyfile.identity import Identity
from medlocker_dicom.keyfile.identity_text import dump_identity, load_identity
from medlocker_dicom.keyfile.kem import Kem
from medlocker_dicom.keyfile.keyfile import (
    KeyFile,
    dump_keyfile,
    load_keyfile,
    sign_keyfile,
)
from medlocker_dicom.keyfile.packet import FrameMark, Packet, PacketLogo
from medlocker_dicom.keyfile.packet_seal import generate_dek, open_packet, seal_packet
from medlocker_dicom.keyfile.public import (
    PublicIdentity,
    dump_public,
    fingerprint_of,
    load_public,
)

__all__ = [
    "Binding",
    "FrameMark",
    "Grant",
    "Identity",
    "Kem",
    "KeyFile",
    "Packet",
    "PacketLogo",
    "PublicIdentity",
    "dump_grant",
    "dump_identity",
    "dump_keyfile",
    "dump_public",
    "fingerprint_of",
    "generate_dek",
    "issue_grant",
    "load_grant",
    "load_identity",
    "load_keyfile",
    "load_public",
    "open_grant",
    "open_packet",
    "seal_packet",
    "sign_keyfile",
]
