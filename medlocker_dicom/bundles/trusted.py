"""The code of a bundle that whoever runs the program trusts by name, and no other code."""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from medlocker_dicom.errors import BundleFormatError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

#: What a network may be written in: modules, and the configurations that MONAI reads.
SUFFIXES = (".py", ".json", ".yaml", ".yml")


def code_digest(root: Path) -> str:
    """Hex digest of every module and configuration in a bundle's folder, and of their names."""
    digests = {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.suffix in SUFFIXES and path.is_file()
    }
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()


def evaluated_network(root: Path) -> nn.Module:
    """Build a network as MONAI does, with the bundle's own modules at hand.

    Raises
    ------
    BundleFormatError
        ``network_def`` gives something else.
    Exception
        Whatever the bundle's code raises.
    """
    from monai.bundle.config_parser import ConfigParser  # noqa: PLC0415  for trusted bundles alone

    parser = ConfigParser()
    parser.read_config(str(root / "configs" / "inference.json"))
    parser["bundle_root"] = str(root)
    with _modules_of(root.absolute()):
        network = parser.get_parsed_content("network_def")
    if not isinstance(network, nn.Module):
        raise BundleFormatError(f"{root}: network_def gives no network")
    return network


@contextmanager
def _modules_of(root: Path) -> Iterator[None]:
    """Let imports find a bundle's modules as they stand in its folder, for a while.

    Bundles have modules of the same names, and a module may change while the program runs:
    none stays for an import after this one. Bytecode is neither read nor left behind, since it
    need not be that of the source beside it, which is what was read before it was trusted.
    """
    before, path = set(sys.modules), str(root)
    bytecode = sys.dont_write_bytecode, sys.pycache_prefix
    sys.dont_write_bytecode, sys.pycache_prefix = True, str(root / "no-bytecode")
    sys.path.insert(0, path)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(path)
        sys.dont_write_bytecode, sys.pycache_prefix = bytecode
        for name in set(sys.modules) - before:
            if _lies_in(sys.modules[name], root):
                del sys.modules[name]


def _lies_in(module: ModuleType, root: Path) -> bool:
    """Tell whether a module, or a part of a package without code, comes from a folder."""
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return any(Path(place).is_relative_to(root) for place in places if place)
