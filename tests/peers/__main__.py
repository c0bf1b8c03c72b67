"""make peers: what this version writes, loaded by the libraries that it is written for, with the outputs compared.

    python tests/peers [PATTERN]        of the cases whose name has PATTERN in it
    python tests/peers FOLDER           of cases that tests/recipes/make_drawn_pairs.py drew

The adapters of all archives of cases are converted into the format of the other library, and written anew for their own
one, without anything of how it spelled them. `adapters` 1.3.0 and PEFT 0.21.2 load them in processes of their own, and
the output has to be the one that the library which made the case computed.

$ADAPTERHUB_BENCH_ADAPTERS_PYTHON and $ADAPTERHUB_BENCH_PEFT_PYTHON name interpreters with these libraries; without them
.venv-adapters (made by `make peers`) and this interpreter are taken. Where one has no such library, that is said, and
the exit status is 2.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapterhub.adapter import Adapter

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PEERS = {"adapters": "ADAPTERHUB_BENCH_ADAPTERS_PYTHON", "peft": "ADAPTERHUB_BENCH_PEFT_PYTHON"}
KINDS = (
    *("adapters-loader", "convert-pair", "convert-inexact", "peft-loader", "legacy"),
    *("head", "head-only", "static-head", "legacy-head", "static", "flexible"),
)

KNOWN: dict[str, str] = {
    "golden/c-cross-cls2base-seqbn": "the folder is for the class that it was saved from, the case for another",
    "golden/c-roberta-cls": "the folder is for a class with this head, the case for the bare model",
    "golden/d-vit-lora-saved-with-tf4": "modules keep the names of transformers 4 that the source has",
}
"""Case → why a library does not load what is written, where that is no fault of it."""


def main() -> int:
    """Return 0 if every output is the same, 2 where a library is not there."""
    pythons = {name: interpreter(name) for name in PEERS}
    missing = [name for name, python in pythons.items() if python is None]
    for name in missing:
        print(f"no environment with {name}: set ${PEERS[name]} to an interpreter that has it, or run `make peers`")
    if missing:
        return 2
    pattern = sys.argv[1] if len(sys.argv) > 1 else ""
    with tempfile.TemporaryDirectory(prefix="adapterhub-peers-") as place:
        rows = list(written(Path(place), pattern))
        faults = [fault for name, python in pythons.items() for fault in loaded(name, str(python), rows, Path(place))]
    for fault in faults:
        print(fault)
    print(f"{len(faults)} faults")
    return int(bool(faults))


def interpreter(name: str) -> str | None:
    """Return an interpreter that has a library, None where there is none."""
    usual = {"adapters": str(ROOT / ".venv-adapters" / "bin" / "python"), "peft": sys.executable}
    python = os.environ.get(PEERS[name]) or usual[name]
    found = Path(python).exists() and subprocess.run([python, "-c", f"import {name}"], capture_output=True, check=False)
    return python if found and found.returncode == 0 else None


def written(place: Path, pattern: str) -> Iterator[dict[str, Any]]:
    """Yield a row for every case and format: where it is written, or why it is refused, and how it is run."""
    sys.path[:0] = [str(HERE.parent), str(HERE.parent / "recipes")]
    from golden import BOTTLENECKS, GOLDEN, HEADS, PEFT_PROMPTS, PEFTS, PREFIXES, Folder

    import adapterhub
    from adapterhub.converters import detect
    from adapterhub.errors import AdapterHubError

    drawn = Path(pattern) if pattern and Path(pattern).is_dir() else None
    for archive in (GOLDEN, PREFIXES, PEFTS, PEFT_PROMPTS, BOTTLENECKS, HEADS) if drawn is None else (Folder(drawn),):
        for case in archive.cases():
            name = f"{archive.path.name.partition('.')[0]}/{case}"
            if (
                case.get("kind") not in KINDS
                or not isinstance(case.get("active", "task"), str)
                or (drawn is None and pattern not in name)
            ):
                continue
            native = place / "native" / f"{name}.safetensors"
            native.parent.mkdir(parents=True, exist_ok=True)
            try:
                adapter = adapterhub.read(case.adapter)
            except AdapterHubError as error:
                print(f"{name} is not read: {error.message}")
                continue
            adapterhub.write(_plain(adapter), native)
            for to in PEERS:
                own = detect(case.adapter).name == to
                row = {"name": name, "format": to, "folder": str(place / to / name), "base": str(case.base)}
                yield row | _how(case) | _converted(native if own else case.adapter, row, to)


def _plain(adapter: Adapter) -> Adapter:
    """Return an adapter without what reading kept of its source, but for the class that it is for."""
    kept = {
        name: {key: value for key, value in extra.items() if key in ("prefix", "former", "fixed_head")}
        for name, extra in adapter.manifest.extra.items()
    }
    said = adapter.manifest.extra.get("peft", {}).get("adapter_config.json", {}).get("set", {})
    if "task_type" in said:
        kept["peft"] |= {"adapter_config.json": {"set": {"task_type": said["task_type"]}}}
    extra = {name: of for name, of in kept.items() if of}
    return replace(adapter, manifest=replace(adapter.manifest, name="task", provenance=None, extra=extra))


def _how(case: Any) -> dict[str, Any]:
    """Return how a case is run."""
    fields = ("kind", "base_class", "inputs", "float_inputs", "output_key", "tolerance", "attn_implementation")
    bare = str((case.folder / case["bare_base"]).resolve()) if "bare_base" in case.fields else str(case.base)
    found = {name: case.get(name) for name in fields}
    if "outputs" in case.fields:  # of a head, which has several
        key = next(name for name in ("logits", "start_logits", "arc_preds") if name in case["outputs"])
        found |= {"output_key": key, "expected_key": key, "tolerance": {"atol": 1e-4, "rtol": 1e-4}}
        found["base_class"] = case.get("head_class") or case["base_class"]
    return found | {"expected": str(case.folder / "expected.safetensors"), "bare_base": bare}


def _converted(source: Path, row: dict[str, Any], to: str) -> dict[str, str]:
    """Write a case in a format, with its base model where it takes one, and return why it is refused if it is."""
    import adapterhub
    from adapterhub.errors import AdapterHubError

    for base in (None, row["base"]):
        try:
            adapterhub.convert(source, row["folder"], to=to, base=base)
        except AdapterHubError as error:
            refused = {"refused": error.message}
        else:
            return {}
    return refused


def loaded(name: str, python: str, rows: list[dict[str, Any]], place: Path) -> Iterator[str]:
    """Yield a sentence for each case that a library does not load, or with which it computes something else."""
    mine = [row for row in rows if row["format"] == name]
    (place / f"{name}.json").write_text(json.dumps([row for row in mine if "refused" not in row]), "utf-8")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT / ".src")}
    done = subprocess.run(
        [python, str(HERE / "load.py"), name, str(place)], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        yield f"{name}: the process ended with {done.returncode}: {done.stderr[-1000:]}"
        return
    found = json.loads((place / f"{name}-found.json").read_text("utf-8"))
    print(f"{found['library']}: {len(found['same'])} the same, {sum('refused' in row for row in mine)} refused")
    for case, what in sorted(found["other"].items()):
        if case in KNOWN:
            print(f"{name}: {case}: {what} (known: {KNOWN[case]})")
        else:
            yield f"{name}: {case}: {what}"


if __name__ == "__main__":
    sys.exit(main())
