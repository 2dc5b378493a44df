"""Every size that a reader of ours accepts, in one place.

Each is checked before memory is taken or work is done in proportion to it;
keys/keyfile.md repeats the table and a test holds the two together.
"""

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

MAX_NAME_CHARS: Final = 64
"""Characters in the name of an identity."""

MAX_PUBLIC_BYTES: Final = 4 * KIB
"""Bytes in a public key file."""

MAX_IDENTITY_BYTES: Final = 8 * KIB
"""Bytes in an identity file."""

MAX_ARGON2_KIB: Final = 256 * KIB
"""Argon2id memory that an identity file may ask for, in KiB (256 MiB)."""

MAX_ARGON2_PASSES: Final = 10
"""Argon2id passes that an identity file may ask for."""

MAX_ARGON2_LANES: Final = 16
"""Argon2id lanes that an identity file may ask for."""

MAX_UID_CHARS: Final = 64
"""Characters in a UID (PS3.5 section 9.1)."""

MAX_GRANTS: Final = 65536
"""Grants in a key file."""

MAX_SUCCESSIONS: Final = 64
"""Successions of issuers in a key file or status list."""

MAX_GRANT_BYTES: Final = 4 * KIB
"""Bytes in a grant that is stored by itself."""

MAX_KEYFILE_BYTES: Final = 128 * MIB
"""Bytes in a key file."""

MAX_STATUS_BYTES: Final = 32 * MIB
"""Bytes in a status list."""

MAX_REVOKED: Final = 1_000_000
"""Grants that a status list revokes."""

MAX_RECEIPT_BYTES: Final = 32 * MIB
"""Bytes in a receipt."""

MAX_RECEIPT_ENTRIES: Final = 65536
"""Entries in a receipt."""

MAX_PACKET_BYTES: Final = 512 * MIB
"""Bytes in a recovery packet, before sealing."""

MAX_DETACHED_HEADER_BYTES: Final = 1 * KIB
"""Bytes in the header of a detached packet."""

MAX_FRAMES: Final = 65536
"""Frames in a recovery packet."""

MAX_LOGOS: Final = 4096
"""Logos in a recovery packet."""

MAX_LOGO_BYTES: Final = 64 * MIB
"""Bytes of one compressed logo in a recovery packet."""

MAX_GRID_BYTES: Final = 1 * MIB
"""Bytes of one frame's alpha grid in a recovery packet."""

MAX_RESIDUAL_BYTES: Final = 256 * MIB
"""Bytes of one frame's compressed residual in a recovery packet."""

MAX_ATTRIBUTES_BYTES: Final = 64 * MIB
"""Bytes of the packed source attributes in a recovery packet."""

MAX_RULE_CHARS: Final = 32
"""Characters in the name of a blending rule."""
