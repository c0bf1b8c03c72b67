"""What the file of an adapter says of itself, for `show` and `index`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..adapter import Manifest, MethodConfig

JSON = Any


@dataclass(frozen=True, slots=True)
class Known:
    """What a file says of itself. It is kept as JSON: what is shown needs no records, and they take time to import.

    Attributes:
        document: configuration and manifest as in the head of a native file, checked against the schema.
        tensors: number of tensors.
        parameters: number of values in all tensors.
        size: size of all files in bytes.
    """

    document: Mapping[str, JSON]
    tensors: int
    parameters: int
    size: int

    @property
    def manifest(self) -> Manifest:
        """The manifest as a record."""
        from ..converters import native_head

        return native_head.manifest_of(self.document)

    @property
    def config(self) -> tuple[MethodConfig, ...]:
        """The configurations, checked by their methods.

        Raises:
            UsageError: a method does not know such a configuration.
        """
        from ..methods import configs_from_json

        return configs_from_json(self.document["config"])


def read_head(path: Path) -> Known:
    """Return what an adapter says of itself; of a native file only the head is read, of others all."""
    from ..converters import native_head

    if not native_head.detect(path):
        return _read_whole(path)
    header, document = native_head.read_head(path)
    parameters = sum(math.prod(info.shape) for info in header.tensors.values())
    return Known(document, len(header.tensors), parameters, header.size)


def _read_whole(path: Path) -> Known:
    from ..adapter import to_json
    from ..converters import read

    adapter = read(path)
    document = {"config": [config.to_json() for config in adapter.config], **to_json(adapter.manifest)}
    parameters = sum(tensor.numel() for tensor in adapter.tensors.values())
    files = [path] if path.is_file() else path.rglob("*")
    size = sum(file.stat().st_size for file in files if file.is_file())
    return Known(document, len(adapter.tensors), parameters, size)
