"""What node.yaml names can be used: found out before a process needs it, and ends over it.

A reload with a fault changes nothing, so a fault has to be seen before anything is replaced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette

from medlocker_dicom.node import syslog
from medlocker_dicom.node.lockers import check_lock
from medlocker_dicom.node.page.login import read_credentials
from medlocker_dicom.node.page.serve import make_server
from medlocker_dicom.node.sender import Senders
from medlocker_dicom.node.tls import server_context

if TYPE_CHECKING:
    from medlocker_dicom.node.config import NodeConfig


def check_work(config: NodeConfig) -> None:
    """Check what workers use: models, logos, certificates and passwords for destinations, audit.

    Raises
    ------
    UsageError, LogoError, BundleError
        The first that cannot be used.
    """
    Senders(config.destinations, config.listen.ae_title, config.spool).check()
    for route in config.routes:
        check_lock(route.lock)
    if config.audit.syslog_host is not None:
        syslog.line_to(config.audit)


def check_service(config: NodeConfig) -> None:
    """Check what receivers and page use: certificates, and the password.

    Raises
    ------
    UsageError
        The first that cannot be used.
    """
    page = config.page
    if config.listen.tls is not None:
        server_context(config.listen.tls)
    if page.user is not None and page.password_file is not None:
        read_credentials(page.user, page.password_file)
    make_server(Starlette(), page)
