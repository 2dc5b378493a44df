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


def written(folder: Path, **changes: object) -> Path:
    """Write a configuration."""
    path = folder / "node.yaml"
    path.write_text(yaml.safe_dump(GOOD | changes))
    return path


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    """Whoever starts it, wherever: the spool is where the file says."""
    config = load_config(written(tmp_path))
    assert config.spool == tmp_path / "spool"
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
        ({"destinations": {"../x": GOOD["destinations"]["archive"]}}, "cannot be a"),  # type: ignore[index]
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


@pytest.mark.parametrize(
    "content",
    [b"\xff", b"a: [", b"[1, 2]", b"", b"- !!python/object:os.system {}", b"x" * (2 << 20)],
)
def test_what_is_no_configuration(tmp_path: Path, content: bytes) -> None:
    """Bytes, broken YAML, a list, nothing, an object of Python's, too much."""
    path = tmp_path / "node.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"node\.yaml"):
        load_config(path)
    with pytest.raises(UsageError, match="cannot be read"):
        load_config(tmp_path / "none.yaml")
