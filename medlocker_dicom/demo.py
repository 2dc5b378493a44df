"""The demonstration: lock two eyes for two recipients, unlock as one, refuse a third."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from medlocker_dicom.dicom.fundus import read_fundus
from medlocker_dicom.dicom.locked import read_locked
from medlocker_dicom.dicom.photograph import photograph, uids_for
from medlocker_dicom.dicom.writing import to_bytes
from medlocker_dicom.errors import KeyRefusedError, MedLockerError, PixelsChangedError
from medlocker_dicom.files import write_file
from medlocker_dicom.folder.keys import Keys, read_keys
from medlocker_dicom.folder.lock import LockRun
from medlocker_dicom.folder.unlock import unlock_folder, verify_folder
from medlocker_dicom.keyfile import Identity, dump_identity, dump_public
from medlocker_dicom.keyfile.identity_file import create_identity
from medlocker_dicom.phantom import phantom
from medlocker_dicom.pipeline.lock import Locker
from medlocker_dicom.pipeline.models import load_models
from medlocker_dicom.pipeline.policy import Policy
from medlocker_dicom.watermark.png import default_logo

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

SEED = 7
PHANTOM_SIZE = (1024, 1024)
PEOPLE = ("alice", "bob", "custodian", "mallory")

mpl.use("Agg")


@dataclass(frozen=True)
class Shown:
    """One eye of the report.

    Attributes
    ----------
    name
        File name.
    original, locked, unlocked
        uint8 (H, W, 3).
    facts
        Its frame's record from ``lock.json``.
    """

    name: str
    original: NDArray[np.uint8]
    locked: NDArray[np.uint8]
    unlocked: NDArray[np.uint8]
    facts: dict[str, object]


def run_demo(out: Path, say: Callable[[str], None]) -> Path:
    """Run the demonstration.

    Parameters
    ----------
    out
        Folder that gets ``source/``, ``people/``, ``locked/``, ``unlocked/`` and ``report.html``.
    say
        Gets a line for each step.

    Returns
    -------
    Path
        The report.

    Raises
    ------
    MedLockerError
        A step did not do what it promises.
    """
    people = {name: Identity.generate(name=name) for name in (*PEOPLE, "issuer")}
    for name, identity in people.items():
        _save(out / "people", name, identity)
    say(f"made identities for {', '.join(people)}")
    for name, pixels in _eyes(say):
        write_file(out / "source" / name, _wrap(name, pixels))
    say(f"wrapped {len(list((out / 'source').iterdir()))} photographs as Ophthalmic Photography")

    ensemble, segmenter = load_models([])
    locker = Locker(
        Policy(),
        ensemble,
        segmenter.lesions,
        default_logo(),
        people["issuer"],
        tuple(people[name].public for name in PEOPLE[:3]),
    )
    run = LockRun(out / "source", out / "locked", locker, PEOPLE[:3], segmenter.bundle)
    for item in run.items():
        if item.error:
            raise item.error
        say(f"locked {item.path}")
    _unlock_as_alice(out, people["alice"], say)
    _refuse(out, people, say)
    report = out / "report.html"
    write_file(report, _report(out).encode())
    say(f"report with pictures: {report}")
    return report


def _save(folder: Path, name: str, identity: Identity) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    create_identity(folder / f"{name}.key", dump_identity(identity, None))
    write_file(folder / f"{name}.key.pub", dump_public(identity.public))


def _eyes(say: Callable[[str], None]) -> list[tuple[str, NDArray[np.uint8]]]:
    """Give a real photograph where scikit-image is installed, and a phantom with lesions."""
    drawn = phantom(np.random.default_rng(SEED), PHANTOM_SIZE)
    eyes = [("phantom-with-lesions.dcm", drawn.image)]
    try:
        from skimage.data import retina  # noqa: PLC0415  the demo extra; absent is no error
    except ModuleNotFoundError:
        say("scikit-image is not installed: the demo goes on without its photograph")
        return eyes
    picture = retina()  # type: ignore[no-untyped-call]  # scikit-image ships no types
    return [("retina-photograph.dcm", np.asarray(picture, np.uint8)), *eyes]


def _wrap(name: str, pixels: NDArray[np.uint8]) -> bytes:
    root = b"medlocker demonstration"
    return to_bytes(
        photograph(
            pixels,
            patient_name="Demo^Eye",
            patient_id="DEMO-1",
            laterality="L",
            **uids_for(root, name),
            instance_number=1 if name.startswith("retina") else 2,
            taken=datetime(2026, 1, 15, 9, 30, tzinfo=UTC),
        )
    )


def _unlock_as_alice(out: Path, alice: Identity, say: Callable[[str], None]) -> None:
    keys = read_keys(alice, [out / "locked" / "keys" / "alice.mlkey"])
    for item in unlock_folder(out / "locked", out / "unlocked", keys):
        if item.error:
            raise item.error
        before = read_fundus(out / "source" / item.path).pixels
        after = read_fundus(out / "unlocked" / item.path).pixels
        if not np.array_equal(before, after):
            raise MedLockerError(f"{item.path}: unlocked pixels differ from the original")
        say(f"unlocked {item.path} as alice: all {before.size} samples equal the original")


def _refuse(out: Path, people: dict[str, Identity], say: Callable[[str], None]) -> None:
    """Show that a stranger and a changed pixel are refused."""
    key = out / "locked" / "keys" / "alice.mlkey"
    try:
        read_keys(people["mallory"], [key])
    except KeyRefusedError as error:
        say(f"refused mallory: {error}")
    else:
        raise MedLockerError("mallory was not refused")
    stolen = Keys(people["mallory"], read_keys(people["alice"], [key]).keyfiles)
    if not all(item.error for item in verify_folder(out / "locked", stolen)):
        raise MedLockerError("mallory opened a grant of alice's")
    say("refused mallory with alice's key file: its grants open for alice alone")
    name = min(path.name for path in (out / "locked").glob("*.dcm"))
    data = bytearray((out / "locked" / name).read_bytes())
    data[len(data) // 2] ^= 1  # uncompressed pixels are most of the file
    write_file(out / "tampered" / name, bytes(data))
    (item,) = verify_folder(out / "tampered", read_keys(people["alice"], [key]))
    if not isinstance(item.error, PixelsChangedError):
        raise MedLockerError("a changed pixel was not refused")
    say(f"refused one flipped bit: {item.error}")


def _report(out: Path) -> str:
    record = json.loads((out / "locked" / "lock.json").read_bytes())
    rows = []
    for instance in record["instances"]:
        name = instance["path"]
        shown = Shown(
            name,
            read_fundus(out / "source" / name).display(0),
            read_locked(out / "locked" / name).pixels[0].astype(np.uint8),
            read_fundus(out / "unlocked" / name).display(0),
            instance["frames"][0],
        )
        rows.append({"name": name, "frame": shown.facts, "figure": _figure(shown)})
    environment = Environment(
        loader=PackageLoader("medlocker_dicom.folder", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("demo.html").render(rows=rows)


def _figure(shown: Shown) -> str:
    """Six panels as base64 PNG: original, boxes, history, locked, unlocked, difference."""
    from matplotlib.figure import Figure  # noqa: PLC0415  after the backend is chosen
    from matplotlib.patches import Rectangle  # noqa: PLC0415  the same

    figure = Figure(figsize=(12, 8.2), layout="constrained")
    axes = figure.subplots(2, 3)
    pictures = (
        (axes[0, 0], shown.original, "original"),
        (axes[0, 1], shown.original, "lesion boxes that the logo must not touch"),
        (axes[1, 0], shown.locked, "locked"),
        (axes[1, 1], shown.unlocked, "unlocked by alice"),
        (axes[1, 2], _difference(shown), "unlocked minus original (all zero: black)"),
    )
    for axis, picture, title in pictures:
        axis.imshow(picture)
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
    facts: dict[str, object] = shown.facts
    for x, y, width, height in np.asarray(facts["boxes"], int).reshape(-1, 4).tolist():
        axes[0, 1].add_patch(Rectangle((x, y), width, height, fill=False, color="white", lw=1.2))
    history = np.asarray(facts["history"], float)
    passes = np.append(history[:, 0], float(str(facts["forward_passes"])))
    axes[0, 2].step(passes, np.append(history[:, 1], history[-1, 1]), where="post")
    axes[0, 2].set(xlabel="forward passes", ylabel=f"P(grade {facts['label']})", ylim=(0, 1))
    axes[0, 2].set_title("search", fontsize=10)
    stream = BytesIO()
    figure.savefig(stream, dpi=100, format="png")
    return base64.b64encode(stream.getvalue()).decode()


def _difference(shown: Shown) -> NDArray[np.uint8]:
    apart = np.abs(shown.unlocked.astype(int) - shown.original.astype(int))
    visible: NDArray[np.uint8] = np.clip(apart * 16, 0, 255).astype(np.uint8)
    return visible
