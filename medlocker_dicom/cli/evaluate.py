"""medlocker evaluate: how strong the lock is, and what attacks leave of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medlocker_dicom.cli.bundles import BundleFolder, TrustBundle
from medlocker_dicom.cli.engine import check_evaluation
from medlocker_dicom.cli.guard import plain
from medlocker_dicom.cli.progress import counting
from medlocker_dicom.errors import UsageError
from medlocker_dicom.evaluation.names import HELP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from medlocker_dicom.evaluation.cases import Case
    from medlocker_dicom.evaluation.study import Study
    from medlocker_dicom.evaluation.tables import Table

app = typer.Typer(help="Measure the lock, and attack it.", no_args_is_help=True)

Images = Annotated[
    Path,
    typer.Argument(
        metavar="IMAGES", help="Folder of photographs: images, or DICOM (first frames)."
    ),
]
Out = Annotated[
    Path,
    typer.Argument(metavar="OUT", help="Folder for the report; what it has is not done again."),
]
Labels = Annotated[
    Path,
    typer.Option(metavar="CSV", help="True grades: file,grade, or as IDRiD and Kaggle have them."),
]
Split = Annotated[str, typer.Option(help="Only rows whose column split says so, such as val.")]
Masks = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="True lesions: NAME.png of bits, or IDRiD's folders."),
]
Models = Annotated[
    str,
    typer.Option(metavar="NAME,...", help="Searched against; as of medlocker lock."),
]
Targets = Annotated[
    str,
    typer.Option(metavar="NAME,...", help="Asked as well, not searched against; or all."),
]
Each = Annotated[int, typer.Option(min=1, help="Most photographs of a grade.")]
Mode = Annotated[str, typer.Option(help="avoid, anywhere or inside; wsm takes all three.")]
Budget = Annotated[
    int,
    typer.Option(min=1, max=100_000, help="Most forward passes of our strategy; the paper's: 650."),
]
LogoFile = Annotated[Path | None, typer.Option(metavar="PNG", help="The hospital's logo.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the draw, and of the search.")]
Json = Annotated[bool, typer.Option("--json", help="Print STUDY.json to the standard output.")]


@app.callback()
def group() -> None:
    """Measure the lock, and attack it."""


def _command(name: str) -> Callable[..., None]:
    def command(  # noqa: PLR0913  one parameter an option
        images: Images,
        out: Out,
        *,
        labels: Labels,
        split: Split = "",
        masks: Masks = None,
        models: Models = "",
        targets: Targets = "",
        bundles: BundleFolder = None,
        trust_bundle: TrustBundle = None,
        each: Each = 30,
        mode: Mode = "anywhere",
        budget: Budget = 200,
        logo: LogoFile = None,
        seed: Seed = 0,
        as_json: Json = False,
    ) -> None:
        check_evaluation("evaluate needs")
        from medlocker_dicom.evaluation.cases import read_cases  # noqa: PLC0415  the engine
        from medlocker_dicom.evaluation.plans import STUDIES  # noqa: PLC0415  the same
        from medlocker_dicom.evaluation.report import write_report  # noqa: PLC0415  the same
        from medlocker_dicom.evaluation.study import Study  # noqa: PLC0415  the same
        from medlocker_dicom.pipeline.logo import read_logo  # noqa: PLC0415  the same
        from medlocker_dicom.pipeline.models import load_models  # noqa: PLC0415  the same
        from medlocker_dicom.pipeline.policy import Policy, make_policy  # noqa: PLC0415  the same

        plan, chosen = STUDIES[name], read_logo(logo)
        usual = Policy()
        policy = make_policy(
            mode=mode,
            strategy=usual.strategy,
            budget=budget,
            margin=usual.margin,
            sl=usual.sl,
            look=str(usual.look.style),
            seed=seed,
            codec=usual.codec,
        )
        trusted = trust_bundle or ()
        ensemble, segmenter = load_models([m for m in models.split(",") if m], bundles, trusted)
        asked = [m for m in targets.split(",") if m]
        others = load_models(asked, bundles, trusted)[0].classifiers if asked else ()
        sources = tuple(one.bundle.name for one in ensemble.classifiers)
        classifiers = {one.bundle.name: one for one in (*ensemble.classifiers, *others)}
        cases = read_cases(images, labels, len(ensemble.labels), split, masks)
        study = Study(
            cases,
            classifiers,
            segmenter,
            plan.conditions(sources, policy),
            out,
            chosen,
            each,
            seed,
            plan.attacks,
        )
        found = list(_drawn(study))
        if not found:
            raise UsageError(
                f"{labels}: no photograph is graded correctly by {', '.join(classifiers)} alike",
                "only what is graded correctly can be turned; ask fewer models, or give more",
            )
        for _ in counting(study.run(found), "locking"):
            pass
        made = write_report(name, plan, study, policy)
        if as_json:
            sys.stdout.write((out / f"{name}.json").read_text())
            return
        for table in made:
            _print(table)
        if study.nowhere:
            said = f"{study.nowhere} of {len(study.rows)} locks: no position that the mode allows"
            sys.stdout.write(f"{said}; they are in no rate\n")
        sys.stdout.write("rates: per cent (hits/n, 95 % interval)\n")
        sys.stdout.write(plain(f"{out / f'{name}.html'}") + "\n")

    return command


def _drawn(study: Study) -> Iterator[Case]:
    """Draw the photographs; shows how many were looked at."""
    looked = counting(
        ((number, len(study.cases), case) for number, case in enumerate(study.draw(), 1)),
        "grading",
    )
    yield from (case for _, _, case in looked if case is not None)


def _print(table: Table) -> None:
    from medlocker_dicom.evaluation.report import words  # noqa: PLC0415  the engine

    rows = [table.columns, *([words(cell) for cell in row] for row in table.rows)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(table.columns))]
    sys.stdout.write(f"{table.title}\n")
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(plain(line.rstrip()) + "\n")
    sys.stdout.write("\n")


for _name, _help in HELP.items():
    app.command(_name, help=_help)(_command(_name))
