"""Who looks at the page: sessions, wrong tries, and tokens that forms carry.

All of it lives in the memory of one process and is used from its event loop alone.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Final

from medlocker_dicom.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Seconds until a session ends that is not used, and until any ends.
IDLE_S: Final = 30 * 60
LONGEST_S: Final = 12 * 3600
#: Wrong tries of an address in `SPAN_S` seconds, after which it has to wait.
WRONG: Final = 5
SPAN_S: Final = 60
_MOST_SESSIONS: Final = 1000
_MOST_ADDRESSES: Final = 10_000
_MOST_PASSWORD: Final = 1024  # bytes


@dataclass
class _Session:
    user: str
    opened: float
    used: float


@dataclass(frozen=True)
class Sessions:
    """Who is logged in.

    Attributes
    ----------
    clock
        Seconds that never go back.
    """

    clock: Callable[[], float]
    _open: OrderedDict[bytes, _Session] = field(default_factory=OrderedDict, repr=False)

    def begin(self, user: str) -> str:
        """Log somebody in; the oldest session gives way to one too many.

        Returns
        -------
        str
            The token by which they are known from now on.
        """
        token = secrets.token_urlsafe(32)
        now = self.clock()
        self._open[_digest(token)] = _Session(user, now, now)
        while len(self._open) > _MOST_SESSIONS:
            self._open.popitem(last=False)
        return token

    def look(self, token: str) -> str | None:
        """Tell whose a token is, which does not count as use; None for nobody's."""
        session = self._open.get(_digest(token))
        if session is None:
            return None
        now = self.clock()
        if now - session.used > IDLE_S or now - session.opened > LONGEST_S:
            self.end(token)
            return None
        return session.user

    def use(self, token: str) -> str | None:
        """Tell whose a token is, and that they are still there; None for nobody's."""
        user = self.look(token)
        if user is not None:
            self._open[_digest(token)].used = self.clock()
        return user

    def end(self, token: str) -> None:
        """Log somebody out."""
        self._open.pop(_digest(token), None)


@dataclass(frozen=True)
class Tries:
    """Wrong passwords by address; of IPv6 by network of 64 bits, which is one customer's.

    Attributes
    ----------
    clock
        Seconds that never go back.
    """

    clock: Callable[[], float]
    _wrong: OrderedDict[str, list[float]] = field(default_factory=OrderedDict, repr=False)

    def wait(self, address: str) -> int:
        """Tell how many seconds an address has to wait before it may try; 0 for none."""
        recent = self._recent(address)
        return 0 if len(recent) < WRONG else int(recent[0] + SPAN_S - self.clock()) + 1

    def wrong(self, address: str) -> None:
        """Remember a wrong try; the address that was quiet for longest is forgotten first."""
        key = _network(address)
        self._wrong[key] = [*self._recent(address), self.clock()][-WRONG:]
        self._wrong.move_to_end(key)
        while len(self._wrong) > _MOST_ADDRESSES:
            self._wrong.popitem(last=False)

    def _recent(self, address: str) -> list[float]:
        since = self.clock() - SPAN_S
        return [at for at in self._wrong.get(_network(address), []) if at > since]


@dataclass(frozen=True)
class Credentials:
    """Whom the page lets in.

    Attributes
    ----------
    user
        Name.
    """

    user: str
    _password: bytes = field(repr=False)

    def match(self, user: str, password: str) -> bool:
        """Tell whether both are right, in a time that does not tell how much of them is."""
        same_user = hmac.compare_digest(_digest(user), _digest(self.user))
        same_password = hmac.compare_digest(_digest(password), self._password)
        return same_user & same_password


def read_credentials(user: str, path: Path) -> Credentials:
    """Read the password, which is the first line of a file.

    Raises
    ------
    UsageError
        It cannot be read, or is empty, too long or no text.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(_MOST_PASSWORD + 2)
        password = data.splitlines()[0].decode() if data else ""
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is no text in UTF-8") from None
    if not password or len(password.encode()) > _MOST_PASSWORD:
        raise UsageError(f"{path}: its first line is no password of 1 to {_MOST_PASSWORD} bytes")
    return Credentials(user, _digest(password))


@dataclass(frozen=True)
class Stamps:
    """Tokens that forms carry, so that no other site's form is taken for ours.

    A stamp belongs to the cookie of one browser and dies with the process.
    """

    _secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def of(self, token: str) -> str:
        """Give the stamp that belongs to a cookie's token."""
        return hmac.new(self._secret, token.encode(), "sha256").hexdigest()

    def fits(self, stamp: str, token: str) -> bool:
        """Tell whether a form's stamp belongs to a cookie's token."""
        return hmac.compare_digest(stamp.encode(), self.of(token).encode())


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def _network(address: str) -> str:
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    return str(ip_network((ip, 64), strict=False)) if isinstance(ip, IPv6Address) else address
