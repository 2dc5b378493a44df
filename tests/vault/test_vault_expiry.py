"""Grants whose time is over: they are issued anew, and not exported."""

from datetime import timedelta

import pytest

from medlocker_dicom.errors import NoGrantError, UsageError
from medlocker_dicom.keyfile import load_keyfile
from medlocker_dicom.vault.check import check
from medlocker_dicom.vault.export import export
from medlocker_dicom.vault.grants import listed
from medlocker_dicom.vault.instances import Selection
from vault_factories import ALL, ISSUER, NOW, House


def states(home: House) -> list[str]:
    """What became of bob's grants."""
    return [one.state for one in listed(home.vault, "bob", ALL)]


def test_what_has_expired_is_issued_anew(home: House) -> None:
    """No --renew is needed, a second run adds nothing, and the vault is in order."""
    home.lock(0)
    home.reissue(expires=NOW + timedelta(days=10))
    assert home.reissue().total == 0
    home.clock.now += timedelta(days=10)
    assert home.reissue(expires=NOW + timedelta(days=20)) == (1, 1)
    assert home.reissue().total == 0
    assert states(home) == ["replaced", "live"]
    list(check(home.vault))


def test_what_has_expired_is_not_exported(home: House) -> None:
    """It is left out and counted; where nothing else is left, the error says what to do."""
    home.lock(0)
    home.lock(1)
    home.reissue(selection=Selection(instances=["1.2.1.0"]), expires=NOW + timedelta(days=10))
    home.reissue()
    home.clock.now += timedelta(days=10)
    sent = export(home.vault, ISSUER, "bob", ALL)
    assert (sent.grants, sent.expired) == (1, 1)
    assert [one.locked_uid for one in load_keyfile(sent.keyfiles[0]).grants] == ["1.2.1.1"]
    with pytest.raises(NoGrantError, match=r"all 1 grants of bob .* have expired") as caught:
        export(home.vault, ISSUER, "bob", Selection(instances=["1.2.1.0"]))
    assert "medlocker grant reissue --to bob" in caught.value.hint


def test_a_custodians_grants_never_end(quick: House) -> None:
    """Else nothing could be issued from them one day."""
    quick.lock(0)
    with pytest.raises(UsageError, match="never expire"):
        quick.reissue("custodian", expires=NOW + timedelta(days=10), renew=True)
    assert quick.reissue("custodian", renew=True).done == 1
