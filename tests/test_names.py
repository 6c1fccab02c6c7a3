"""One word per thing: no two classes of the four packages share a name."""

import ast
from collections import defaultdict
from pathlib import Path

from test_arrows import PACKAGES

# networks are named as in the papers and in the authors' checkpoints
OFFICIAL = PACKAGES["lvdm_export"] / "nets"


def classes(folder):
    return [
        (node.name, str(file.relative_to(folder.parents[1])))
        for file in folder.rglob("*.py")
        if OFFICIAL not in file.parents
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.ClassDef)
    ]


def test_no_two_classes_share_a_name():
    homes = defaultdict(list)
    for folder in PACKAGES.values():
        for name, home in classes(folder):
            homes[name].append(home)
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


def test_no_file_is_longer_than_a_reader_holds_in_mind():
    root = Path(__file__).parents[1]
    files = [*(f for folder in PACKAGES.values() for f in folder.rglob("*.py"))]
    files += [*(root / "tests").rglob("*.py"), *(root / "scripts").glob("*.py")]
    lengths = {str(f.relative_to(root)): len(f.read_text().splitlines()) for f in files}
    assert {name: length for name, length in lengths.items() if length > 300} == {}
