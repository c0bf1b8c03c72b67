"""Cases made with the reference libraries, unpacked once for each run of the tests.

    from golden import BOTTLENECKS, GOLDEN

    @pytest.mark.parametrize("case", GOLDEN.cases(groups="F"), ids=str)
    def test_...(case): ...

tests/data/golden.tar.gz holds the golden cases (its README.md tells groups and fields), bottleneck-cases.tar.gz there
those of tests/recipes/. Unpacked files are shared by all tests: read them, never change them.
"""

from __future__ import annotations

import atexit
import json
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from adapterhub import Average, BatchSplit, Fuse, Parallel, Split, Stack
from adapterhub.composition import Composition

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        folder: where it lies.
        fields: case.json.
    """

    folder: Path
    fields: Mapping[str, Any]

    def __str__(self) -> str:
        return str(self.fields["id"])

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self.fields.get(name, default)

    @property
    def base(self) -> Path:
        """The folder of the base model, for from_pretrained."""
        return (self.folder / self.fields["base"]).resolve()

    @property
    def adapters(self) -> dict[str, Path]:
        """Adapter name → its folder as the reference wrote it."""
        return {row["name"]: self.folder / row["path"] for row in self.fields["adapters"]}

    @property
    def adapter(self) -> Path:
        """The folder of the only, or the first, adapter."""
        return next(iter(self.adapters.values()))

    @property
    def active(self) -> str | Composition | None:
        """What is active: a name, a composition, or nothing."""
        return node(self.fields["active"])

    def inputs(self, name: str = "inputs") -> dict[str, torch.Tensor]:
        """Return model input → tensor."""
        found = {key: torch.tensor(value) for key, value in self.fields[name].items()}
        floats = self.fields.get("float_inputs") or []
        return found | {key: self.expected()[key] for key in floats}

    def expected(self) -> dict[str, torch.Tensor]:
        """Return output name → what the reference computed."""
        return load_file(self.folder / "expected.safetensors")

    def close(self, got: torch.Tensor, want: torch.Tensor) -> bool:
        """Return whether two outputs are equal within the case's tolerance."""
        tolerance = self.fields.get("tolerance", {"atol": 1e-4, "rtol": 1e-4})
        return got.shape == want.shape and torch.allclose(got, want, **tolerance)


def node(data: Any) -> Any:
    """Return a composition as case.json writes it."""
    if data is None or isinstance(data, str):
        return data
    kind = next(word for word in KINDS if word in data)
    settings = {key: value for key, value in data.items() if key != kind}
    return KINDS[kind](*map(node, data[kind]), **settings)


KINDS: dict[str, Any] = {
    "stack": Stack,
    "parallel": Parallel,
    "batch_split": BatchSplit,
    "split": Split,
    "average": Average,
    "fuse": Fuse,
}


class Archive:
    """A packed folder of cases."""

    def __init__(self, name: str) -> None:
        self.path = DATA / name

    def __repr__(self) -> str:
        return f"Archive({self.path.name})"

    def folder(self) -> Path:
        """Return the unpacked folder, which vanishes at the end of the process."""
        return _unpacked(self.path)

    def cases(self, *, groups: str = "", kinds: str = "", archs: str = "", ids: str = "") -> list[Case]:
        """Return the cases whose group, kind, arch and id are among the given words; no words let all pass."""
        wanted = {"group": set(groups), "kind": set(kinds.split()), "arch": set(archs.split()), "id": set(ids.split())}
        return [
            case
            for case in _cases(self.folder())
            if all(not words or case.get(field) in words for field, words in wanted.items())
        ]

    def case(self, name: str) -> Case:
        """Return the case of this id."""
        (found,) = self.cases(ids=name)
        return found


class Folder(Archive):
    """A folder of cases that is not packed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def folder(self) -> Path:
        return self.path


GOLDEN = Archive("golden.tar.gz")
BOTTLENECKS = Archive("bottleneck-cases.tar.gz")
COMPOSITIONS = Archive("composition-cases.tar.gz")
HEADS = Archive("head-cases.tar.gz")
PREFIXES = Archive("prefix-cases.tar.gz")
PEFT_PROMPTS = Archive("peft-prompt-cases.tar.gz")
SETUPS = Archive("setup-cases.tar.gz")
MERGES = Archive("merge-cases.tar.gz")
PAIRS = Archive("pair-cases.tar.gz")
PEFTS = Archive("peft-cases.tar.gz")


@cache
def _unpacked(path: Path) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="adapterhub-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with tarfile.open(path) as archive:
        # Our own archive; the "data" filter would refuse the hostile links that some cases are about.
        if hasattr(tarfile, "tar_filter"):
            archive.extraction_filter = staticmethod(tarfile.tar_filter)
        archive.extractall(folder)  # Python before 3.11.4 knows no filters
    (top,) = folder.iterdir()
    return top


@cache
def _cases(folder: Path) -> list[Case]:
    files = sorted(folder.glob("*/case.json"))
    return [Case(file.parent, json.loads(file.read_text("utf-8"))) for file in files]
