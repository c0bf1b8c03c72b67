"""Write tests/data/peft-releases.json: what older releases of PEFT were seen to load, with the outputs of today's.

    python make_peft_seen.py write FOLDER                 with adapterhub: every case, for every release
    PYTHONPATH=… python make_peft_seen.py load FOLDER     with one release of PEFT and a transformers of its time
    python make_peft_seen.py join FOLDER                  with any Python

`load` is called once for each release and environment: PEFT 0.4 to 0.13 ran with transformers 4.38.2, 0.12 to 0.20 with
4.57.6, and 0.18 to 0.20 with 5.23.0. A release may fail in one environment and be right in another; what differs in
silence anywhere is printed, and belongs into converters/peft/changes.py.
"""

from __future__ import annotations

import copy
import json
import shutil
import sys
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent
TARGET = TESTS / "data" / "peft-releases.json"


def write(folder: Path) -> None:
    """Write every case for every release, and what is needed to run it."""
    sys.path.insert(0, str(TESTS))
    import peft_releases as releases

    rows = []
    for name, case in releases.cases().items():
        adapter = releases.adapter_of(case)
        if adapter is None:
            continue
        base = folder / "bases" / name.partition("/")[0] / case.base.name
        if not base.exists():
            shutil.copytree(case.base, base)
        for release in releases.RELEASES:
            made = releases.written(adapter, release, folder / "written" / release / name)
            if isinstance(made, Path):
                shutil.copy(case.folder / "expected.safetensors", made)
                wanted = ("base_class", "inputs", "float_inputs", "output_key")
                fields = {key: case.get(key) for key in wanted}
                rows.append(
                    {"release": release, "name": name, "digest": releases.digest(made), "base": str(base), **fields}
                )
    (folder / "rows.json").write_text(json.dumps(rows), "utf-8")


def load(folder: Path) -> None:
    """Load what was written for the release that is installed here, and keep what came of it."""
    import peft
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    release = ".".join(peft.__version__.split(".")[:2])
    bases: dict[tuple[str, str], Any] = {}
    found: dict[str, Any] = {}
    for row in json.loads((folder / "rows.json").read_text("utf-8")):
        if row["release"] == release:
            try:
                found[row["name"]] = _difference(row, folder, bases)
            except Exception as error:  # noqa: BLE001 (whatever a library of then says to one of today)
                found[row["name"]] = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
    seen = folder / "seen" / f"{release} {transformers.__version__}.json"
    seen.parent.mkdir(exist_ok=True)
    seen.write_text(json.dumps({"torch": torch.__version__, "found": found}), "utf-8")


def _difference(row: dict[str, Any], folder: Path, bases: dict[tuple[str, str], Any]) -> float:
    """Return by which part of the largest output an adapter's is another one."""
    import peft
    import torch
    import transformers
    from safetensors.torch import load_file

    key = row["base"], row["base_class"]
    if key not in bases:
        bases[key] = _base(getattr(transformers, row["base_class"]), row["base"])
    made = folder / "written" / row["release"] / row["name"]
    expected = load_file(made / "expected.safetensors")
    inputs = {name: torch.tensor(value) for name, value in (row["inputs"] or {}).items()}
    inputs |= {name: expected[name] for name in row["float_inputs"] or ()}
    with torch.no_grad():
        alone = bases[key](**inputs)[row["output_key"]]
        if "base_output" in expected and not torch.allclose(alone, expected["base_output"], atol=1e-4, rtol=1e-4):
            raise ValueError("the base model alone computes something else")
        model = peft.PeftModel.from_pretrained(copy.deepcopy(bases[key]), str(made)).eval()
        output = model(**inputs)[row["output_key"]]
    wanted = expected["output"]
    return float((output - wanted).abs().max() / wanted.abs().max().clamp(min=1))


def _base(model: Any, folder: str) -> Any:
    """Return a base model with the one attention that every release has."""
    try:
        return model.from_pretrained(folder, attn_implementation="eager").eval()
    except (TypeError, ValueError):
        return model.from_pretrained(folder).eval()


def join(folder: Path) -> None:
    """Write the table, and print what went wrong in silence."""
    digests = {(row["release"], row["name"]): row["digest"] for row in json.loads((folder / "rows.json").read_text())}
    with_: dict[str, list[str]] = defaultdict(list)
    loaded: dict[str, dict[str, str]] = defaultdict(dict)
    failed: dict[str, dict[str, str]] = defaultdict(dict)
    for path in sorted((folder / "seen").glob("*.json")):
        release, _, library = path.stem.partition(" ")
        with_[release].append(library)
        for name, result in json.loads(path.read_text("utf-8"))["found"].items():
            if isinstance(result, str):
                failed[release][name] = f"transformers {library}: {result}"
            elif result <= 2e-4:
                loaded[release][name] = digests[release, name]
            else:
                print(f"PEFT {release} with transformers {library}: {name} is off by {result:.2g}")
    table = {
        release: {
            "transformers": with_[release],
            "loaded": dict(sorted(loaded[release].items())),
            "not_run": {n: why for n, why in sorted(failed[release].items()) if n not in loaded[release]},
        }
        for release in with_
    }
    TARGET.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    {"write": write, "load": load, "join": join}[sys.argv[1]](Path(sys.argv[2]))
