"""What locking, models and the vault need beyond a recipient's install."""

from __future__ import annotations

from importlib.util import find_spec

from medlocker_dicom.errors import UsageError

#: Imported by every command that looks at photographs.
ENGINE = ("PIL", "cv2", "monai", "onnx", "onnxruntime", "torch")


#: Imported by every command that opens the vault.
VAULT = ("alembic", "sqlalchemy")


#: Imported by every command of the node, beside the engine's.
NODE = (
    "alembic",
    "dbos",
    "prometheus_client",
    "pydantic",
    "pynetdicom",
    "sqlalchemy",
    "starlette",
    "structlog",
    "urllib3",
    "uvicorn",
    "yaml",
)


def check_node(what_needs: str) -> None:
    """Say what to install where the node's libraries are missing; else as `check_engine`."""
    _check(what_needs, (*ENGINE, *NODE), "node")


def check_evaluation(what_needs: str) -> None:
    """Say what to install where the evaluation's libraries are missing; else as `check_engine`."""
    _check(what_needs, (*ENGINE, "matplotlib", "skimage", "sklearn"), "demo")


def check_vault(what_needs: str) -> None:
    """Say what to install where the vault's libraries are missing; else as `check_engine`."""
    _check(what_needs, VAULT, "vault")


def check_engine(what_needs: str, *further: str) -> None:
    """Say what to install where libraries are missing.

    Parameters
    ----------
    what_needs
        First words of the error, such as ``locking needs``.
    further
        Libraries beside ``ENGINE``.

    Raises
    ------
    UsageError
        Some are missing.
    """
    _check(what_needs, (*ENGINE, *further), "engine")


def _check(what_needs: str, names: tuple[str, ...], extra: str) -> None:
    missing = [name for name in sorted(names) if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"{what_needs} {', '.join(missing)}", f"pip install 'medlocker-dicom[{extra}]'"
        )
