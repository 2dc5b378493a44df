"""The README is held to the program."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer
from typer.testing import CliRunner

from medlocker_dicom import errors
from medlocker_dicom.cli import guard, main

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def help_of(*words: str) -> str:
    """Return a command's help without the line breaks of its layout."""
    result = CliRunner().invoke(
        main.app, [*words, "--help"], env={"COLUMNS": "400", "TERM": "dumb"}
    )
    assert result.exit_code == 0, result.output
    return re.sub(r"\x1b\[[0-9;]*m", "", result.output)


def all_commands() -> Iterator[tuple[str, ...]]:
    """Words of every command."""
    tree = typer.main.get_command(main.app)
    for name, command in tree.commands.items():  # type: ignore[attr-defined]  # a group
        for sub in getattr(command, "commands", {None: None}):
            yield (name, sub) if sub else (name,)


def test_every_command_is_in_the_table_and_the_other_way_round() -> None:
    """The table of commands names exactly the commands there are."""
    text = README.replace("\\|", "|")
    rows = re.findall(r"^\| `medlocker ([a-z]+)((?: [a-z|-]+)*)", text, re.MULTILINE)
    table = {
        (name, word) if word else (name,)
        for name, words in rows
        for word in words.strip().split(" ")[0].split("|")
    }
    assert table == set(all_commands())


@pytest.mark.parametrize("option", sorted(set(re.findall(r"(--[a-z][a-z-]*)", README))))
def test_every_option_in_the_readme_exists(option: str) -> None:
    """Each option that the README mentions is in some command's help."""
    assert any(option in help_of(*words) for words in all_commands())


def test_exit_codes_are_those_of_the_errors() -> None:
    """The table of exit codes covers every error class and nothing more."""
    table = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}

    def classes(base: type[errors.MedLockerError]) -> set[type[errors.MedLockerError]]:
        return {base}.union(*(classes(one) for one in base.__subclasses__()))

    used = {one.exit_code for one in classes(errors.MedLockerError)}
    assert table == used | {0, guard.PARTIAL, guard.INTERRUPTED}
    in_help = {int(code) for code in re.findall(r"(\d+)(?= \w)", main.__doc__ or "")}
    assert table == in_help


def test_error_tree_in_the_docstring_is_the_real_one() -> None:
    """Every class is drawn in errors.py, with its own exit code and DIMSE status."""
    drawn = errors.__doc__ or ""
    for name, one in vars(errors).items():
        if isinstance(one, type) and issubclass(one, errors.MedLockerError):
            assert re.search(rf"\b{name}\b", drawn), name
            line = next(text for text in drawn.splitlines() if re.search(rf"\b{name}\b", text))
            status = re.search(r"\b([0-9A-F]{4})$", line)
            if status:
                assert int(status.group(1), 16) == one.status, name
            code = re.search(r"exit (\d+)$", line)
            if code:
                assert int(code.group(1)) == one.exit_code, name


def test_files_that_the_readme_names_exist() -> None:
    """Every path of ours in backticks is there."""
    for name in re.findall(r"`((?:medlocker_dicom|monai_bundles|benchmarks|docs)/[^` ]*)`", README):
        assert (ROOT / name).exists(), name
