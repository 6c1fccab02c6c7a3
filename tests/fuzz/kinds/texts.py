"""Lists of prompts, and the tokenizer of a bundle with its sha256 updated."""

import json
from pathlib import Path

from fuzz.kind import Kind, Rng, command
from toy_damage import damage
from toy_prompted import write_prompted_bundle

from lvdm_engines.bundle import file_sha256

LINES = (
    {"prompt": "red"},
    {"prompt": "blue red", "seed": 3, "out": "b.npz"},
    {"prompt": "", "frames": 8},
)
FLAGS = ("--bundle", "./told", "--backend", "cpu", "--frames", "12", "-q", "-o", "a.npz")


def prepare(folder: Path) -> None:
    """Write a bundle that reads text and a list of prompts."""
    write_prompted_bundle(folder / "told")
    (folder / "prompts.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in LINES))


def change(folder: Path, rng: Rng) -> str:
    """Change the list or the tokenizer."""
    if rng.random() < 0.5:
        return damage(folder / "prompts.jsonl", rng)
    path, manifest = folder / "told" / "tokenizer.json", folder / "told" / "manifest.json"
    told = json.loads(manifest.read_text())
    way = damage(path, rng)
    if path.is_file():
        told["tokenizer"]["sha256"] = file_sha256(path)
        manifest.write_text(json.dumps(told))
    return f"tokenizer.json: {way}"


def generate(folder: Path) -> int:
    """Generate a video for each line; every one has its settings, and nothing is hidden."""
    code = command(["generate", "--prompts", "prompts.jsonl", *FLAGS])
    names = {path.name for path in folder.iterdir()}
    left = {name for name in names if name.startswith(".") and not name.endswith(".work")}
    left |= {name for name in names if name.endswith(".npz") and f"{name}.json" not in names}
    if left or (code == 0 and any(name.startswith(".") for name in names)):
        raise AssertionError(f"left {sorted(names)}")
    return code


KINDS = (Kind("prompts", prepare, change, generate),)
