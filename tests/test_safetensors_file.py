"""Safetensors files: what we write others read, what others write we read, and nothing malformed gets through."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterhub.converters import disk
from adapterhub.converters.safetensors_file import dumps, load, read_header, read_tensors, write
from adapterhub.errors import DigestError, FormatError, NotFoundError, StateError

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.bool,
    torch.complex64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
]
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(lambda name: name != "__metadata__")


@st.composite
def one_tensor(draw: st.DrawFn) -> torch.Tensor:
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    dtype = draw(st.sampled_from(DTYPES))
    count = torch.empty(shape, dtype=dtype).nbytes
    data = draw(st.binary(min_size=count, max_size=count))
    if dtype is torch.bool:
        data = bytes(byte & 1 for byte in data)
    return torch.frombuffer(bytearray(data), dtype=dtype).reshape(shape) if count else torch.empty(shape, dtype=dtype)


TENSORS = st.dictionaries(NAMES, one_tensor(), max_size=5)
METADATA = st.dictionaries(NAMES, st.text(st.characters(exclude_categories=["Cs"])), max_size=3)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether names, dtypes, shapes and bits are the same."""
    return a.keys() == b.keys() and all(
        a[key].dtype == b[key].dtype and a[key].shape == b[key].shape and bits(a[key]) == bits(b[key]) for key in a
    )


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


@given(TENSORS, METADATA)
@settings(deadline=None)
def test_the_reference_reads_what_we_write(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    assert same(safetensors.torch.load(dumps(tensors, metadata)), tensors)


@given(TENSORS, METADATA)
@settings(deadline=None)
def test_we_read_what_the_reference_writes(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    from adapterhub.converters.safetensors_file import loads

    loaded = loads(bytearray(safetensors.torch.save(tensors, metadata or None)), "a file")
    assert same(loaded.tensors, tensors)
    assert loaded.header.metadata == metadata


@given(TENSORS, st.sampled_from([{}, {"format": "pt"}]))
@settings(deadline=None)
def test_our_bytes_are_those_of_the_reference(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    assert dumps(tensors, metadata) == safetensors.torch.save(tensors, metadata or None)


@given(TENSORS, METADATA, st.randoms())
@settings(deadline=None)
def test_the_order_of_names_does_not_change_the_bytes(
    tensors: dict[str, torch.Tensor], metadata: dict[str, str], random: Any
) -> None:
    keys, words = list(tensors), list(metadata)
    random.shuffle(keys)
    random.shuffle(words)
    assert dumps(tensors, metadata) == dumps({k: tensors[k] for k in keys}, {k: metadata[k] for k in words})


def test_a_tensor_that_does_not_lie_in_order_is_written_in_order() -> None:
    turned = torch.arange(6.0).reshape(2, 3).t()
    assert torch.equal(safetensors.torch.load(dumps({"a": turned}))["a"], turned)


def test_a_dtype_without_a_name_is_refused() -> None:
    with pytest.raises(FormatError, match=r"'a' has dtype torch\.complex128"):
        dumps({"a": torch.zeros(1, dtype=torch.complex128)})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A correct file: 24 bytes of `a` and `b`."""
    path = tmp_path / "f.safetensors"
    write(path, {"a": torch.arange(4.0), "b": torch.tensor([1.5, 2.5])}, {"format": "pt", "note": "é"})
    return path


def test_the_digest_is_that_of_the_whole_file(file: Path) -> None:
    expected = f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    assert load(file, digest=True).digest == expected
    write(file, read_tensors(file), read_header(file).metadata, force=True)
    assert f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}" == expected
    assert load(file).digest == ""


def test_a_wrong_digest_is_found_before_the_file_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "garbage"
    path.write_bytes(b"no safetensors file")
    with pytest.raises(DigestError, match="expected sha256:00"):
        load(path, expected="sha256:" + 64 * "0")


def test_a_file_is_not_overwritten_unasked(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(StateError, match="exists already"):
        write(file, {})
    assert file.read_bytes() == before


def test_a_failed_write_leaves_the_old_file_and_nothing_else(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StateError, match="No space left"):
        write(file, {"a": torch.zeros(3)}, force=True)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("map_from", [0, 10**9], ids=["mapped", "read"])
def test_tensors_may_be_written_to_without_changing_the_file(
    file: Path, map_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "MAP_FROM", map_from)
    before = file.read_bytes()
    tensors = read_tensors(file)
    assert torch.equal(tensors["a"], torch.arange(4.0))
    tensors["a"].fill_(7)
    assert torch.equal(tensors["b"], torch.tensor([1.5, 2.5]))
    assert file.read_bytes() == before


def test_data_that_lie_across_the_alignment_are_read_rightly(tmp_path: Path) -> None:
    path = tmp_path / "odd"
    data = b"\x07" + struct.pack("<2f", 1.25, -3.0)
    entries = {"i": entry("U8", [1], 0, 1), "f": entry("F32", [2], 1, 9)}
    path.write_bytes(raw(json.dumps(entries), data))
    tensors = read_tensors(path)
    assert tensors["f"].tolist() == [1.25, -3.0]
    assert tensors["i"].tolist() == [7]


class Ranges:
    """A remote file that counts what is asked of it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked = 0

    def read_range(self, start: int, length: int) -> bytes:
        self.asked += length
        return self.data[start : start + length]


def test_a_header_is_read_by_range_without_the_data() -> None:
    remote = Ranges(dumps({"a": torch.zeros(300_000)}, {"note": "x"}))
    header = read_header(remote, size=len(remote.data))
    assert header.metadata == {"note": "x"}
    assert header.tensors["a"].shape == (300_000,)
    assert header.size == len(remote.data)
    assert remote.asked < 20_000


def test_a_header_longer_than_the_first_read_is_fetched_in_a_second_one() -> None:
    remote = Ranges(dumps({f"tensor-{i}": torch.zeros(1) for i in range(1000)}))
    assert len(read_header(remote).tensors) == 1000


def test_a_header_that_was_read_before_is_held_against_each_file_anew(tmp_path: Path) -> None:
    content = dumps({"a": torch.zeros(3)})
    (tmp_path / "a").write_bytes(content)
    assert read_header(tmp_path / "a") == read_header(tmp_path / "a")
    for name, other in (("longer", content + b"x"), ("shorter", content[:-1])):
        (tmp_path / name).write_bytes(other)
        with pytest.raises(FormatError, match=f"{name} is no correct safetensors file"):
            read_header(tmp_path / name)


def test_reading_a_header_loads_no_torch(file: Path) -> None:
    code = (
        "import sys; from adapterhub.converters.safetensors_file import read_header; "
        f"read_header({str(file)!r}); print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def raw(header: str | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else header.encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: Any = "F32", shape: Any = (1,), begin: Any = 0, end: Any = 4) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape) if isinstance(shape, tuple) else shape, "data_offsets": [begin, end]}


def one(**fields: Any) -> bytes:
    return raw(json.dumps({"t": {**entry(), **fields}}), bytes(4))


def two(first: dict[str, Any], second: dict[str, Any], size: int) -> bytes:
    return raw(json.dumps({"t": first, "u": second}), bytes(size))


MALFORMED = {
    "nothing": (b"", "0 bytes"),
    "less than a length": (b"\x01\x02", "2 bytes"),
    "a huge header": (raw("{}", length=2**60), "1152921504606846976 bytes"),
    "a header longer than the file": (raw("{}", length=3), "claims a header of 3 bytes"),
    "an empty header": (raw(""), "no JSON object"),
    "a list": (raw("[]"), "no JSON object"),
    "no JSON": (raw("{nonsense"), "JSON"),
    "no UTF-8": (raw(b'{"\xff": 1}'), "UTF-8"),
    "deep nesting": (raw('{"a":' + 10_000 * "[" + 10_000 * "]" + "}"), "deep"),
    "a name twice": (raw(f'{{"t":{json.dumps(entry())},"t":{json.dumps(entry())}}}', bytes(4)), "'t'"),
    "a field twice": (raw('{"t":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)), "dtype"),
    "metadata that are a list": (raw('{"__metadata__":[]}'), "__metadata__"),
    "metadata that are no texts": (raw('{"__metadata__":{"a":1}}'), "__metadata__['a']"),
    "a tensor that is a number": (raw('{"t":3}'), "'t'"),
    "a field too many": (one(extra=1), "exactly dtype, shape and data_offsets"),
    "a field too few": (raw('{"t":{"dtype":"F32","shape":[1]}}', bytes(4)), "exactly"),
    "an unknown dtype": (one(dtype="F13"), "'F13'"),
    "a dtype that is a list": (one(dtype=["F32"]), "unknown dtype"),
    "a negative size": (one(shape=[-1]), "whole numbers"),
    "a size that is a float": (one(shape=[1.0]), "whole numbers"),
    "a size that is true": (one(shape=[True]), "whole numbers"),
    "a shape that is a number": (one(shape=1), "whole numbers"),
    "a shape beyond all bounds": (one(shape=[0, 2**62, 2**62]), "is no tensor"),
    "a thousand dimensions": (one(shape=[1] * 1000), "is no tensor"),
    "three offsets": (one(data_offsets=[0, 4, 8]), "two data_offsets"),
    "a negative offset": (one(data_offsets=[-4, 0]), "whole numbers"),
    "offsets turned round": (one(data_offsets=[4, 0]), "hold -4 bytes"),
    "offsets that do not fit the shape": (one(data_offsets=[0, 3]), "hold 3 bytes, shape and dtype need 4"),
    "offsets past the end": (one(shape=[2], data_offsets=[0, 8]), "should have 8 bytes, the file ends after 4"),
    "a first tensor that does not begin at 0": (one(data_offsets=[4, 8]), "hole"),
    "an overlap": (two(entry(), entry(begin=2, end=6), 6), "overlaps"),
    "a hole": (two(entry(), entry(begin=8, end=12), 12), "hole"),
    "bytes after the end": (raw(json.dumps({"t": entry()}), bytes(9)), "5 bytes follow"),
    "data without a tensor": (raw("{}", b"x"), "1 bytes follow"),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_file_is_refused_with_the_reason(what: str, tmp_path: Path) -> None:
    data, reason = MALFORMED[what]
    path = tmp_path / "bad.safetensors"
    path.write_bytes(data)
    for read in (read_tensors, read_header):
        with pytest.raises(FormatError) as error:
            read(path)
        assert reason in str(error.value)
        assert "bad.safetensors" in str(error.value)


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "f"
    entries = {"a": entry("F13"), "b": entry(shape=[-1]), "c": entry(end=3), "__metadata__": 3}
    path.write_bytes(raw(json.dumps(entries)))
    with pytest.raises(FormatError) as error:
        read_header(path)
    assert len(error.value.faults) == 4


def test_of_many_faults_the_first_are_told_and_the_rest_counted(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(raw(json.dumps({f"t{i}": 0 for i in range(1000)})))
    with pytest.raises(FormatError) as error:
        read_header(path)
    assert len(error.value.faults) == 21
    assert "980 more" in error.value.faults[-1]


def test_the_bound_on_the_header_can_be_made_narrower(file: Path) -> None:
    with pytest.raises(FormatError, match="allowed are 16"):
        read_header(file, limit=16)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="not a file"):
        read_tensors(tmp_path)
    with pytest.raises(FormatError, match="not a file"):
        read_tensors(tmp_path / "pipe")
    with pytest.raises(FormatError, match="not a file"):
        read_tensors("/dev/zero")
    with pytest.raises(FormatError, match="cannot be opened"):
        read_tensors(tmp_path / "loop")
    with pytest.raises(NotFoundError):
        read_tensors(tmp_path / "nothing")


def test_a_link_to_a_file_elsewhere_may_be_given_by_name_but_not_lie_in_a_folder(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(file)
    assert load(folder / "link").tensors.keys() == {"a", "b"}
    with pytest.raises(FormatError, match="leads out of"):
        load(folder / "link", inside=folder)


def test_a_snapshot_in_a_cache_of_the_hub_may_link_to_its_blobs(file: Path, tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models--x" / "snapshots" / "1", tmp_path / "models--x" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "abc").write_bytes(file.read_bytes())
    (snapshot / "f").symlink_to(Path("../../blobs/abc"))
    assert load(snapshot / "f", inside=snapshot).tensors.keys() == {"a", "b"}


def changes() -> Iterator[tuple[int, int]]:
    size = len(dumps({"a": torch.arange(4.0), "b": torch.tensor([1.5, 2.5])}, {"format": "pt", "note": "é"}))
    yield from ((place, value) for place in range(size) for value in (0, 0x22, 0x30, 0x39, 0x7D, 0xFF))


def test_a_changed_byte_never_ends_in_a_foreign_error(file: Path) -> None:
    good = file.read_bytes()
    loaded = refused = 0
    for place, value in changes():
        data = bytearray(good)
        data[place] = value
        try:
            from adapterhub.converters.safetensors_file import loads

            loads(data, "f")
            loaded += 1
        except FormatError:
            refused += 1
    assert loaded
    assert refused > 500


def test_a_file_cut_anywhere_is_refused(file: Path) -> None:
    from adapterhub.converters.safetensors_file import loads

    good = file.read_bytes()
    for size in range(len(good)):
        with pytest.raises(FormatError):
            loads(bytearray(good[:size]), "f")


def test_a_single_value_out_of_a_larger_tensor_is_written(tmp_path: Path) -> None:
    value = torch.arange(64.0).reshape(8, 8).diagonal()[3:4]
    assert value.stride() == (9,)
    assert value.is_contiguous()
    write(tmp_path / "a.safetensors", {"a": value})
    assert torch.equal(read_tensors(tmp_path / "a.safetensors")["a"], value)
