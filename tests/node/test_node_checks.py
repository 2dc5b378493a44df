"""`medlocker node check`: what node.yaml names is looked at before a process needs it."""

from typing import Any

import pytest
import yaml
from running_node import Node

from desk import Desk, refused
from medlocker_dicom.cli import node as commands
from medlocker_dicom.errors import DestinationError
from medlocker_dicom.node.spool import Spool

TLS = {"certificate": "none.crt", "key": "none.key", "authorities": "none.crt"}
ARCHIVE = {"kind": "dicom", "ae_title": "ARC", "host": "::1", "port": 4242}
RESEARCH = {"kind": "stow", "url": "https://research.example/dicom-web"}
LOCK = {"recipients": ["alice"], "models": ["dr_classifier_tiny"]}


@pytest.fixture
def node(owner: Desk) -> Node:
    return Node(owner, {"archive": ARCHIVE}, port=11112, page=8055)


def test_what_is_good(node: Node) -> None:
    """It says how many routes there are, and where they lead."""
    said = node.desk.good("node", "check", "--config", node.write()).out
    assert "1 routes to archive, in order" in said


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"listen": {"tls": TLS}}, 2, "none.crt: cannot be read"),
        ({"destinations": {"archive": ARCHIVE | {"tls": TLS}}}, 2, "none.crt: cannot be read"),
        (
            {"destinations": {"archive": RESEARCH | {"authorities": "none.crt"}}},
            2,
            "none.crt: holds no certificates",
        ),
        (
            {"destinations": {"archive": RESEARCH | {"user": "a", "password_file": "none"}}},
            2,
            "none: holds no password",
        ),
        ({"page": {"user": "a", "password_file": "none"}}, 2, "none: "),
        ({"page": {"certificate": "none.crt", "key": "none.key"}}, 2, "none.crt: no certificate"),
        ({"audit": {"syslog_host": "::1", "authorities": "none.crt"}}, 2, "none.crt: cannot be"),
        ({"lock": {"logo": "none.png"}}, 5, "none.png"),
        ({"lock": {"models": ["dr_classifier_none"]}}, 6, "dr_classifier_none"),
        ({"lock": {"strategy": "none"}}, 2, "none"),
        ({"lock": {"recipients": ["mallory"]}}, 2, "mallory"),
        ({"lock": {"look": "striped"}}, 2, "look 'striped' is unknown"),
        ({"vault": "none.db"}, 10, "none.db"),
        ({"issuer": "none.key"}, 7, "none.key"),
    ],
)
def test_what_is_not(node: Node, changes: dict[str, Any], code: int, words: str) -> None:
    """One error that names the file, or whatever it is; nothing is made."""
    lock = LOCK | changes.pop("lock", {})
    path = node.write()
    content = yaml.safe_load(path.read_bytes()) | changes
    content["routes"][0]["lock"] = lock
    path.write_text(yaml.safe_dump(content))
    assert words in refused(node.desk, code, "", "node", "check", "--config", path)
    assert not node.spool.exists()


def test_a_worker_without_a_name_has_none_of_the_nodes(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of one name would give each other's work back: the first of `node run` has another."""
    names: list[str] = []
    monkeypatch.setattr(commands, "_work", lambda _, name: names.append(name))
    path = node.write()
    node.desk.good("node", "work", "--config", path)
    node.desk.good("node", "work", "--config", path, "--name", "worker1")
    assert names[1] == "worker1"
    assert names[0] not in {commands._worker_name(number) for number in range(64)}


def test_a_second_worker_of_one_name_is_refused(node: Node) -> None:
    """Before it does anything: the two would take each other's work for their own."""
    path, spool = node.write(), Spool(node.spool, 0)
    spool.prepare()
    work = ("node", "work", "--config", path, "--name", "../worker1")
    with spool.alone("../worker1"), spool.alone("worker2"):
        assert "--name of its own" in refused(node.desk, 2, "is at work already", *work)
    with spool.alone("../worker1"):
        (one, _) = (node.spool / "workers").iterdir()
    assert one.stat().st_mode & 0o777 == 0o600
    nowhere = Spool(node.spool / "none", 0)
    with pytest.raises(DestinationError, match="cannot be written"), nowhere.alone("worker3"):
        pass
