"""medlocker node: run the DICOM node, check its configuration, work for it."""

from __future__ import annotations

import secrets
import signal
import socket
import sys
from itertools import count
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer

from medlocker_dicom.cli.engine import check_node
from medlocker_dicom.cli.guard import plain
from medlocker_dicom.cli.identity import read_private
from medlocker_dicom.files import write_private

if TYPE_CHECKING:
    from medlocker_dicom.database import Place
    from medlocker_dicom.node.config import NodeConfig
    from medlocker_dicom.node.locking import Locking
    from medlocker_dicom.node.logs import Log
    from medlocker_dicom.node.spool import Spool
    from medlocker_dicom.node.supervisor import Child
    from medlocker_dicom.vault.vault import Vault

#: Folder in the spool that processes count in.
METERS = "meters"
#: Numbers for receivers of one reading of node.yaml: each has a folder of its own.
_MOST_RECEIVERS = 1000
ConfigOption = Annotated[
    Path, typer.Option("--config", metavar="YAML", help="The node's configuration.")
]
Workers = Annotated[
    int, typer.Option("--workers", min=0, max=64, help="Processes that lock and deliver.")
]
app = typer.Typer(help="Take photographs from a PACS, lock them, and pass them on.")


@app.callback()
def group() -> None:
    """Take photographs from a PACS, lock them, and pass them on."""


@app.command()
def check(*, config: ConfigOption = Path("node.yaml")) -> None:
    """Check the configuration, and everything that it names."""
    check_node("the node needs")
    found = _checked_whole(config)
    names = ", ".join(found.destinations)
    line = f"{config}: {len(found.routes)} routes to {names}, in order"
    sys.stdout.write(plain(line) + "\n")


@app.command()
def run(*, config: ConfigOption = Path("node.yaml"), workers: Workers = 1) -> None:
    """Run the node until it is told to end."""
    check_node("the node needs")
    from medlocker_dicom.node import logs  # noqa: PLC0415  the node's libraries
    from medlocker_dicom.node.audit import make_auditor  # noqa: PLC0415  the same
    from medlocker_dicom.node.listener import bind  # noqa: PLC0415  the same
    from medlocker_dicom.node.metrics import clear  # noqa: PLC0415  the same
    from medlocker_dicom.node.receiver_arrival import recover  # noqa: PLC0415  the same
    from medlocker_dicom.node.supervisor import Child, Supervisor  # noqa: PLC0415  the same
    from medlocker_dicom.node.workflows import open_ledger, prepare  # noqa: PLC0415  the same

    found = _checked_whole(config)
    spool = _spool(found)
    spool.prepare()
    log = _log(found, "node")
    place = _place(found)
    prepare(place)
    ledger = open_ledger(place)
    recover(spool, ledger, log)
    ledger.close()
    listening, where = bind(found.listen), (found.listen.address, found.listen.port)

    generations = count()

    def children() -> list[Child] | None:
        nonlocal found
        generation = next(generations)
        try:
            found = _checked_whole(config) if generation else found
        except Exception as error:  # noqa: BLE001  whatever it is: the node goes on
            log.error("node.yaml is unusable: it stays as it was", error=error)  # noqa: TRY400  no traceback
            return None
        if (found.listen.address, found.listen.port) != where:
            log.warning("another address or port is listened to after a restart alone")
        now, first = found, generation * _MOST_RECEIVERS
        return [
            *(
                Child(f"receiver {n}", _receive, (now, listening, n), beside=True)
                for n in range(first, first + now.listen.processes)
            ),
            *(Child(f"worker {n}", _work, (now, _worker_name(n))) for n in range(workers)),
            Child("page", _show, (now,)),
        ]

    auditor = make_auditor(found, _secret(found))
    clear(found.spool / METERS)
    auditor.started()
    log.info("node started", port=found.listen.port)
    Supervisor(children, log).run()
    auditor.stopped()
    auditor.close()
    logs.stop()


@app.command()
def work(
    *,
    config: ConfigOption = Path("node.yaml"),
    name: Annotated[
        str, typer.Option(help="Of this worker: the same after a restart, and no other's.")
    ] = "",
) -> None:
    """Lock and deliver for a node whose queue is PostgreSQL and whose spool is shared."""
    check_node("the node needs")
    _work(_checked(config), name or _worker_name("work"))


def _checked_whole(path: Path) -> NodeConfig:
    """Read node.yaml, and look at everything that it names.

    Raises
    ------
    MedLockerError
        Something cannot be used.
    """
    from medlocker_dicom.node.checks import check_service  # noqa: PLC0415  the node's libraries

    found = _checked(path)
    check_service(found)
    return found


def _checked(path: Path) -> NodeConfig:
    """Read node.yaml, and look at what a worker uses of it.

    Raises
    ------
    MedLockerError
        Something cannot be used.
    """
    from medlocker_dicom.database import place_of  # noqa: PLC0415  SQLAlchemy
    from medlocker_dicom.node.checks import check_work  # noqa: PLC0415  the node's libraries
    from medlocker_dicom.node.config import load_config  # noqa: PLC0415  the same
    from medlocker_dicom.vault import people  # noqa: PLC0415  the same
    from medlocker_dicom.vault.vault import open_vault  # noqa: PLC0415  the same

    found = load_config(path)
    _place(found)
    issuer = read_private(found.issuer, found.issuer_passphrase_file)
    vault = open_vault(place_of(found.vault))
    try:
        with vault.reading() as connection:
            people.check_issuer(connection, issuer)
            for route in found.routes:
                for name in route.lock.recipients:
                    people.find_active(connection, name, "locked for")
    finally:
        vault.close()
    check_work(found)
    return found


def _place(config: NodeConfig) -> Place:
    from medlocker_dicom.database import place_of  # noqa: PLC0415  SQLAlchemy

    return place_of(config.database or str(config.spool / "queue.db"))


def _spool(config: NodeConfig) -> Spool:
    from medlocker_dicom.node.spool import Spool  # noqa: PLC0415  the node's libraries

    return Spool(config.spool, config.floor)


def _vault(config: NodeConfig) -> Vault:
    from medlocker_dicom.database import place_of  # noqa: PLC0415  SQLAlchemy
    from medlocker_dicom.vault.vault import open_vault  # noqa: PLC0415  the same

    return open_vault(place_of(config.vault))


def _worker_name(which: int | str) -> str:
    """Name a worker: those of `node run` have numbers, and `node work` beside them has none."""
    return f"{socket.gethostname()}-{which}"


def _log(config: NodeConfig, part: str) -> Log:
    """Set up this process's log."""
    from medlocker_dicom.node import logs  # noqa: PLC0415  the node's libraries

    logs.start(config, _secret(config))
    return logs.Log(part)


def _secret(config: NodeConfig) -> bytes:
    """Give the key of the hashes in log and audit trail; all processes have the same."""
    path = config.spool / "log.secret"
    if not path.exists():
        write_private(path, secrets.token_bytes(32))
    return path.read_bytes()


def _receive(config: NodeConfig, listening: socket.socket, number: int) -> None:
    """Be a receiver process."""
    from medlocker_dicom.node.audit import make_auditor  # noqa: PLC0415  its libraries
    from medlocker_dicom.node.commitment_service import service  # noqa: PLC0415  the same
    from medlocker_dicom.node.metrics import make_meters  # noqa: PLC0415  the same
    from medlocker_dicom.node.receiver import Receiver, serve  # noqa: PLC0415  the same
    from medlocker_dicom.node.workflows import open_ledger  # noqa: PLC0415  the same

    log = _log(config, "receiver")
    ledger = open_ledger(_place(config))
    auditor = make_auditor(config, _secret(config))
    further, meters = [service(ledger)], make_meters(config.spool / METERS)
    spool = _spool(config)
    serve(Receiver(config, spool, ledger, log, listening, number, further, auditor, meters))
    auditor.close()
    ledger.close()


def _work(config: NodeConfig, name: str) -> None:
    """Be a worker process, the one of its name."""
    with _spool(config).alone(name):
        _work_alone(config, name)


def _work_alone(config: NodeConfig, name: str) -> None:
    """Work until SIGTERM or SIGINT."""
    from medlocker_dicom.node.apart import Apart  # noqa: PLC0415  the node's libraries
    from medlocker_dicom.node.audit import make_auditor  # noqa: PLC0415  the node's libraries
    from medlocker_dicom.node.metrics import make_meters  # noqa: PLC0415  the same
    from medlocker_dicom.node.sender import Senders  # noqa: PLC0415  the node's libraries
    from medlocker_dicom.node.work import Work  # noqa: PLC0415  the same
    from medlocker_dicom.node.workflows import open_ledger, working  # noqa: PLC0415  the same

    log = _log(config, "worker")
    ended = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    spool, place = _spool(config), _place(config)
    ledger, locking = open_ledger(place), Apart(_lock, (config,))
    senders = Senders(config.destinations, config.listen.ae_title, spool.incoming)
    auditor, meters = make_auditor(config, _secret(config)), make_meters(config.spool / METERS)
    job = Work(lambda: config, spool, ledger, locking.call, senders, log, auditor, meters)
    with working(place, config, job, name, log):
        log.info("worker started")
        ended.wait()
        locking.close()
    senders.close()
    auditor.close()
    ledger.close()


def _lock(config: NodeConfig) -> Locking:
    """Begin to lock, in a process apart."""
    from medlocker_dicom.node.lockers import Lockers  # noqa: PLC0415  the engine
    from medlocker_dicom.node.locking import Locking  # noqa: PLC0415  the same
    from medlocker_dicom.node.workflows import open_ledger  # noqa: PLC0415  the node's libraries

    log, issuer = _log(config, "worker"), read_private(config.issuer, config.issuer_passphrase_file)
    lockers, ledger = Lockers(_vault(config), issuer), open_ledger(_place(config))
    return Locking(lambda: config, _spool(config), ledger, lockers, log)


def _show(config: NodeConfig) -> None:
    """Be the page's process."""
    from medlocker_dicom.node.audit import make_auditor  # noqa: PLC0415  its libraries
    from medlocker_dicom.node.metrics import make_meters  # noqa: PLC0415  the same
    from medlocker_dicom.node.page.actions import LedgerActions  # noqa: PLC0415  the same
    from medlocker_dicom.node.page.app import make_app  # noqa: PLC0415  the same
    from medlocker_dicom.node.page.serve import make_server  # noqa: PLC0415  the same
    from medlocker_dicom.node.probes import NodeProbes  # noqa: PLC0415  the same
    from medlocker_dicom.node.workflows import open_ledger  # noqa: PLC0415  the same

    log = _log(config, "page")
    ledger, spool, vault = open_ledger(_place(config)), _spool(config), _vault(config)
    folder = config.spool / METERS
    probes = NodeProbes(ledger, spool, make_meters(folder), folder)
    auditor = make_auditor(config, _secret(config))
    actions = LedgerActions(ledger, auditor)
    server = make_server(
        make_app(config, ledger, spool, vault, actions, probes, auditor), config.page
    )
    log.info("page started", port=config.page.port)
    server.run()
