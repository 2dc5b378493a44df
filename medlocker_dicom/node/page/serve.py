"""How the page is served: uvicorn, with TLS where node.yaml names a certificate."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

import uvicorn

from medlocker_dicom.errors import UsageError

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from medlocker_dicom.node.config import Page

_MOST_CONNECTIONS: Final = 200


def make_server(app: Starlette, page: Page) -> uvicorn.Server:
    """Make a server; ``run()`` serves until it is told to end by a signal or ``should_exit``.

    Raises
    ------
    UsageError
        Certificate or key cannot be used.
    """
    config = uvicorn.Config(
        app,
        host=page.address,
        port=page.port,
        log_config=None,
        access_log=False,
        proxy_headers=False,  # an address that a client names itself would get round the tries
        server_header=False,
        date_header=True,
        lifespan="off",
        ws="none",
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=2,  # streams of events never end by themselves
        ssl_certfile=page.certificate,
        ssl_keyfile=page.key,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"{page.certificate}: no certificate with its key: {error}") from error
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    return uvicorn.Server(config)
