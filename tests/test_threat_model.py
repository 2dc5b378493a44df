"""The threat model's claims are tests: each that it names is there."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
TEXT = (TESTS.parent / "docs" / "threat-model.md").read_text()
CLAIM = re.compile(r"^\| [^|]+ \| `([\w/]+\.py)::(\w+)` \|$", re.MULTILINE)


def test_each_claim_names_a_test_that_is_there() -> None:
    """A line of the table is the file of a test and a function in it."""
    claims = CLAIM.findall(TEXT)
    assert len(claims) == len(set(claims)) == TEXT.count(".py::test_")
    for path, name in claims:
        functions = ast.parse((TESTS / path).read_text()).body
        assert name in {one.name for one in functions if isinstance(one, ast.FunctionDef)}, path
