"""Key files: identities, grants and recovery packets, bytes in and bytes out."""

from medlocker_dicom.keyfile.binding import Binding
from medlocker_dicom.keyfile.detached import DetachedPacket, dump_detached, load_detached
from medlocker_dicom.keyfile.grant import Bound, Grant, issue_grant, open_grant, sign_grant
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
from medlocker_dicom.keyfile.receipt import (
    Receipt,
    ReceiptEntry,
    dump_receipt,
    load_receipt,
    sign_receipt,
)
from medlocker_dicom.keyfile.status import StatusList, dump_status, load_status, sign_status
from medlocker_dicom.keyfile.succession import Lineage, Succession

__all__ = [
    "Binding",
    "Bound",
    "DetachedPacket",
    "FrameMark",
    "Grant",
    "Identity",
    "Kem",
    "KeyFile",
    "Lineage",
    "Packet",
    "PacketLogo",
    "PublicIdentity",
    "Receipt",
    "ReceiptEntry",
    "StatusList",
    "Succession",
    "dump_detached",
    "dump_grant",
    "dump_identity",
    "dump_keyfile",
    "dump_public",
    "dump_receipt",
    "dump_status",
    "fingerprint_of",
    "generate_dek",
    "issue_grant",
    "load_detached",
    "load_grant",
    "load_identity",
    "load_keyfile",
    "load_public",
    "load_receipt",
    "load_status",
    "open_grant",
    "open_packet",
    "seal_packet",
    "sign_grant",
    "sign_keyfile",
    "sign_receipt",
    "sign_status",
]
