"""What lies in pacs/ is held to the code, and to the programs that read it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
import yaml
from make_conformance import STATEMENT, TABLES, blocks, rendered
from pydantic import BaseModel, TypeAdapter
from pydicom import dcmread
from pydicom.uid import UID

import archives
from factories import make_fundus, save
from medlocker_dicom.dicom.capture import SERIES_DESCRIPTION
from medlocker_dicom.dicom.private import CREATOR
from medlocker_dicom.dicom.syntaxes import SOURCE_CLASSES
from medlocker_dicom.node.config import (
    DicomDestination,
    Listen,
    NodeConfig,
    StowDestination,
    load_config,
)
from test_readme import all_commands

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydicom.dataset import Dataset

    from desk import Desk

PACS = Path(__file__).parents[2] / "pacs"
NODE_YAML = (PACS / "node.yaml").read_text()
OPTIONAL = re.compile(r"^( *)#(?=[a-z_]+:|- )", re.MULTILINE)
KINDS: dict[str, type[BaseModel]] = {"dicom": DicomDestination, "stow": StowDestination}
PATIENCE_S = 60


def test_node_yaml_is_good_as_it_stands() -> None:
    """An administrator begins with a file that loads."""
    config = load_config(PACS / "node.yaml")
    assert list(config.destinations) == ["archive", "research"]
    assert config.routes[0].not_fundus == "hold"


def models() -> list[tuple[str, type[BaseModel], yaml.MappingNode]]:
    """Return each place of node.yaml, all keys taken in, with the model that it is of."""
    root = yaml.compose(OPTIONAL.sub(r"\1", NODE_YAML))
    assert isinstance(root, yaml.MappingNode)
    found: list[tuple[str, type[BaseModel], yaml.MappingNode]] = []
    waiting: list[tuple[str, type[BaseModel], yaml.Node]] = [("", NodeConfig, root)]
    while waiting:
        place, model, node = waiting.pop()
        assert isinstance(node, yaml.MappingNode), place
        found.append((place, model, node))
        for name, value in keys(node).items():
            if place == "" and name == "destinations":
                for key, one in keys(value).items():
                    kind = KINDS[keys(one)["kind"].value]
                    waiting.append((f"{name}.{key}", kind, one))
                continue
            if (inner := model_in(model.model_fields[name].annotation)) is None:
                continue
            items = value.value if isinstance(value, yaml.SequenceNode) else [value]
            waiting += [(f"{place}.{name}", inner, one) for one in items]
    return found


def keys(node: yaml.Node) -> dict[str, Any]:
    """Return a mapping's keys and nodes."""
    assert isinstance(node, yaml.MappingNode)
    return {key.value: value for key, value in node.value}


def model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model that an annotation is about, if it is about one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((one for part in get_args(annotation) if (one := model_in(part))), None)


def test_node_yaml_has_every_key_of_every_model() -> None:
    """Nothing that the configuration knows is missing, and nothing is there that it does not."""
    places = models()
    assert {model.__name__ for _, model, _ in places} == {
        "Audit",
        "DicomDestination",
        "Limits",
        "Listen",
        "Lock",
        "Log",
        "Match",
        "NodeConfig",
        "Page",
        "Peer",
        "Route",
        "StowDestination",
        "TLS",
    }
    wrong = [
        (place, sorted(set(keys(node)) ^ set(model.model_fields)))
        for place, model, node in places
        if place != ".listen.peers" and set(keys(node)) != set(model.model_fields)
    ]
    assert wrong == []


def test_node_yaml_says_every_default() -> None:
    """As the value of an optional key, or behind it in words: and as the code has it."""
    lines = OPTIONAL.sub(r"\1", NODE_YAML).split("\n")
    shown = 0
    for place, model, node in models():
        for key, value in node.value:
            field = model.model_fields[key.value]
            if field.is_required() or isinstance(field.default, BaseModel):
                continue
            comment = lines[key.start_mark.line].partition(" # ")[2]
            said = re.match(r"default: ([^,;]*)", comment)
            if field.default is None:
                assert said, f"{place}.{key.value}"
                assert said[1] == "none"
                continue
            text = said[1] if said else yaml.serialize(value)
            plain = yaml.safe_load(text)
            if place == ".listen.peers" and key.value == "addresses" and plain:
                continue  # an example
            assert field.annotation is not None
            read = TypeAdapter(field.annotation).validate_python(plain)
            assert read == field.default, f"{place}.{key.value}"
            shown += 1
    assert shown > 40


def test_the_conformance_statement_is_as_the_code() -> None:
    """Its tables are written anew and compared; `python tests/node/make_conformance.py`."""
    statement = STATEMENT.read_text()
    assert sorted(blocks(statement)) == sorted(TABLES)
    assert rendered(statement) == statement
    assert CREATOR in statement
    assert SERIES_DESCRIPTION in statement


def test_the_readme_names_every_file() -> None:
    """And no file that is not there."""
    table = re.findall(r"^\| (`[^|]*`) \|", (PACS / "README.md").read_text(), re.MULTILINE)
    named = {name for cell in table for name in re.findall(r"`([\w-]+\.?[\w]*)`", cell)}
    there = {path.name for path in PACS.iterdir()} - {"README.md"}
    assert there <= named


def test_the_readmes_commands_exist() -> None:
    """`medlocker ...` in the text, in a block or in a file beside it: such commands there are."""
    texts = [path.read_text() for path in PACS.iterdir() if path.name != "conformance.md"]
    called = {
        tuple(words.split())
        for text in texts
        for words in re.findall(
            r"medlocker ((?:node|vault|identity|recipient|bundles) [a-z-]+)", text
        )
    }
    assert len(called) > 8
    assert called - set(all_commands()) == set()


def test_the_readmes_certificates_are_good(tmp_path: Path) -> None:
    """Its commands, as they stand, make an authority and a certificate that names the node."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    blocks_of_code = re.findall(r"```\n(.*?)```", (PACS / "README.md").read_text(), re.DOTALL)
    (script,) = [block for block in blocks_of_code if "openssl" in block]
    subprocess.run(
        ["sh", "-e"], input=script.encode(), cwd=tmp_path, check=True, capture_output=True
    )
    words = ["openssl", "verify", "-CAfile", "ca.crt", "-verify_hostname", "node.hospital.example"]
    done = subprocess.run([*words, "node.crt"], cwd=tmp_path, check=False, capture_output=True)
    assert done.stdout == b"node.crt: OK\n"


@pytest.mark.parametrize("name", ["README.md", "conformance.md"])
def test_it_says_that_nothing_can_be_queried(name: str) -> None:
    """An administrator need not find out."""
    assert "C-FIND" in (PACS / name).read_text()
    assert "is no archive" in re.sub(r"\s+", " ", (PACS / name).read_text())


def test_the_readmes_metrics_exist() -> None:
    """What an administrator is told to watch is told by the node."""
    source = (PACS.parent / "medlocker_dicom" / "node" / "metrics.py").read_text()
    named = set(
        re.findall(
            r"`(?:rate\()?(medlocker_[a-z_]+?)(?:_total)?[`{\[]", (PACS / "README.md").read_text()
        )
    )
    assert len(named) > 7
    assert [name for name in named if f'"{name}"' not in source] == []


def test_compose_is_hardened() -> None:
    """Read-only, no privileges, secrets by file, no password in it, the queue not published."""
    compose = yaml.safe_load((PACS / "compose.yaml").read_text())
    assert set(compose["services"]) == {"node", "orthanc", "postgres"}
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service
        assert service["pids_limit"] <= 512
        assert service["restart"] == "unless-stopped"
        for secret in service["secrets"]:
            source = secret if isinstance(secret, str) else secret["source"]
            assert source in compose["secrets"]
        for key, value in service.get("environment", {}).items():
            assert "PASSWORD" not in key or key.endswith("_FILE"), key
            assert "://" not in value
    assert all(set(secret) == {"file"} for secret in compose["secrets"].values())
    assert compose["services"]["postgres"]["networks"] == ["queue"]
    assert compose["networks"]["queue"] == {"internal": True}
    assert "ports" not in compose["services"]["postgres"]


def test_compose_fits_the_other_files() -> None:
    """Ports, host names, titles and mounted files are those of node.yaml and orthanc.json."""
    compose = yaml.safe_load((PACS / "compose.yaml").read_text())["services"]
    orthanc = json.loads((PACS / "orthanc.json").read_text())
    config = load_config(PACS / "node.yaml")
    node = orthanc["DicomModalities"]["medlocker"]
    assert (node["AET"], node["Port"]) == (config.listen.ae_title, config.listen.port)
    assert node["Host"] in compose
    assert orthanc["DicomAet"] in {peer.ae_title for peer in config.listen.peers}
    assert f"{config.listen.port}:{config.listen.port}" in compose["node"]["ports"]
    assert f"{orthanc['DicomPort']}:{orthanc['DicomPort']}" in compose["orthanc"]["ports"]
    assert "@postgres/medlocker" in NODE_YAML
    assert str(config.page.port) in compose["node"]["healthcheck"]["test"][-1]
    for service in compose.values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            if source.startswith("./") and source != "./tls":
                assert (PACS / source).is_file()
    assert "RegisteredUsers" not in orthanc  # a password belongs into a file of its own
    assert orthanc["AuthenticationEnabled"] is True


def test_the_image_is_made_of_what_is_there() -> None:
    """Each file that is copied exists; it does not run as root."""
    lines = (PACS / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]
    assert copied
    assert all((PACS.parent / name).exists() for name in copied)
    assert "USER 10001:10001" in lines


UNITS = ("medlocker-node.service", "medlocker-backup.service", "medlocker-backup.timer")


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say, but for the program that is not installed."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    units = [tmp_path / name for name in UNITS]
    for unit in units:
        text = (PACS / unit.name).read_text()
        unit.write_text(re.sub(r"=/opt/medlocker/bin/medlocker\b.*", "=/bin/true", text))
    done = subprocess.run([program, "verify", *units], capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).splitlines()
    assert [line for line in said if any(name in line for name in UNITS)] == []


def test_the_backup_unit_copies_and_tidies(owner: Desk) -> None:
    """Its own words, as its shell gets them: a copy that is sound; others thin out with age."""
    copies = owner / "copies"
    copies.mkdir()
    hours = [
        datetime(2026, 1, 1, 0, 3, 20, tzinfo=UTC) + timedelta(hours=n) for n in range(24 * 70)
    ]
    names = [f"vault-{one:%Y%m%dT%H%M%SZ}.db" for one in hours]
    others = {"other.db", "vault-of-last-year.db"}
    for name in [*names, *others, ".vault-20260101T000000Z.db.x1y2.part"]:
        (copies / name).write_bytes(b"")
    text = (PACS / "medlocker-backup.service").read_text()
    program = f"{sys.executable} -m medlocker_dicom.cli.main"
    vault = owner / "data" / "medlocker" / "vault.db"
    for script in re.findall(r"^ExecStart(?:Pre)?=/bin/sh -ec '(.*)'$", text, re.MULTILINE):
        words = script.replace("/opt/medlocker/bin/medlocker", program).replace("%%", "%")
        environment = os.environ | {"VAULT": str(vault), "COPIES": str(copies)}
        subprocess.run(["/bin/sh", "-ec", words], env=environment, check=True)
    (copy,) = (one for one in copies.glob("vault-2*.db") if one.name not in names)
    daily = list({name[:14]: name for name in names[:-48]}.values())[-60:]
    assert {one.name for one in copies.iterdir()} == {copy.name, *names[-48:], *daily, *others}
    assert "all in order" in owner.good("vault", "check", "--vault", copy).out


def test_the_units_hardening_does_not_erode() -> None:
    """Each of these was decided; who takes one away changes this line too."""
    families = ("AF_INET AF_INET6 AF_UNIX", "AF_UNIX")
    for unit, allowed in zip(UNITS[:2], families, strict=True):
        text = (PACS / unit).read_text()
        for line in (
            "NoNewPrivileges=yes",
            "ProtectSystem=strict",
            "ProtectHome=yes",
            "PrivateTmp=yes",
            "CapabilityBoundingSet=",
            "SystemCallFilter=@system-service",
            f"RestrictAddressFamilies={allowed}",
            "UMask=0077",
        ):
            assert f"\n{line}\n" in text, unit


def test_the_rule_names_the_classes_of_the_code() -> None:
    """Orthanc routes what the node locks, and knows the node's series by its description."""
    lua = (PACS / "route-to-node.lua").read_text()
    assert set(re.findall(r"\['([0-9.]+)'\] = true", lua)) == set(SOURCE_CLASSES)
    assert f"'{SERIES_DESCRIPTION}'" in lua
    assert f"'{Listen().ae_title}'" in lua


@contextmanager
def hospital(folder: Path, port: int) -> Iterator[archives.Archive]:
    """Run Orthanc by pacs/orthanc.json, with ports and folders of a test, the node at `port`."""
    shutil.copy(PACS / "route-to-node.lua", folder)
    settings = json.loads((PACS / "orthanc.json").read_text())
    for key in ("StorageDirectory", "IndexDirectory", "HttpPort", "DicomPort"):
        del settings[key]
    settings["DicomModalities"]["medlocker"] |= {"Host": "127.0.0.1", "Port": port, "Timeout": 2}
    settings["RegisteredUsers"] = {"admin": "test"}
    with archives.orthanc_in(folder, **settings) as archive:
        yield archive


def until(condition: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    """Wait for something that Orthanc does."""
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def jobs(archive: archives.Archive) -> list[str]:
    """Return the states of Orthanc's transfers."""
    return sorted(one["State"] for one in archive.json("/jobs?expand"))


def store(peer: Callable[[str], Callable[..., str]], port: int, *paths: Path, caller: str) -> None:
    """Send objects to Orthanc with DCMTK."""
    peer("storescu")("-R", "-aet", caller, "-aec", "ORTHANC", "127.0.0.1", str(port), *paths)


def eye(folder: Path, number: int, **values: str) -> Dataset:
    """Write an object, and return it."""
    ds = make_fundus(instance_uid=f"1.2.826.0.1.3680043.10.1.3.{number}")
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    if "SOPClassUID" in values:
        ds.file_meta.MediaStorageSOPClassUID = UID(values["SOPClassUID"])
    save(ds, folder, f"{number}.dcm")
    return ds


def test_orthanc_routes_photographs_to_the_node(
    peer: Callable[[str], Callable[..., str]], tmp_path: Path
) -> None:
    """Photographs, unchanged; nothing of another class, of the node's making, or from the node."""
    peer("Orthanc")
    peer("storescp")
    sources, orthanc, node = (tmp_path / name for name in ("sources", "orthanc", "node"))
    for folder in (sources, orthanc, node):
        folder.mkdir()
    sent = eye(sources, 1)
    eye(sources, 2, SeriesDescription=SERIES_DESCRIPTION)
    eye(sources, 3, SOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.1")  # VL Endoscopic
    eye(sources, 4)
    paths = sorted(sources.iterdir())
    with (
        archives.storescp_in(node, "-aet", "MEDLOCKER", "+xa") as port,
        hospital(orthanc, port) as archive,
    ):
        store(peer, archive.dicom, *paths[1:3], caller="CAMERA")
        store(peer, archive.dicom, paths[3], caller="MEDLOCKER")
        store(peer, archive.dicom, paths[0], caller="CAMERA")
        until(lambda: jobs(archive) == ["Success"])
        assert len(archive.json("/instances")) == 4
    (arrived,) = (dcmread(path) for path in node.iterdir())
    assert arrived.SOPInstanceUID == sent.SOPInstanceUID
    assert arrived.PixelData == sent.PixelData


def test_orthanc_repeats_what_the_node_did_not_take(
    peer: Callable[[str], Callable[..., str]], tmp_path: Path
) -> None:
    """Sent while the node is away: it fails, and arrives when the next one gets through."""
    peer("Orthanc")
    peer("storescp")
    sources, orthanc, node = (tmp_path / name for name in ("sources", "orthanc", "node"))
    for folder in (sources, orthanc, node):
        folder.mkdir()
    for number in range(4):
        eye(sources, number)
    paths = sorted(sources.iterdir())
    port = archives.free_port()
    with hospital(orthanc, port) as archive:
        store(peer, archive.dicom, *paths[:3], caller="CAMERA")
        until(lambda: set(jobs(archive)) == {"Failure"})
        time.sleep(6)  # WAIT of the script
        with archives.storescp_in(node, "-aet", "MEDLOCKER", port=port):
            store(peer, archive.dicom, paths[3], caller="CAMERA")
            until(lambda: set(jobs(archive)) == {"Success"})
    assert len(list(node.iterdir())) == 4
