"""The house keeps its shape: who imports whom, what an import costs, what is public.

Imports are read from the syntax tree, those inside functions too; those under TYPE_CHECKING do not run and do not
count.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import adapterhub

ROOT = Path(__file__).parent.parent

# What each floor stands on; docs/architecture.md shows the same table.
STANDS_ON: dict[str, tuple[str, ...]] = {
    "errors": (),
    "sites": (),
    "adapter": ("errors",),
    "schemas": ("errors",),
    "composition": ("schemas", "adapter"),
    "registry": ("composition",),
    "methods": ("adapter", "sites"),
    "architectures": ("sites", "errors"),
    "converters": ("methods", "architectures", "composition"),
    "loader": ("converters", "registry"),
    "merging": ("converters",),
    "hub": ("loader", "merging"),
    "cli": ("hub", "adapterhub"),
    "peft_plugin": ("loader",),
}


def below(floor: str) -> set[str]:
    """Return the floors that a floor may import: those that it stands on, and those below them."""
    return {part for direct in STANDS_ON.get(floor, ()) for part in (direct, *below(direct))}


# Modules of the root that belong to the floor of another.
ANNEXES = {"arrangement": "composition", "composition_file": "composition", "composition_text": "composition"}

# Libraries that only some floors may import, at whatever depth.
OUTSIDE: dict[str, tuple[str, ...]] = {
    "azure": ("registry",),
    "botocore": ("registry",),
    "cryptography": ("registry",),
    "click": ("cli",),
    "filelock": ("registry",),
    "google": ("registry",),
    "httpx2": ("registry",),
    "huggingface_hub": ("registry",),
    "jsonschema": ("schemas",),
    "model_signing": ("registry",),
    "peft": ("peft_plugin",),
    "ray": ("registry",),
    "torch": ("methods", "converters", "loader", "merging", "hub", "cli", "peft_plugin"),
    "transformers": ("methods", "loader", "hub", "cli", "peft_plugin"),
    "yaml": ("hub",),
}

HEAVY = {
    "ray",
    "model_signing",
    "cryptography",
    "botocore",
    "azure",
    "google.auth",
    "torch",
    "transformers",
    "huggingface_hub",
    "httpx2",
    "yaml",
    "jsonschema",
    "rich",
    "importlib.metadata",
}


def package_files() -> list[Path]:
    """Return every source file of the package, without tests and the like."""
    found = [path for path in ROOT.glob("*.py") if path.name != "__init__.py"]
    for folder in ROOT.iterdir():
        if (folder / "__init__.py").exists() and not folder.name.startswith("."):
            found += folder.rglob("*.py")
    return sorted(found)


def floor_of(path: Path) -> str:
    part = path.relative_to(ROOT).parts[0].removesuffix(".py")
    return ANNEXES.get(part, part)


def running_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Return all nodes that can run: what stands under `if TYPE_CHECKING:` is left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            for other in node.orelse:
                yield other
                yield from running_nodes(other)
            continue
        yield node
        yield from running_nodes(node)


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Return (line, absolute module name) of every import in a file of the package."""
    package = ["adapterhub", *path.relative_to(ROOT).parent.parts]
    for node in running_nodes(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def target_floor(module: str) -> str | None:
    """Return which floor of the package a module name belongs to, or None outside the package."""
    first, *rest = module.split(".")
    if first != "adapterhub":
        return None
    part = ANNEXES.get(rest[0], rest[0]) if rest else ""
    return part if part in STANDS_ON else "adapterhub"


def python(code: str, *arguments: str) -> str:
    """Return what a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def modules_after(statement: str) -> set[str]:
    """Return the modules that a statement loads into a fresh interpreter."""
    code = (
        "import sys; before = set(sys.modules)\n"
        f"{statement}\n"
        "import json; print(); print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    return set(json.loads(python(code).splitlines()[-1]))


def test_every_part_of_the_package_stands_in_the_table() -> None:
    assert {floor_of(path) for path in package_files()} <= set(STANDS_ON)


@pytest.mark.parametrize("floor", STANDS_ON)
def test_a_floor_imports_only_the_floors_below_it(floor: str) -> None:
    faults = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in package_files()
        if floor_of(path) == floor
        for line, module in imported(path)
        if (target := target_floor(module)) is not None and target not in {floor, *below(floor)}
    ]
    assert not faults


def test_the_table_has_no_cycle() -> None:
    done: set[str] = set()
    for floor, direct in STANDS_ON.items():
        assert set(direct) - {"adapterhub"} <= done, f"{floor} stands before what it imports"
        done.add(floor)


@pytest.mark.parametrize("library", OUTSIDE)
def test_a_library_is_imported_only_where_it_belongs(library: str) -> None:
    faults = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in package_files()
        if floor_of(path) not in OUTSIDE[library]
        for line, module in imported(path)
        if module.split(".")[0] == library
    ]
    assert not faults


def test_the_import_reader_sees_what_it_must(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    source = tmp_path / "registry" / "index.py"
    source.parent.mkdir()
    source.write_text(
        "from ..errors import UsageError\n"
        "if TYPE_CHECKING:\n    import torch\nelse:\n    import click\n"
        "def f():\n    from .. import cli\n    import adapterhub.hub\n    from . import store\n"
    )
    seen = {module for _, module in imported(source)}
    assert seen == {
        "adapterhub.errors.UsageError",
        "click",
        "adapterhub.cli",
        "adapterhub.hub",
        "adapterhub.registry.store",
    }
    assert target_floor("adapterhub.cli") == "cli"
    assert target_floor("adapterhub.__version__") == "adapterhub"


def test_only_lazy_exports_and_commands_are_imported_by_a_name_made_at_run_time() -> None:
    faults = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in package_files()
        if floor_of(path) != "cli" and path.name != "__init__.py"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in {"import_module", "__import__"}
    ]
    assert not faults


def test_no_folder_of_the_root_is_imported_as_a_top_level_name() -> None:
    own = {path.stem for path in ROOT.glob("*.py")} | {path.name for path in ROOT.iterdir() if path.is_dir()}
    hidden = re.compile(r"(^|/)(\.|build/|dist/)")
    faults = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sorted(ROOT.rglob("*.py"))
        if not hidden.search(str(path.relative_to(ROOT)))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        for name in top_level_names(node)
        if name in own
    ]
    assert not faults


def top_level_names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        return [node.module.split(".")[0]]
    return []


def test_no_file_is_a_drawer_for_odds_and_ends() -> None:
    banned = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert [path.name for path in package_files() if path.stem in banned] == []


def test_the_packages_in_pyproject_are_those_that_exist() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]
    folders = {path.parent for path in package_files() if path.name == "__init__.py"}
    existing = {"adapterhub", *(".".join(("adapterhub", *folder.relative_to(ROOT).parts)) for folder in folders)}
    assert set(declared) == existing


def test_importing_adapterhub_loads_nothing_heavy() -> None:
    loaded = modules_after("import adapterhub")
    assert not loaded & HEAVY
    assert {name for name in loaded if name.startswith("adapterhub")} == {"adapterhub"}


@pytest.mark.parametrize(
    "floor",
    ["errors", "sites", "adapter", "composition", "schemas", "registry", "methods", "architectures", "converters"],
)
def test_importing_a_lower_floor_loads_no_torch(floor: str) -> None:
    loaded = modules_after(f"import adapterhub.{floor}")
    assert not loaded & {"torch", "transformers", "numpy"}


def test_the_help_of_the_command_line_loads_only_click() -> None:
    run = "import sys; sys.argv = ['adapterhub', '--help']\nfrom adapterhub.cli import main\n"
    loaded = modules_after(f"{run}try:\n    main()\nexcept SystemExit:\n    pass")
    assert not loaded & HEAVY
    tops = {name.split(".")[0] for name in loaded}
    assert tops - set(sys.stdlib_module_names) <= {"click", "adapterhub"}
    assert "click" in tops


def test_the_public_names_are_exact() -> None:
    homes = vars(adapterhub)["_HOMES"]
    assert sorted(adapterhub.__all__) == sorted([*homes, "__version__"])
    assert len(adapterhub.__all__) == len(set(adapterhub.__all__))
    assert dir(adapterhub) == sorted(adapterhub.__all__)
    for name, home in homes.items():
        module = sys.modules.get(f"adapterhub.{home}") or __import__(f"adapterhub.{home}", fromlist=[name])
        assert getattr(adapterhub, name) is getattr(module, name)


def test_type_checkers_see_the_same_public_names() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text("utf-8"))
    guard = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.name: node.module for node in guard.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed == vars(adapterhub)["_HOMES"]


def test_every_public_error_is_exported() -> None:
    from adapterhub import errors

    kinds = {
        name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert kinds <= set(adapterhub.__all__)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        vars(adapterhub)["__getattr__"]("no_such_name")


def test_the_table_in_the_documents_is_this_table() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|$", text, flags=re.MULTILINE)
    assert {floor: tuple(re.findall(r"`(\w+)`", direct)) for floor, direct in rows} == STANDS_ON


def test_a_floor_may_import_what_lies_below_what_it_stands_on() -> None:
    assert below("errors") == set()
    assert below("registry") == {"composition", "schemas", "adapter", "errors"}
    assert below("cli") == {*STANDS_ON, "adapterhub"} - {"cli", "peft_plugin"}


def test_nothing_is_named_that_lies_below_something_else_that_is_named() -> None:
    for direct in STANDS_ON.values():
        assert not set(direct) & {part for other in direct for part in below(other)}
