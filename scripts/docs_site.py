"""A hook of mkdocs: the pages at the root of the repository, and what is generated from the code.

A line `<!-- generated: NAME -->` of a page becomes what the function of that name below makes:
the help of the commands, the manifest's JSON Schema, the fields of a training configuration.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]

# mkdocs would take README.md for the index
PAGES = {
    "README.md": "start.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "license.md",
    "engines/lvdm_engines/bundles/sky-tiny/README.md": "sky-tiny-card.md",
    "engines/lvdm_engines/bundles/sky/README.md": "sky-card.md",
}
_LINK = re.compile(r"(?<=\]\()([^)#\s:]+)(?=[)#])")
_GENERATED = re.compile(r"<!-- generated: (\w+) -->")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the root, with links as they are seen from docs/."""
    for name, uri in PAGES.items():
        text = (ROOT / name).read_text("utf-8")
        if name == "LICENSE":
            text = f"# Licence\n\n```\n{text}```\n"
        text = _LINK.sub(lambda link: _from_root(link[1]), text)
        files.append(File.generated(config, uri, content=text))
    return files


def _from_root(link: str) -> str:
    return PAGES.get(link) or link.removeprefix("docs/") or "index.md"


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Point links out of docs/ to the added pages, and fill in what is generated."""

    def inside(link: re.Match[str]) -> str:
        climbed, _, name = link[1].rpartition("../")
        return climbed + PAGES[name] if name in PAGES else link[1]

    if page.file.src_uri not in PAGES.values():
        markdown = _LINK.sub(inside, markdown)
    return _GENERATED.sub(lambda mark: "\n".join(GENERATORS[mark[1]]()), markdown)


def commands() -> Iterator[str]:
    """Yield the help of every command of the three programs."""
    from lvdm_export.cli import lvdm_export
    from lvdm_rt.cli import lvdm_rt
    from lvdm_tools.cli import lvdm_tools

    for program in (lvdm_rt, lvdm_export, lvdm_tools):
        yield from _help(program, program.name or "", None)


def _help(command: click.Command, name: str, parent: click.Context | None) -> Iterator[str]:
    context = command.make_context(
        name, [], parent=parent, resilient_parsing=True, max_content_width=88
    )
    yield f"{'##' if parent is None else '###'} {context.command_path}\n"
    yield f"```text\n{context.get_help()}\n```\n"
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            yield from _help(command.commands[child], child, context)


def manifest() -> Iterator[str]:
    """Yield the JSON Schema of `manifest.json`."""
    from lvdm_engines.manifest import Manifest

    yield f"```json\n{json.dumps(msgspec.json.schema(Manifest), indent=2)}\n```"


def training() -> Iterator[str]:
    """Yield a table of fields for every part of a training configuration."""
    from lvdm_tools.train.config import Run

    schema = msgspec.json.schema(Run, schema_hook=lambda _: {"type": "file name"})
    parts = schema["$defs"]
    for name in sorted(parts, key=lambda part: not part.endswith("Run")):
        yield f"## {name}\n"
        prose = re.sub(r"\n +", "\n", parts[name]["description"])
        yield f"{prose}\n"
        yield "| field | value | default |\n|---|---|---|"
        required = parts[name].get("required", [])
        for field, kind in parts[name]["properties"].items():
            default = "required" if field in required else _default(kind)
            yield f"| `{field}` | {_kind(kind)} | {default} |"
        yield ""


def _default(kind: dict[str, Any]) -> str:
    return f"`{json.dumps(kind['default'])}`" if "default" in kind else "always"


def _kind(kind: dict[str, Any]) -> str:
    """Say in words what a field of a JSON Schema takes."""
    if "$ref" in kind:
        part = kind["$ref"].rpartition("/")[2]
        return f"[{part}](#{part.lower()})"
    if "enum" in kind:
        return " or ".join(f"`{value}`" for value in kind["enum"])
    if "anyOf" in kind:
        return " or ".join(map(_kind, kind["anyOf"]))
    if kind.get("type") == "array":
        each = kind.get("prefixItems") or [kind["items"]]
        count = len(each) if "prefixItems" in kind else ""
        return f"list of {count} {_kind(each[0])}".replace("  ", " ")
    return f"{kind.get('type', 'anything')}{_range(kind)}"


def _range(kind: dict[str, Any]) -> str:
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{words[key]} {kind[key]:g}" for key in words if abs(kind.get(key, 1e9)) < 1e9]
    return f" {', '.join(limits)}" if limits else ""


GENERATORS = {"commands": commands, "manifest": manifest, "training": training}
