"""Foreign archives that run for a test: Orthanc, and DCMTK's storescp."""

import base64
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 30  # s for an archive to start or to stop
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@dataclass(frozen=True)
class Archive:
    """A running Orthanc on this machine: ports of its REST API and of its DICOM node."""

    http: int
    dicom: int
    login: dict[str, str] = field(default_factory=dict)

    def rest(self, path: str, body: bytes | None = None, method: str | None = None) -> bytes:
        """Answer a GET, with a body a POST, or the method named."""
        url = f"http://127.0.0.1:{self.http}{path}"
        request = urllib.request.Request(url, body, self.login, method=method)
        with DIRECT.open(request, timeout=PATIENCE) as answer:
            data: bytes = answer.read()
        return data

    def json(self, path: str, body: bytes | None = None) -> Any:
        """Answer as `rest`, decoded."""
        return json.loads(self.rest(path, body))

    def file_of(self, sop_uid: str) -> bytes:
        """Return the file of the one instance of that SOP Instance UID."""
        (name,) = self.json("/tools/lookup", sop_uid.encode())
        return self.rest(f"/instances/{name['ID']}/file")

    def empty(self) -> None:
        """Delete everything."""
        for patient in self.json("/patients"):
            self.rest(f"/patients/{patient}", method="DELETE")


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def _program(arguments: Sequence[str | Path], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program; stop it in the end."""
    with log.open("wb") as stream:
        process = subprocess.Popen(arguments, stdout=stream, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _path_of(name: str) -> str:
    program = shutil.which(name, path="/usr/bin:/usr/sbin:" + os.environ["PATH"])
    assert program is not None
    return program


@contextmanager
def orthanc_in(folder: Path, **more: Any) -> Iterator[Archive]:
    """Run an Orthanc that takes what it is sent; `more` are settings of its own."""
    users = more.get("RegisteredUsers", {})
    login = {}
    for name, password in users.items():
        pair = base64.b64encode(f"{name}:{password}".encode()).decode()
        login = {"Authorization": f"Basic {pair}"}
    archive = Archive(free_port(), free_port(), login)
    settings = {
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "HttpPort": archive.http,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": bool(users),
        "DicomAet": "ORTHANC",
        "DicomPort": archive.dicom,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowGet": True,
        "Plugins": [],
    } | more
    (folder / "orthanc.json").write_text(json.dumps(settings))
    log = folder / "log.txt"
    with _program([_path_of("Orthanc"), folder / "orthanc.json"], log) as process:
        _wait_until_up(archive, process, log)
        yield archive


def _wait_until_up(archive: Archive, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Return when the REST API answers; fail with the log where it never does."""
    for _ in range(10 * PATIENCE):
        if process.poll() is not None:
            break
        try:
            archive.rest("/system")
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"Orthanc does not answer\n{log.read_text()}")


@contextmanager
def storescp_in(folder: Path, *options: str | Path, port: int = 0) -> Iterator[int]:
    """Run DCMTK's storescp, which keeps what it takes in `folder`; give its port."""
    port = port or free_port()
    folder.mkdir(exist_ok=True)
    arguments = [_path_of("storescp"), "+B", "-od", folder, *options, str(port)]
    with _program(arguments, folder.with_suffix(".log")) as process:
        for _ in range(10 * PATIENCE):
            with socket.socket() as probe:
                if process.poll() is not None or probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        assert process.poll() is None, folder.with_suffix(".log").read_text()
        yield port
