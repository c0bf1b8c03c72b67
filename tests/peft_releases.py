"""What is written for older releases of PEFT, and which of it those releases were seen to load.

data/peft-releases.json tells for every release what was loaded there with the outputs of PEFT 0.21.2, as digests of
what was written; tests/recipes/make_peft_seen.py makes it in environments with those releases.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from golden import GOLDEN, PEFT_PROMPTS, PEFTS, Case
from safetensors.torch import load_file

from adapterhub.adapter import Adapter
from adapterhub.converters import read, write
from adapterhub.errors import UnsupportedError

RELEASES = [f"0.{minor}" for minor in range(4, 21)]
SEEN: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "peft-releases.json").read_text("utf-8"))


def cases() -> dict[str, Case]:
    """Return name → case, of everything that is read and that PEFT itself wrote."""
    golden = [case for case in GOLDEN.cases(groups="D", kinds="peft-loader") if "saved-with" not in str(case)]
    found = {f"cases/{case}": case for case in PEFTS.cases()}
    found |= {f"prompts/{case}": case for case in PEFT_PROMPTS.cases()}
    return found | {f"golden/{case}": case for case in golden}


def adapter_of(case: Case) -> Adapter | None:
    """Return the adapter of a case, None where it is of a type that is not read, or does not name its family."""
    try:
        return read(case.adapter)
    except UnsupportedError:
        return None


def written(adapter: Adapter, release: str, path: Path) -> Path | str:
    """Return the folder that is written for a release, or why there is none."""
    try:
        return write(adapter, path, "peft", options={"peft_version": release})
    except UnsupportedError as error:
        return error.message


def digest(folder: Path) -> str:
    """Return what tells two folders apart for PEFT: the document, and names and values of the tensors."""
    made = hashlib.sha256((folder / "adapter_config.json").read_bytes())
    for key, tensor in sorted(load_file(folder / "adapter_model.safetensors").items()):
        made.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        made.update(tensor.contiguous().flatten().numpy().tobytes())
    return made.hexdigest()[:16]
