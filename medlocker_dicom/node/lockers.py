"""What a route's way of locking needs: models, a logo, an issuer, people of the vault."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from medlocker_dicom.pipeline.lock import Locker
from medlocker_dicom.pipeline.logo import read_logo
from medlocker_dicom.pipeline.models import find_models, load_models
from medlocker_dicom.pipeline.policy import make_policy
from medlocker_dicom.vault import people

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from medlocker_dicom.bundles.models import Ensemble, Segmenter
    from medlocker_dicom.keyfile import Identity
    from medlocker_dicom.node.config import Lock
    from medlocker_dicom.pipeline.policy import Policy
    from medlocker_dicom.vault.vault import Vault
    from medlocker_dicom.watermark.logo import Logo


@dataclass(frozen=True)
class Lockers:
    """Makes lockers; models are loaded once for all routes that name the same.

    Attributes
    ----------
    vault
        Knows recipients and custodians.
    issuer
        Signs.
    """

    vault: Vault
    issuer: Identity
    _models: dict[object, tuple[Ensemble, Segmenter]] = field(default_factory=dict)
    _logos: dict[Path | None, Logo] = field(default_factory=dict)

    def make(self, options: Lock, now: datetime) -> Locker:
        """Make a locker for an object that is locked now.

        Raises
        ------
        UsageError
            An option, or a recipient, cannot be used.
        LogoError, BundleError
            Logo or models cannot.
        VaultError
            The vault fails, or has another issuer.
        """
        policy = policy_of(options)
        ensemble, segmenter = self._load(options)
        with self.vault.reading() as connection:
            people.check_issuer(connection, self.issuer)
            to = [people.find_active(connection, name, "locked for") for name in options.recipients]
            keepers = people.custodians(connection)
        return Locker(
            policy,
            ensemble,
            segmenter.lesions,
            self._logo(options.logo),
            self.issuer,
            tuple(one.public for one in to),
            tuple(one.public for one in keepers),
            None if options.lifetime is None else now + options.lifetime,
            options.detached,
        )

    def _load(self, options: Lock) -> tuple[Ensemble, Segmenter]:
        key = (options.models, options.bundles, options.trust_bundle)
        if key not in self._models:
            self._models[key] = load_models(options.models, options.bundles, options.trust_bundle)
        return self._models[key]

    def _logo(self, path: Path | None) -> Logo:
        if path not in self._logos:
            self._logos[path] = read_logo(path)
        return self._logos[path]


def check_lock(options: Lock) -> None:
    """Check a route's policy, logo and models.

    Raises
    ------
    UsageError, LogoError, BundleError
        The first that cannot be used.
    """
    policy_of(options)
    read_logo(options.logo)
    find_models(options.models, options.bundles, options.trust_bundle)


def policy_of(options: Lock) -> Policy:
    """Make the policy of a route.

    Raises
    ------
    UsageError
        It names a strategy or a codec that there is not.
    """
    return make_policy(
        mode=options.mode,
        strategy=options.strategy,
        budget=options.budget,
        margin=options.margin,
        sl=options.sl,
        look=options.look,
        seed=options.seed,
        codec=options.codec,
    )
