"""node.yaml: read whole or refused with one clear error."""

from pathlib import Path

import pytest
import yaml

from medlocker_dicom.errors import UsageError
from medlocker_dicom.node.config import load_config

GOOD = {
    "spool": "spool",
    "vault": "vault.db",
    "issuer": "issuer.key",
    "destinations": {"archive": {"kind": "dicom", "ae_title": "ARC", "host": "::1", "port": 4242}},
    "routes": [{"name": "all", "lock": {"recipients": ["alice"]}, "destinations": ["archive"]}],
}


ARCHIVE = GOOD["destinations"]["archive"]  # type: ignore[index]
RESEARCH = {"kind": "stow", "url": "https://research.example/dicom-web"}


def written(folder: Path, **changes: object) -> Path:
    """Write a configuration."""
    path = folder / "node.yaml"
    path.write_text(yaml.safe_dump(GOOD | changes))
    return path


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    """Whoever starts it, wherever: the spool is where the file says."""
    config = load_config(written(tmp_path))
    assert config.spool == tmp_path / "spool"
    assert config.vault == str(tmp_path / "vault.db")
    assert load_config(written(tmp_path, database="q.db")).database == str(tmp_path / "q.db")
    url = "postgresql://medlocker@postgres/medlocker"
    assert load_config(written(tmp_path, database=url)).database == url
    assert config.listen.address == "127.0.0.1"
    assert config.routes[0].not_fundus == config.routes[0].not_lockable == "hold"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"spol": 1}, "spol: extra inputs"),
        ({"routes": []}, "routes: "),
        ({"routes": [GOOD["routes"][0] | {"not_fundus": "forward"}]}, "routes.0.not_fundus: "),  # type: ignore[index]
        ({"routes": [GOOD["routes"][0] | {"destinations": ["x"]}]}, "x is no destination"),  # type: ignore[index]
        ({"routes": [GOOD["routes"][0], GOOD["routes"][0]]}, "two routes"),  # type: ignore[index]
        ({"listen": {"ae_title": "FAR TOO LONG A TITLE"}}, "listen.ae_title: an AE title"),
        ({"listen": {"ae_title": "A\\B"}}, "listen.ae_title: an AE title"),
        ({"listen": {"further_classes": ["1.2.03"]}}, "listen.further_classes.0: "),
        ({"listen": {"peers": [{"ae_title": "A", "addresses": ["10.0.0.1/8"]}]}}, "addresses.0"),
        ({"listen": {"peers": [{"ae_title": "A", "host": "a"}]}}, "host and port belong together"),
        ({"page": {"address": "0.0.0.0"}}, "page: a page that others reach needs user"),
        ({"page": {"user": "eve"}}, "page: user and password_file belong together"),
        ({"audit": {"file": "a", "syslog_host": "b"}}, "audit: "),
        ({"vault": None}, "vault: "),
        ({"destinations": {"../x": ARCHIVE}}, "cannot be a"),
        ({"spool": "~nobody-of-this-name/x"}, "spool: begins with the home of somebody"),
        ({"issuer": "a\0b"}, "issuer: is no path"),
        ({"issuer": 7}, "issuer: is no path"),
        ({"vault": " "}, "vault: is no path"),
        ({"keep_hours": float("inf")}, "keep_hours: "),
        ({"keep_hours": float("nan")}, "keep_hours: "),
        ({"lock_minutes": 0}, "lock_minutes: "),
        ({"listen": {"largest": 0}}, "listen.largest: "),
        ({"routes": [GOOD["routes"][0] | {"name": "x" * 9999}]}, "xxx..."),  # type: ignore[index]
        (
            {"destinations": {"a": ARCHIVE | {"host": "archive..example"}}},
            "is no name or address",
        ),
        ({"destinations": {"a": ARCHIVE | {"host": "http://archive"}}}, "is no name or address"),
        ({"destinations": {"a": ARCHIVE | {"limits": {"per_minute": 10**30}}}}, "per_minute: "),
        ({"destinations": {"a": RESEARCH | {"url": "https://u:p@a/b"}}}, "a password belongs into"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    """One error, with the file, the place in it, and no value (a value may be a secret)."""
    path = written(tmp_path, **changes)
    with pytest.raises(UsageError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 400


@pytest.mark.parametrize(
    "content",
    [
        b"\xff",
        b"a: [",
        b"[1, 2]",
        b"",
        b"- !!python/object:os.system {}",
        b"x" * (2 << 20),
        b"spool: 2026-13-45",
        b"spool: !!timestamp tomorrow",
        b"spool: !!int ''",
        b"spool: " + b"9" * 5000,
        b"&a [*a]",
    ],
)
def test_what_is_no_configuration(tmp_path: Path, content: bytes) -> None:
    """Bytes, broken YAML, a list, nothing, an object of Python's, too much, no date, no number."""
    path = tmp_path / "node.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"node\.yaml"):
        load_config(path)
    with pytest.raises(UsageError, match="cannot be read"):
        load_config(tmp_path / "none.yaml")


def test_a_key_that_is_there_twice(tmp_path: Path) -> None:
    """Two archives of one name: neither is forgotten without a word."""
    path = written(tmp_path)
    text = path.read_text().replace("    port: 4242\n", "    port: 4242\n  archive: {}\n")
    path.write_text(text)
    with pytest.raises(UsageError, match=r"node\.yaml:7: is no YAML: a key is there twice"):
        load_config(path)
