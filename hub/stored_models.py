"""The weights of a model where they lie, one parameter at a time: files are mapped, nothing is loaded as a whole."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import FormatError, NotFoundError
from ..sites import Layout
from .base_models import local_folder

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..adapter import Fingerprint
    from ..architectures import Architecture

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

OLD_LEAVES = {"weight": "gamma", "bias": "beta"}
"""What layer norms call their parameters in the oldest files."""


@dataclass(frozen=True, slots=True)
class StoredView:
    """What merging/request.py asks of a base model.

    Attributes:
        layout: its places.
        parameter: path → a parameter.
    """

    layout: Layout
    parameter: Callable[[str], Tensor]


def _in(paths: Iterable[str], kept: Container[str]) -> tuple[str, ...]:
    return tuple(path for path in paths if path in kept)


class StoredModel:
    """A folder with a config.json and safetensors files."""

    def __init__(self, base: str, *, architecture: Architecture | None = None, revision: str | None = None) -> None:
        """Read configuration and headers.

        Raises:
            NotFoundError: the model is not on this machine.
            FormatError: it has no safetensors files, or they lack weights.
        """
        from ..loader.layout import survey
        from .describing import without_weights

        folder = local_folder(base, revision)
        if folder is None:
            raise NotFoundError(f"the model {base} is not on this machine", hint="load it once, or name its folder")
        self.name = base
        model = without_weights(base, revision, None)
        self._ground = survey(model, architecture)
        self._files = _files(folder)
        names = {name for names in self._files.values() for name in names}
        self._names = dict(_found(self._ground.layout.parameters, names, self._ground.architecture))
        self._where = {name: path for path, own in self._files.items() for name in own}
        buffers = {name for name, _ in model.named_buffers()} | {name for name, _ in self._ground.bare.named_buffers()}
        self._buffers = dict(_found(_persistent(model, self._ground.bare), names, self._ground.architecture))
        used = set(self._names.values())
        self.further = tuple(sorted(name for name in names - used if name not in buffers and not _is_copy(name)))
        self._open: dict[Path, Mapping[str, Tensor]] = {}
        self._refuse_missing(folder)

    def _refuse_missing(self, folder: Path) -> None:
        tied = self._ground.layout.tied
        absent = [
            path
            for path in self._ground.layout.parameters
            if path not in self._names and not any(copy in self._names for copy in tied.get(path, ()))
        ]
        self._absent = {path for path in absent if path.startswith("pooler.")}
        lost = [path for path in absent if path not in self._absent]
        if lost:
            raise FormatError(
                f"the weights in {folder} are not those of a {type(self._ground.model).__name__}",
                faults=[f"{path} is missing" for path in lost[:20]],
            )

    @property
    def around(self) -> frozenset[str]:
        """Parameters around the base model that the files have: those of a head."""
        inside = dict(self._ground.bare.named_parameters())
        return frozenset(path for path in self._names if path not in inside)

    @property
    def outside(self) -> frozenset[str]:
        """Parameters around the base model, those too that share a weight with it and so need none in the files."""
        inside = dict(self._ground.bare.named_parameters(remove_duplicate=False))
        return frozenset(path for path in self._ground.layout.parameters if path not in inside and self._has(path))

    def view(self, outside: Collection[str]) -> StoredView:
        """Return the base model, and of what stands around it only some parameters.

        A pooler without weights in the files is left out.
        """
        full, hidden = self._ground.layout, {*self._absent, *(self.outside - set(outside))}
        kept = {path: shape for path, shape in full.parameters.items() if path not in hidden and self._has(path)}
        layout = dataclasses.replace(
            full,
            parameters=kept,
            linears=tuple(one for one in full.linears if f"{one.path}.weight" in kept),
            # A weight that is shared with something that is left out is shared all the same.
            tied={path: _in(paths, kept) for path, paths in full.tied.items() if path in kept},
        )
        return StoredView(layout, self.parameter)

    def _has(self, path: str) -> bool:
        return any(one in self._names for one in (path, *self._ground.layout.tied.get(path, ())))

    def parameter(self, path: str) -> Tensor:
        """Return a parameter.

        Raises:
            NotFoundError: there is none of this path.
        """
        tied = self._ground.layout.tied.get(path, ())
        name = next((self._names[one] for one in (path, *tied) if one in self._names), None)
        if name is None:
            raise NotFoundError(f"the base model has no parameter {path}")
        return self._tensors(self._where[name])[name]

    @property
    def buffers(self) -> frozenset[str]:
        """Buffers that the files have: values which are no parameters, and which loading the model takes from them."""
        return frozenset(self._buffers)

    def has_same(self, buffer: str, other: StoredModel) -> bool:
        """Return whether a buffer has the same values in another model; one without it has zeros there."""
        one, two = self._buffer(buffer), other._buffer(buffer)
        if one is None or two is None:
            return all(values is None or not values.any() for values in (one, two))
        return one.shape == two.shape and two.equal(one.to(two.dtype))

    def is_inside(self, buffer: str) -> bool:
        """Return whether a buffer is one of the base model, and not of what stands around it."""
        return buffer in dict(self._ground.bare.named_buffers())

    def _buffer(self, path: str) -> Tensor | None:
        name = self._buffers.get(path)
        return None if name is None else self._tensors(self._where[name])[name]

    def fingerprint(self) -> Fingerprint:
        """Return how it is recognised."""
        from ..converters.fingerprints import sampled
        from ..loader.fingerprint import sampled_names

        return sampled({name: self.parameter(name) for name in sampled_names(self._ground)})

    @property
    def architecture(self) -> str:
        """Name of its family's row."""
        return self._ground.architecture.name

    def _tensors(self, path: Path) -> Mapping[str, Tensor]:
        from ..converters import safetensors_file

        if path not in self._open:
            self._open[path] = safetensors_file.read_tensors(path)
        return self._open[path]


def _files(folder: Path) -> dict[Path, tuple[str, ...]]:
    """Return file → the names of its tensors.

    Raises:
        FormatError: there are none, or the index is damaged.
    """
    from ..converters import safetensors_file

    if (folder / SINGLE).is_file():
        files = [folder / SINGLE]
    elif (folder / INDEX).is_file():
        try:
            shards = json.loads((folder / INDEX).read_text("utf-8"))["weight_map"].values()
            files = sorted({folder / Path(str(shard)).name for shard in shards})
        except (UnicodeDecodeError, json.JSONDecodeError, KeyError, AttributeError) as error:
            raise FormatError(f"{folder / INDEX} is no index of weights: {error!r}") from error
    else:
        raise FormatError(f"{folder} has no {SINGLE}", hint="save the model with safe_serialization=True")
    found = {}
    for path in files:
        found[path] = tuple(safetensors_file.read_header(path).tensors)
    return found


def _persistent(model: nn.Module, bare: nn.Module) -> list[str]:
    """Return the buffers that are saved with a model: those of the bare one by their paths in it."""
    inside = {id(buffer): path for path, buffer in bare.named_buffers()}
    saved = model.state_dict().keys()
    return [inside.get(id(buffer), path) for path, buffer in model.named_buffers() if path in saved]


def _found(paths: Iterable[str], names: set[str], row: Architecture) -> Iterator[tuple[str, str]]:
    """Yield (parameter path of today, its name in the files)."""
    for path in paths:
        module, _, leaf = path.rpartition(".")
        for written in (module, row.past(module)):
            leaves = (leaf, OLD_LEAVES.get(leaf, leaf))
            spelled = [f"{written}.{one}" if written else one for one in leaves]
            tried = [f"{prefix}.{one}" if prefix else one for one in spelled for prefix in ("", *row.prefixes)]
            name = next((one for one in tried if one in names), None)
            if name is not None:
                yield path, name
                break


def _is_copy(name: str) -> bool:
    """Return whether a tensor only repeats what the configuration says."""
    return name.endswith(("position_ids", "token_type_ids", "rotary_emb.inv_freq", "masked_bias", "attn.bias"))
