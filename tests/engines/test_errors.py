import ast
from pathlib import Path

import pytest

from lvdm_engines import errors
from lvdm_engines.errors import LvdmError, quoted

ROOT = Path(__file__).parents[2]


def test_every_error_of_all_packages_stands_in_the_drawn_tree():
    kinds = {
        (kind.name, file.name)
        for folder in ("engines", "runtime", "export", "tools")
        for file in (ROOT / folder).rglob("*.py")
        for kind in ast.walk(ast.parse(file.read_text()))
        if isinstance(kind, ast.ClassDef) and any("Error" in ast.unparse(b) for b in kind.bases)
    } - {("RefusedError", "refusals.py")}  # an answer to a client, which nobody else meets
    assert {file for _, file in kinds} == {"errors.py"}
    assert [name for name, _ in kinds if name not in errors.__doc__] == []
    assert all(issubclass(getattr(errors, name), errors.LvdmError) for name, _ in kinds)


def test_a_value_of_any_size_is_short_in_a_message():
    nest: object = ["x"]
    for _ in range(60):  # 4^60 members in 60 lists, as aliases in YAML make them
        nest = [nest] * 4
    for value in (nest, "a" * 10**7, 10**9000, {str(i): i for i in range(10**5)}, b"\0" * 10**6):
        assert len(quoted(value)) < 120


@pytest.mark.parametrize("text", ["\x1b[2Jgone", "two\nlines", "\x9b31m", "\u202egnp.exe", "\r"])
def test_no_message_moves_the_cursor_of_a_terminal(text):
    assert quoted(text).isprintable()
    assert str(LvdmError(f"got {text}, expected a name")).isprintable()


def test_an_object_that_cannot_be_shown_is_named_by_its_type():
    class Sulking:
        def __repr__(self):
            raise RuntimeError

    assert "Sulking" in quoted(Sulking())
