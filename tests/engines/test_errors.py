import ast
from pathlib import Path

from lvdm_engines import errors

ROOT = Path(__file__).parents[2]


def test_every_error_of_all_packages_stands_in_the_drawn_tree():
    kinds = {
        (kind.name, file.name)
        for folder in ("engines", "runtime", "export", "tools")
        for file in (ROOT / folder).rglob("*.py")
        for kind in ast.walk(ast.parse(file.read_text()))
        if isinstance(kind, ast.ClassDef) and any("Error" in ast.unparse(b) for b in kind.bases)
    }
    assert {file for _, file in kinds} == {"errors.py"}
    assert [name for name, _ in kinds if name not in errors.__doc__] == []
    assert all(issubclass(getattr(errors, name), errors.LvdmError) for name, _ in kinds)
