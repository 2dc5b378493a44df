"""node.yaml: what the node listens to, how it locks, where it delivers; unknown keys are errors."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    AnyHttpUrl,
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WrapValidator,
    model_validator,
)

from medlocker_dicom.dicom.uids import check_uid
from medlocker_dicom.errors import MedLockerError, UsageError
from medlocker_dicom.files import check_called

MAX_CONFIG_BYTES = 1 << 20
_LONGEST_HOST = 253
_LONGEST_WORDS = 300
_CENTURY_H = 876_600
FORWARD = "forward unlocked"
"""What a route has to say in words before anything leaves the node as it came."""


def _ae_title(text: str) -> str:
    """Check an application entity's title (PS3.5 section 6.2, AE)."""
    good = all(" " <= c <= "~" and c != "\\" for c in text)
    if not good or not 1 <= len(text.strip()) <= 16 or text != text.strip():
        raise ValueError("an AE title has 1 to 16 characters of ASCII, no backslash")
    return text


def _called(text: str) -> str:
    try:
        check_called(text)
    except UsageError as error:
        raise ValueError(str(error)) from None
    return text


def _uid(text: str) -> str:
    try:
        return check_uid(text, "configured")
    except MedLockerError as error:
        raise ValueError(str(error)) from None


def _beside(path: str, info: ValidationInfo) -> Path:
    """Take a relative path from the folder of the file that names it."""
    if not path.strip() or not path.isprintable():
        raise ValueError("is no path")
    base: Path = (info.context or {}).get("folder", Path())
    try:
        return base / Path(path).expanduser()
    except RuntimeError:
        raise ValueError("begins with the home of somebody who is not known here") from None


def _file(value: object, _: object, info: ValidationInfo) -> Path:
    if not isinstance(value, str | Path):
        raise ValueError("is no path")  # noqa: TRY004  pydantic's errors are such
    return _beside(str(value), info)


def _database(text: str, info: ValidationInfo) -> str:
    return text if "://" in text else str(_beside(text, info))


def _host(text: str) -> str:
    """Check the name or address of a machine, as the resolver will."""
    try:
        good = 1 <= len(text.encode("idna")) <= _LONGEST_HOST
    except UnicodeError:
        good = False
    if not good or not text.isprintable() or set(text) & set(" /@[]"):
        raise ValueError("is no name or address of a machine")
    return text


def _without_password(url: AnyHttpUrl) -> AnyHttpUrl:
    if url.username is not None or url.password is not None:
        raise ValueError("a password belongs into password_file, its user into user")
    return url


AETitle = Annotated[str, AfterValidator(_ae_title)]
Name = Annotated[str, AfterValidator(_called)]
UID = Annotated[str, AfterValidator(_uid)]
File = Annotated[Path, WrapValidator(_file)]
Database = Annotated[str, AfterValidator(_database)]
Host = Annotated[str, AfterValidator(_host)]
Port = Annotated[int, Field(ge=1, le=65535)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class TLS(_Strict):
    """Certificates of both sides (PS3.15 B.12): TLS 1.2 or later, mutual.

    Attributes
    ----------
    certificate, key
        The node's own, PEM.
    authorities
        PEM: whom the other side's certificate has to be signed by.
    """

    certificate: File
    key: File
    authorities: File


class Peer(_Strict):
    """Who may send.

    Attributes
    ----------
    ae_title
        Calling AE title.
    addresses
        Networks that they may call from; none stands for any.
    host, port
        Where they listen themselves, for the answers to their requests of storage
        commitment, over TLS if the node listens so; without, they are answered on the
        association that they asked on alone.
    """

    ae_title: AETitle
    addresses: tuple[IPv4Network | IPv6Network, ...] = ()
    host: Host | None = None
    port: Port | None = None

    @model_validator(mode="after")
    def _whole(self) -> Peer:
        if (self.host is None) is not (self.port is None):
            raise ValueError("host and port belong together")
        return self


class Listen(_Strict):
    """Where and whom the node listens to.

    Attributes
    ----------
    ae_title
        The node's; others may not be called.
    address, port
        Loopback by default.
    tls
        None for plain DICOM.
    peers
        Who may send; without any, everybody who reaches the port.
    processes
        Receivers that share the port.
    associations
        Most at once, in each of them.
    idle_s
        Seconds without a word after which an association ends.
    largest
        Most bytes of an object.
    further_classes
        SOP Class UIDs that are taken beside photographs; the route says what becomes of them.
    """

    ae_title: AETitle = "MEDLOCKER"
    address: Host = "127.0.0.1"
    port: Port = 11112
    tls: TLS | None = None
    peers: tuple[Peer, ...] = ()
    processes: Annotated[int, Field(ge=1, le=64)] = 2
    associations: Annotated[int, Field(ge=1, le=1000)] = 50
    idle_s: Annotated[float, Field(gt=0, le=3600)] = 60
    largest: Annotated[ByteSize, Field(ge=1)] = ByteSize(2 << 30)
    further_classes: tuple[UID, ...] = ()


class Limits(_Strict):
    """How hard a destination may be worked.

    Attributes
    ----------
    associations
        Most objects on their way at once, over all workers.
    per_minute
        Most objects a minute; None for no limit.
    """

    associations: Annotated[int, Field(ge=1, le=64)] = 2
    per_minute: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


class DicomDestination(_Strict):
    """An archive that is sent to by C-STORE.

    Attributes
    ----------
    ae_title, host, port
        Of the archive.
    calling_ae_title
        As whom the node calls; None for its own title.
    tls
        None for plain DICOM.
    limits
        How hard it may be worked.
    commitment
        Whether it is asked to commit to storage (PS3.4 Annex J) before anything is deleted here.
    timeout_s
        Seconds until a silent archive is given up for this time.
    """

    kind: Literal["dicom"]
    ae_title: AETitle
    host: Host
    port: Port
    calling_ae_title: AETitle | None = None
    tls: TLS | None = None
    limits: Limits = Limits()
    commitment: bool = False
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 60


class StowDestination(_Strict):
    """An archive that is sent to by STOW-RS (PS3.18 section 10.5).

    Attributes
    ----------
    url
        Base of the service, such as ``https://archive/dicom-web``.
    user, password_file
        For HTTP's basic authentication; the file's first line is the password.
    authorities
        PEM for the server's certificate; None for the system's.
    limits
        How hard it may be worked.
    timeout_s
        Seconds until a silent archive is given up for this time.
    """

    kind: Literal["stow"]
    url: Annotated[AnyHttpUrl, AfterValidator(_without_password)]
    user: str | None = None
    password_file: File | None = None
    authorities: File | None = None
    limits: Limits = Limits()
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 60

    @model_validator(mode="after")
    def _whole(self) -> StowDestination:
        if (self.user is None) is not (self.password_file is None):
            raise ValueError("user and password_file belong together")
        return self


Destination = Annotated[DicomDestination | StowDestination, Field(discriminator="kind")]


class Match(_Strict):
    """Which objects a route is for: each list that is given must name the object's value.

    Attributes
    ----------
    calling_ae_title, sop_class, modality, station_name, laterality
        Values; ``*`` and ``?`` stand for any characters, any one.
    """

    calling_ae_title: tuple[str, ...] = ()
    sop_class: tuple[str, ...] = ()
    modality: tuple[str, ...] = ()
    station_name: tuple[str, ...] = ()
    laterality: tuple[str, ...] = ()


class Lock(_Strict):
    """How a route locks; as the options of ``medlocker lock``.

    Attributes
    ----------
    recipients
        Names in the vault.
    expires_days
        Days until the recipients' grants end; None for never.
    detached
        Whether packets stay in the vault, for archives that strip them.
    mode, strategy, budget, margin, sl, look, seed, codec
        Of the policy, which says which strategies, looks and codecs there are.
    models
        Names of classifiers; none stands for the default ensemble.
    bundles, trust_bundle
        A folder of the hospital's own models, and those trusted in words.
    logo
        PNG with transparency; None for the default.
    """

    recipients: Annotated[tuple[Name, ...], Field(min_length=1)]
    expires_days: Annotated[int, Field(ge=1, le=36525)] | None = None
    detached: bool = False
    mode: Literal["avoid", "anywhere", "inside"] = "avoid"
    strategy: str = "alpha-list"
    budget: Annotated[int, Field(ge=1, le=100_000)] = 200
    margin: Annotated[float, Field(ge=0, le=1)] = 0.1
    sl: Annotated[float, Field(ge=1, le=16)] = 4.0
    look: str = "solid"
    seed: Annotated[int, Field(ge=0)] = 0
    codec: str = "uncompressed"
    models: tuple[str, ...] = ()
    bundles: File | None = None
    trust_bundle: tuple[str, ...] = ()
    logo: File | None = None

    @property
    def lifetime(self) -> timedelta | None:
        """How long the recipients' grants last."""
        return None if self.expires_days is None else timedelta(days=self.expires_days)


class Route(_Strict):
    """What becomes of the objects that it matches; the first route that does counts.

    Attributes
    ----------
    name
        For people.
    match
        Which objects.
    lock
        How.
    destinations
        Names of those that locked objects are sent to.
    not_fundus
        What becomes of objects that are no fundus photographs: ``hold``, or
        ``forward unlocked``.
    not_lockable
        The same, of photographs that cannot be locked.
    """

    name: Name
    match: Match = Match()
    lock: Lock
    destinations: Annotated[tuple[Name, ...], Field(min_length=1)]
    not_fundus: Literal["hold", "forward unlocked"] = "hold"
    not_lockable: Literal["hold", "forward unlocked"] = "hold"


class Page(_Strict):
    """The page that shows what goes on.

    Attributes
    ----------
    address, port
        Loopback by default; elsewhere a login is needed.
    user, password_file
        For the login; the file's first line is the password.
    certificate, key
        PEM, for HTTPS.
    thumbnails
        Whether photographs are shown, small.
    quiet_minutes
        After how many without a new object a study is called complete.
    """

    address: Host = "127.0.0.1"
    port: Port = 8055
    user: str | None = None
    password_file: File | None = None
    certificate: File | None = None
    key: File | None = None
    thumbnails: bool = True
    quiet_minutes: Annotated[float, Field(gt=0, le=1440)] = 10

    @model_validator(mode="after")
    def _guarded(self) -> Page:
        try:
            local = ip_address(self.address).is_loopback
        except ValueError:
            local = self.address == "localhost"
        if (self.user is None) is not (self.password_file is None):
            raise ValueError("user and password_file belong together")
        if (self.certificate is None) is not (self.key is None):
            raise ValueError("certificate and key belong together")
        if not local and self.user is None:
            raise ValueError("a page that others reach needs user and password_file")
        if not local and self.certificate is None:
            raise ValueError("a page that others reach needs certificate and key")
        return self


class Audit(_Strict):
    """Where DICOM audit messages go (PS3.15 A.5).

    Attributes
    ----------
    file
        Appended to; None for none.
    syslog_host, syslog_port, authorities
        A server of syslog over TLS (RFC 5425); None for none.
    certificate, key
        PEM: the node's own, where that server asks for them.
    """

    file: File | None = None
    syslog_host: Host | None = None
    syslog_port: Port = 6514
    authorities: File | None = None
    certificate: File | None = None
    key: File | None = None

    @model_validator(mode="after")
    def _one(self) -> Audit:
        if (self.certificate is None) is not (self.key is None):
            raise ValueError("certificate and key belong together")
        if self.file is not None and self.syslog_host is not None:
            raise ValueError("file and syslog_host are two ways; choose one")
        return self


class Log(_Strict):
    """What the log is like.

    Attributes
    ----------
    form
        ``json`` for machines, ``text`` for a terminal.
    study_uids
        ``hashed`` or ``plain``.
    """

    form: Literal["json", "text"] = "json"
    study_uids: Literal["hashed", "plain"] = "hashed"


class NodeConfig(_Strict):
    """All of node.yaml.

    Attributes
    ----------
    listen, page, audit, log
        See there.
    spool
        Folder of what was received and not yet delivered, on a disk that keeps what is synced.
    floor
        Free bytes on that disk below which nothing is received (A700).
    database
        Of the queue: a file, or a URL of PostgreSQL; None for a file in the spool.
    vault
        A file, or a URL of PostgreSQL.
    issuer, issuer_passphrase_file
        Identity that signs.
    destinations, routes
        By name; in the order in which they are asked.
    lock_minutes
        Longest that an object may be worked on until it is locked; what takes longer is held.
    keep_hours
        How long an object stays in the spool after its last delivery, but no longer than the
        disk is above its floor.
    """

    listen: Listen = Listen()
    spool: File
    floor: ByteSize = ByteSize(5 << 30)
    database: Database | None = None
    vault: Database
    issuer: File
    issuer_passphrase_file: File | None = None
    destinations: Annotated[dict[Name, Destination], Field(min_length=1)]
    routes: Annotated[tuple[Route, ...], Field(min_length=1)]
    lock_minutes: Annotated[float, Field(gt=0, le=1440)] = 30
    keep_hours: Annotated[float, Field(ge=0, le=_CENTURY_H)] = 24
    page: Page = Page()
    audit: Audit = Audit()
    log: Log = Log()

    @model_validator(mode="after")
    def _consistent(self) -> NodeConfig:
        names = [route.name for route in self.routes]
        if len(names) > len(set(names)):
            raise ValueError("two routes have one name")
        for route in self.routes:
            if strange := [one for one in route.destinations if one not in self.destinations]:
                raise ValueError(f"route {route.name}: {strange[0]} is no destination")
        return self


class _TwiceError(yaml.MarkedYAMLError):
    def __str__(self) -> str:
        return "a key is there twice"


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which PyYAML would forget the first without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002  PyYAML's
        """Make a mapping."""
        keys = [one.value for one, _ in node.value if isinstance(one, yaml.ScalarNode)]
        for number, (one, _) in enumerate(node.value):
            if isinstance(one, yaml.ScalarNode) and one.value in keys[:number]:
                raise _TwiceError(problem_mark=one.start_mark)
        return super().construct_mapping(node, deep)


def load_config(path: Path) -> NodeConfig:
    """Read node.yaml; relative paths in it are relative to its folder.

    Raises
    ------
    UsageError
        It cannot be read, is no YAML, or says what it may not; the first fault is named.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > MAX_CONFIG_BYTES:
        raise UsageError(f"{path}: is larger than {MAX_CONFIG_BYTES} bytes")
    try:
        content: Any = yaml.load(data, _Loader)  # noqa: S506  it is a SafeLoader
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        # PyYAML raises others than its own where a number or a date is none.
        mark = getattr(error, "problem_mark", None)
        place = f":{mark.line + 1}" if mark else ""
        twice = f": {error}" if isinstance(error, _TwiceError) else ""
        raise UsageError(f"{path}{place}: is no YAML{twice}") from error
    try:
        return NodeConfig.model_validate(content, context={"folder": path.absolute().parent})
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in fault["loc"])
        said = fault["msg"].removeprefix("Value error, ")
        if len(said) > _LONGEST_WORDS:
            said = said[:_LONGEST_WORDS] + "..."
        raise UsageError(
            f"{path}: {place + ': ' if place else ''}{said[:1].lower()}{said[1:]}",
            "pacs/node.yaml shows every key",
        ) from None
