"""The readers as functions of bytes, one for each kind of input; what they do not refuse has to obey their laws.

`run(data)` takes the first byte for the kind. It returns where the input is read, or refused with an error of ours;
any other exception, a law that is broken included, is a fault.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import pickle
import re
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from draws import Draws
from seeds import TYPES, VALUES, Seed, fields, seeds, words

from adapterhub import schemas
from adapterhub.composition import parse
from adapterhub.converters import Parts, read, safetensors_file, torch_file
from adapterhub.converters.peft.pattern import matches
from adapterhub.converters.values import check_finite
from adapterhub.errors import AdapterHubError

JSON = Any


def run(data: bytes) -> None:
    """Give an input to the reader that its first byte names."""
    draws = Draws(data)
    reader = draws.choice(READERS)
    with contextlib.suppress(AdapterHubError):
        reader(draws)


def a_pickle(draws: Draws) -> None:
    """Read a zip archive of torch.save with these bytes as its pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", draws.rest())
        archive.writestr("archive/data/0", bytes(range(64)))
        archive.writestr("archive/data/1", bytes(8))
    torch_file.loads(bytearray(file.getvalue()), "fuzz")


def an_old_file(draws: Draws) -> None:
    """Read a file of torch before 1.6, with these bytes behind what it always begins with."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2}}
    head = b"".join(pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, system))
    torch_file.loads(bytearray(head + draws.rest()), "fuzz")


def any_weights(draws: Draws) -> None:
    """Read bytes as they are as a file of torch.save."""
    torch_file.loads(bytearray(draws.rest()), "fuzz")


def a_safetensors_file(draws: Draws) -> None:
    """Read bytes as they are as a safetensors file; what is read is written as a file that holds the same."""
    loaded = safetensors_file.loads(bytearray(draws.rest()), "fuzz")
    again = safetensors_file.loads(bytearray(safetensors_file.dumps(loaded.tensors, loaded.header.metadata)), "again")
    assert _same_tensors(loaded.tensors, again.tensors)


def a_header(draws: Draws) -> None:
    """Read bytes as the header of a safetensors file, its length put right."""
    room = draws.number(64)
    text = draws.rest()
    safetensors_file.loads(bytearray(len(text).to_bytes(8, "little") + text + bytes(room)), "fuzz")


def a_document(draws: Draws) -> None:
    """Read bytes as JSON; what is read is written as text that says the same."""
    value = schemas.loads(draws.rest(), "fuzz")
    assert schemas.loads(schemas.canonical(value), "again") == value


def an_adapter(draws: Draws) -> None:
    """Change documents and tensors of an adapter, and decode them; what is decoded is encoded as it was."""
    seed = draws.choice(seeds())
    parts = _changed(seed, draws)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        adapter = seed.format.decode(parts)
    seed.format.account(adapter)
    check_finite(adapter.tensors, "fuzz")
    again = seed.format.encode(adapter)
    if seed.format.name == "native" or any("left out" in str(one.message) for one in told):
        # One adapter has one file; what it is made from may be spelled otherwise, or hold what is none of it.
        parts = again
        again = seed.format.encode(seed.format.decode(again))
    assert _as_text(again.documents) == _as_text(parts.documents), "the documents come back as they were"
    assert again.tensors.keys() == parts.tensors.keys()
    assert all(_same_tensors(again.tensors[group], parts.tensors[group]) for group in parts.tensors)


def an_archive(draws: Draws) -> None:
    """Read bytes as they are as a zip archive of an adapter."""
    with tempfile.TemporaryDirectory() as home:
        path = Path(home) / "x.zip"
        path.write_bytes(draws.rest())
        read(path)


def a_composition(draws: Draws) -> None:
    """Read bytes as the text of a composition; what is read is written as text that says the same."""
    text = draws.rest().decode("utf-8", "replace")
    node = parse(text)
    assert parse(str(node)) == node


def a_pattern(draws: Draws) -> None:
    """Read bytes as a pattern of modules and a path; where it is understood, it says the same as the re module."""
    path, _, text = draws.rest().decode("ascii", "replace").partition("\n")
    found = matches(text, path)
    if len(text) < 20 and len(path) < 12:
        assert found == (re.fullmatch(text, path) is not None)


READERS: tuple[Callable[[Draws], None], ...] = (
    an_adapter,
    a_pickle,
    an_old_file,
    any_weights,
    a_safetensors_file,
    a_header,
    a_document,
    an_archive,
    a_composition,
    a_pattern,
)


def _changed(seed: Seed, draws: Draws) -> Parts:
    """Return the parts of a seed after a few changes."""
    documents = json.loads(json.dumps(dict(seed.parts.documents)))
    tensors = {group: dict(found) for group, found in seed.parts.tensors.items()}
    for _ in range(1 + draws.number(4)):
        if draws.number(3):
            _change_document(documents, draws)
        else:
            _change_tensors(tensors[draws.choice(sorted(tensors))], draws)
    return dataclasses.replace(seed.parts, documents=documents, tensors=tensors)


def _change_document(documents: dict[str, JSON], draws: Draws) -> None:
    """Set, remove, add or rename a field somewhere in the documents."""
    home = draws.choice([place for document in documents.values() for place in _places(document)])
    keys = list(home) if isinstance(home, dict) else list(range(len(home)))
    what = draws.number(4)
    if what == 0 or not keys:
        value = json.loads(json.dumps(draws.choice(VALUES)))
        if isinstance(home, dict):
            home[draws.choice(fields())] = value
        else:
            home.append(value)
        return
    key = draws.choice(keys)
    if what == 1:
        home[key] = json.loads(json.dumps(draws.choice(VALUES)))
    elif what == 2:
        del home[key]
    elif isinstance(home, dict):
        home[draws.choice(fields())] = home.pop(key)
    else:
        home.append(home[key])


def _places(value: JSON) -> list[Any]:
    """Return the objects and lists in a value, itself included."""
    if not isinstance(value, (dict, list)):
        return []
    inner = value.values() if isinstance(value, dict) else value
    return [value, *(place for item in inner for place in _places(item))]


def _change_tensors(tensors: dict[str, torch.Tensor], draws: Draws) -> None:
    """Rename, remove, repeat or reshape a tensor."""
    if not tensors:
        return
    key = draws.choice(sorted(tensors))
    what = draws.number(4)
    if what == 0:
        del tensors[key]
    elif what in (1, 2):
        parts = key.split(".")
        place = draws.number(len(parts))
        word = draws.choice((*words(), "", "999999", "9" * 30, "-1", "é", "{i}", "{name}", "x" * 1500))
        parts[place : place + 1] = [word, *([parts[place]] if draws.number(4) == 0 else [])]
        tensor = tensors[key] if what == 1 else tensors.pop(key)
        tensors[".".join(parts)] = tensor
    else:
        tensors[key] = _other(tensors[key], draws)


def _other(tensor: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Return a tensor of other shape, type or values."""
    what = draws.number(7)
    if what == 0:
        return tensor.t().contiguous() if tensor.ndim == 2 else tensor[None]
    if what == 1:
        return tensor.reshape(-1)
    if what == 2:
        return tensor.new_empty((0, *tensor.shape[1:]))
    if what == 3:
        return tensor.new_ones(())
    if what == 4:
        return (
            tensor.double().clone().fill_((0.0, float("nan"), float("inf"), -1.0)[draws.number(4)]).to(tensor.dtype)
            if tensor.is_floating_point()
            else tensor
        )
    if what == 5:
        return torch.cat([tensor, tensor]) if tensor.ndim else tensor
    return tensor.to(draws.choice(TYPES))


def _as_text(documents: Mapping[str, JSON]) -> str:
    return json.dumps(dict(documents), sort_keys=True)


def _same_tensors(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    """Whether two files hold the same tensors bit for bit."""
    return a.keys() == b.keys() and all(
        t.dtype == b[key].dtype and t.shape == b[key].shape and _bytes(t) == _bytes(b[key]) for key, t in a.items()
    )


def _bytes(tensor: torch.Tensor) -> bytes:
    return b"" if tensor.numel() == 0 else tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
