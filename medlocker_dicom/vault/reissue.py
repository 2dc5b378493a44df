"""Grants issued again, from those of the custodian."""

from __future__ import annotations

from dataclasses import dataclass
from secrets import token_bytes
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import insert, update

from medlocker_dicom.errors import NoGrantError, UsageError
from medlocker_dicom.keyfile import issue_grant, open_grant
from medlocker_dicom.keyfile.grant import GRANT_ID_BYTES
from medlocker_dicom.parts import batched
from medlocker_dicom.vault import people
from medlocker_dicom.vault.grants import check_selected, open_grants, open_uids, selected_uids
from medlocker_dicom.vault.instances import note_grant
from medlocker_dicom.vault.rows import grant_row
from medlocker_dicom.vault.schema import grants

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from medlocker_dicom.keyfile import Grant, Identity, Lineage
    from medlocker_dicom.vault.instances import Selection
    from medlocker_dicom.vault.vault import Vault, Writing

#: Grants that become durable together: a killed run has lost no more work than these.
BATCH: Final = 500


class Progress(NamedTuple):
    """How far a batch is: `done` counts what is durable."""

    done: int
    total: int


class Held(NamedTuple):
    """A stored grant with what `Bound` asks for."""

    grant: Grant

    @property
    def locked_uid(self) -> str:
        """SOP Instance UID of the locked object."""
        return self.grant.locked_uid

    @property
    def digest(self) -> bytes:
        """Digest of the binding, 32 bytes."""
        return self.grant.binding


@dataclass(frozen=True)
class Reissue:
    """Issues grants again from those of a custodian; no pixel is touched.

    Attributes
    ----------
    vault
        Which.
    issuer
        The vault's present issuer, who signs.
    custodian
        Opens its own grants.
    to
        Name of the recipient.
    selection
        Of which instances.
    expires
        First moment at which the new grants no longer open; None for no end.
    renew
        Whether a recipient's live grants are replaced; else they are left alone, but for those
        that have expired.
    """

    vault: Vault
    issuer: Identity
    custodian: Identity
    to: str
    selection: Selection
    expires: datetime | None = None
    renew: bool = False

    def run(self) -> Iterator[Progress]:
        """Issue batch after batch; each is durable as a whole before the next one.

        A run that was killed goes on where it was when it is started again.

        Raises
        ------
        UsageError
            The recipient is unknown or retired, a UID selects nothing, or a custodian's grants
            would end.
        NoGrantError
            The custodian has no grant for a selected instance.
        KeyRefusedError
            A grant of the custodian's does not open.
        VaultError
            The issuer is not the vault's, or the database fails.
        """
        with self.vault.reading() as connection:
            lineage = people.check_issuer(connection, self.issuer)
            todo = self._todo(connection)
        yield Progress(0, len(todo))
        done = 0
        for batch in batched(todo, BATCH):
            self._issue(batch, lineage)
            done += len(batch)
            yield Progress(done, len(todo))

    def _todo(self, connection: Connection) -> list[str]:
        """List the locked UIDs for which a grant is to be issued."""
        to = people.find_active(connection, self.to, "issued to")
        if to.custodian and self.expires is not None:
            raise UsageError(
                f"{self.to} is a custodian, whose grants never expire", "leave out --expires"
            )
        now = self.vault.clock()
        check_selected(connection, self.selection)
        selected = selected_uids(connection, self.selection)
        if not selected:
            raise UsageError("nothing that was locked is selected")
        kept = open_uids(connection, self.custodian.public.id, now)
        if missing := [uid for uid in selected if uid not in kept]:
            raise NoGrantError(
                f"{self.custodian.public.fingerprint} has no grant for {len(missing)} of "
                f"{len(selected)} selected instances, {missing[0]} among them",
                "use the identity that was the custodian when they were locked",
            )
        if self.renew:
            return selected
        theirs = open_uids(connection, to.public.id, now)
        return [uid for uid in selected if uid not in theirs]

    def _issue(self, uids: Sequence[str], lineage: Lineage) -> None:
        """Issue the grants of one batch in one transaction."""
        now, keeper = self.vault.clock(), self.custodian.public.id
        chosen = grants.c.locked_uid.in_(uids)
        with self.vault.reading() as connection:
            to = people.find(connection, self.to)
            own = open_grants(connection, keeper, now, chosen)
        issued = [self._seal(grant, to, lineage) for grant in own]
        with self.vault.writing() as writing:
            # Somebody may have retired them, issued the same, or handed over meanwhile.
            people.check_issuer(writing.connection, self.issuer)
            people.find_active(writing.connection, self.to, "issued to")
            live = open_uids(writing.connection, to.public.id, now, chosen)
            kept = open_grants(writing.connection, keeper, now, chosen)
            still = {one.locked_uid for one in kept if one in own}  # else it was locked again
            fresh = [
                one
                for one in issued
                if one.locked_uid in still and (self.renew or one.locked_uid not in live)
            ]
            _end(writing, to.public.id, [one.locked_uid for one in fresh])
            if fresh:
                rows = [grant_row(one, writing.now) for one in fresh]
                writing.connection.execute(insert(grants), rows)
            for one in fresh:
                note_grant(writing, "reissued", one)
            writing.checkpoint(self.issuer)

    def _seal(self, grant: Grant, to: people.Recipient, lineage: Lineage) -> Grant:
        key = lineage.issuer.verify_key
        dek = open_grant(grant, Held(grant), self.custodian, key, self.vault.clock())
        return issue_grant(
            dek,
            Held(grant),
            to.public,
            self.issuer,
            expires=self.expires,
            grant_id=token_bytes(GRANT_ID_BYTES),
        )


def _end(writing: Writing, recipient: bytes, uids: Sequence[str]) -> None:
    """End a recipient's live grants for some instances: others take their place."""
    chosen = (grants.c.recipient == recipient, grants.c.live, grants.c.locked_uid.in_(uids))
    writing.connection.execute(update(grants).where(*chosen).values(live=False))
