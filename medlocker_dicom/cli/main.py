"""The medlocker command.

Exit codes: 0 done; 2 unusable option or argument; 3 some files failed, the others are
done; 4 the source cannot be locked; 5 the logo cannot be placed; 6 a model is missing or
damaged; 7 a key is refused; 8 a locked object cannot be unlocked; 9 results cannot be
written; 10 the vault cannot be used; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import warnings
from io import TextIOWrapper
from typing import Annotated

try:
    import typer

    from medlocker_dicom import __version__
    from medlocker_dicom.cli import (
        adopt,
        bundles,
        demo,
        evaluate,
        grant,
        identity,
        inspect,
        lock,
        node,
        recipient,
        restore,
        unlock,
        vault,
    )
    from medlocker_dicom.cli.guard import Guarded
except KeyboardInterrupt:  # while libraries load; from then on it is the guard's
    sys.exit(130)

# Threads of torch wait for one another by spinning, for milliseconds, in the way of what else runs
# on the machine. So short a spin is hardly slower alone, and far faster beside another lock.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

app = typer.Typer(
    cls=Guarded,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Lock fundus photographs against unauthorised AI, and give them back bit by bit.",
    epilog=" ".join((__doc__ or "").partition("\n\n")[2].split()),
)
app.add_typer(identity.app, name="identity")
app.command("lock")(lock.lock)
app.command("unlock")(unlock.unlock)
app.command("verify")(unlock.verify)
app.command("inspect")(inspect.inspect)
app.command("demo")(demo.demo)
app.add_typer(recipient.app, name="recipient")
app.add_typer(grant.app, name="grant")
vault.app.command("restore")(restore.restore)
vault.app.command("adopt")(adopt.adopt)
app.add_typer(vault.app, name="vault")
app.add_typer(node.app, name="node")
app.add_typer(bundles.app, name="bundles")
app.add_typer(evaluate.app, name="evaluate")


def _version(wanted: bool) -> None:  # noqa: FBT001  typer's callback signature
    if wanted:
        sys.stdout.write(f"medlocker {__version__}\n")
        raise typer.Exit


@app.callback()
def main(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Lock fundus photographs against unauthorised AI, and give them back bit by bit."""


def run() -> None:
    """Entry point."""
    # What is wrong with a file is said once, in our words and without its control characters.
    warnings.filterwarnings("ignore", module="pydicom")
    if isinstance(sys.stdout, TextIOWrapper):  # a file name need not have an encoding
        sys.stdout.reconfigure(errors="backslashreplace")
    app(prog_name="medlocker")


if __name__ == "__main__":
    run()
