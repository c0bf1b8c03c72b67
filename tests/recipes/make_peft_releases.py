"""Write converters/peft/releases.json: with which release each type of PEFT came, and each of its fields.

    pip download --no-deps -d WHEELS peft==0.3.0 peft==0.4.0 …     # the last patch of every minor release
    python make_peft_releases.py WHEELS                             # with any Python, no library; some seconds

The sources are read as syntax trees, never imported: the oldest releases do not run with libraries of today.
"""

from __future__ import annotations

import ast
import json
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

TARGET = Path(__file__).parents[2] / "converters" / "peft" / "releases.json"


@dataclass
class Class:
    """What a class of a release says.

    Attributes:
        bases: names of its base classes.
        fields: its annotated names.
        kind: the type that its __post_init__ sets, "" where it sets none.
    """

    bases: list[str]
    fields: list[str] = field(default_factory=list)
    kind: str = ""


def read(tree: ast.Module) -> Iterator[tuple[str, Class]]:
    """Yield the classes of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            found = Class([ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases])
            for item in node.body:
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and is_field(item):
                    found.fields.append(item.target.id)
                elif isinstance(item, ast.FunctionDef) and item.name == "__post_init__":
                    found.kind = kind_of(item)
            yield node.name, found


def is_field(item: ast.AnnAssign) -> bool:
    """Return whether an annotation is that of a field which stands in files."""
    value = "" if item.value is None else ast.unparse(item.value)
    return "init=False" not in value and not ast.unparse(item.annotation).startswith("ClassVar")


def kind_of(function: ast.FunctionDef) -> str:
    """Return the type that a __post_init__ sets."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "self.peft_type":
            return ast.unparse(node.value).removeprefix("PeftType.")
    return ""


def all_fields(name: str, classes: dict[str, Class]) -> set[str]:
    """Return the fields of a class and of those that it comes from."""
    mine = classes.get(name)
    return set() if mine is None else {*mine.fields, *(f for base in mine.bases for f in all_fields(base, classes))}


def release(path: Path) -> dict[str, list[str]]:
    """Return type → its fields, of one wheel."""
    classes: dict[str, Class] = {}
    with zipfile.ZipFile(path) as wheel:
        for file in wheel.namelist():
            if file.startswith("peft/") and file.endswith(".py"):
                classes |= dict(read(ast.parse(wheel.read(file))))
    kinds = {one.kind: name for name, one in classes.items() if one.kind}
    return {kind: sorted(all_fields(name, classes) - {"runtime_config"}) for kind, name in kinds.items()}


def main() -> None:
    """Write the table."""
    wheels = sorted(Path(sys.argv[1]).glob("peft-*.whl"), key=lambda path: number(path.name.split("-")[1]))
    known = {short(path): release(path) for path in wheels}
    last = known[short(wheels[-1])]
    types = {}
    for kind, names in last.items():
        since = next(version for version, found in known.items() if kind in found)
        came = {name: next(v for v, found in known.items() if name in found.get(kind, ())) for name in names}
        types[kind] = {"since": since, "fields": {name: v for name, v in came.items() if v != since}}
    table = {"releases": list(known), "types": types}
    TARGET.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n", "utf-8")


def number(version: str) -> tuple[int, ...]:
    """Return a version as numbers."""
    return tuple(int(part) for part in version.split("."))


def short(path: Path) -> str:
    """Return the minor release of a wheel."""
    return ".".join(path.name.split("-")[1].split(".")[:2])


if __name__ == "__main__":
    main()
