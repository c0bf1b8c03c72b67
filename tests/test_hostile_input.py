"""Hostile input ends in an error of ours: fast, in little memory, with nothing executed and nothing left behind.

Every case runs in a process of its own, forked from one that has everything imported, with its memory and time bounded.
"""

from __future__ import annotations

import gc
import io
import json
import multiprocessing
import os
import pickle
import resource
import shutil
import struct
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from golden import GOLDEN, Case
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterhub.converters import read, torch_file
from adapterhub.errors import AdapterHubError, FormatError

MEMORY = 200 * 2**20
SECONDS = 2


def confined(action: Callable[[], object]) -> dict[str, Any]:
    """Return how an action ended in a process that may use so much memory and time and no more."""
    here, there = multiprocessing.Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        _run(action, there)
    there.close()
    try:
        answer: dict[str, Any] = here.recv() if here.poll(30) else {"kind": "silence"}
    except EOFError:
        answer = {"kind": "death"}
    _, status = os.waitpid(child, 0)
    return answer | {"status": status}


def _run(action: Callable[[], object], pipe: Connection) -> None:
    """Run an action in the child and end it; never returns."""
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        # What other tests have left is not looked through on account of this one.
        gc.freeze()
        start = time.process_time()
        try:
            action()
            answer = {"kind": "ok", "message": ""}
        except AdapterHubError as error:
            answer = {"kind": "ours", "name": type(error).__name__, "message": str(error), "hint": error.hint}
        except BaseException as error:  # noqa: BLE001
            answer = {"kind": "foreign", "name": type(error).__name__, "message": str(error)[:500]}
        pipe.send(answer | {"seconds": time.process_time() - start})
    finally:
        os._exit(0)


def ends_in_ours(action: Callable[[], object]) -> str:
    """Return the message of the error of ours in which an action ends; anything else fails the test."""
    answer = confined(action)
    assert answer["kind"] == "ours", answer
    assert answer["seconds"] < SECONDS
    return str(answer["message"])


BAD = GOLDEN.cases(groups="G")
ALLOWED = {"error": {"ours"}, "error_or_warning": {"ours"}, "ok_or_warning": {"ok"}}


def source_of(case: Case) -> Path:
    return case.folder / case["archive"] if case.get("archive") else case.adapter


@pytest.mark.parametrize("case", BAD, ids=str)
def test_every_bad_input_ends_as_it_must(case: Case) -> None:
    marker = Path(case["must_not_exist_after"])
    assert not marker.exists()
    before = listing(case.folder)
    answer = confined(lambda: read(source_of(case)))
    assert answer["kind"] in ALLOWED[case["expect"]], answer
    assert answer["seconds"] < SECONDS
    assert not marker.exists()
    assert listing(case.folder) == before


def listing(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


def test_the_confinement_notices_what_it_must() -> None:
    # Far beyond the limit: what the allocator has kept of earlier tests could serve a little more than it.
    assert confined(lambda: bytearray(64 * MEMORY))["kind"] == "foreign"
    assert confined(_spin)["kind"] == "death"
    assert confined(lambda: 1 / 0)["name"] == "ZeroDivisionError"
    assert confined(lambda: None)["kind"] == "ok"


def _spin() -> None:
    while True:
        pass


class Run:
    """Unpickles into a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def marker_of(tmp_path: Path) -> Path:
    return tmp_path / "executed"


HOSTILE_CALLS: dict[str, Callable[[str], Any]] = {
    "os.system": lambda path: Run(os.system, f"touch {path}"),
    "open": lambda path: Run(open, path, "w"),
    "eval": lambda path: Run(eval, f"open({path!r}, 'w')"),
    "a call within a list": lambda path: [1, {"a": Run(open, path, "w")}],
    "a call as a value of the state dict": lambda path: {"w": Run(open, path, "w")},
    "getattr": lambda path: Run(getattr, "text", "upper"),
    "tempfile": lambda path: Run(shutil.copy, "/etc/hostname", path),
}


@pytest.mark.parametrize("call", HOSTILE_CALLS)
@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("container", ["bare", "zip", "old"])
def test_a_pickle_is_never_executed(call: str, protocol: int, container: str, tmp_path: Path) -> None:
    data = pickle.dumps(HOSTILE_CALLS[call](str(marker_of(tmp_path))), protocol=protocol)
    path = weights(tmp_path, {"bare": data, "zip": zipped(data), "old": old(data)}[container])
    with pytest.raises(FormatError):
        torch_file.read_tensors(path)
    assert not marker_of(tmp_path).exists()


def weights(folder: Path, data: bytes) -> Path:
    path = folder / "pytorch_adapter.bin"
    path.write_bytes(data)
    return path


def zipped(data: bytes, members: dict[str, bytes] | None = None, method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("archive/data.pkl", data)
        for name, content in (members or {}).items():
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()


def old(data: bytes, keys: tuple[str, ...] = (), storages: bytes = b"") -> bytes:
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2}}
    head = [pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, system)]
    return b"".join(head) + data + pickle.dumps(list(keys), protocol=2) + storages


def tensor(
    shape: tuple[int, ...], strides: tuple[int, ...], count: int, *, offset: int = 0, kind: str = "Float"
) -> bytes:
    """The pickle of a state dict with one tensor on storage 0, as torch.save writes it."""
    out = b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage"
    out += f"ctorch\n{kind}Storage\n".encode() + b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + number(count) + b"tQ"
    out += number(offset)
    for numbers in (shape, strides):
        out += b"(" + b"".join(map(number, numbers)) + b"t"
    return out + b"\x89ccollections\nOrderedDict\n)RtRs."


def number(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def test_the_pickles_of_these_tests_are_those_of_torch() -> None:
    data = zipped(tensor((2, 3), (3, 1), 6), {"data/0": struct.pack("<6f", *range(6)), "version": b"3\n"})
    expected = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(torch.load(io.BytesIO(data), weights_only=True)["w"], expected)
    assert torch.equal(torch_file.loads(bytearray(data), "f")["w"], expected)
    data = old(tensor((2, 3), (3, 1), 6), ("0",), struct.pack("<q6f", 6, *range(6)))
    assert torch.equal(torch_file.loads(bytearray(data), "f")["w"], expected)


FOUR = struct.pack("<4f", 1, 2, 3, 4)
HOSTILE_FILES: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "a zip without an end": lambda: b"PK\x03\x04" + bytes(100),
    "an empty zip": lambda: zipped(b"")[:4] + zipped(b""),
    "a zip without a pickle": lambda: _zip({"a/b": b""}),
    "a zip with two pickles": lambda: _zip({"a/data.pkl": b"N.", "b/data.pkl": b"N."}),
    "a compressed zip": lambda: zipped(bytes(50_000_000), method=zipfile.ZIP_DEFLATED),
    "a zip bomb of overlapping members": lambda: _overlapping(),
    "a zip with a member twice": lambda: _twice(),
    "a pickle larger than allowed": lambda: zipped(b"\x80\x02" + b"N0" * 3_000_000 + b"N."),
    "a pickle of too many opcodes": lambda: zipped(b"\x80\x02" + b"N0" * 1_000_000 + b"N."),
    "a huge memo": lambda: zipped(b"\x80\x02Nr\xff\xff\xff\xff."),
    "a huge text": lambda: zipped(b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x."),
    "a huge number": lambda: zipped(b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x."),
    "a number of many digits": lambda: zipped(b"I" + b"9" * 1_000_000 + b"\n."),
    "a deep list": lambda: zipped(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."),
    "a tuple that doubles": lambda: zipped(b"\x80\x02}" + b")" + b"2\x86" * 60 + b"Ns."),
    "a stack that is empty": lambda: zipped(b"\x80\x02s."),
    "a mark that is not there": lambda: zipped(b"\x80\x02t."),
    "no end": lambda: zipped(b"\x80\x02}"),
    "an unknown opcode": lambda: zipped(b"\xff."),
    "a state dict in a list": lambda: zipped(pickle.dumps([1], protocol=2)),
    "a text for a tensor": lambda: zipped(pickle.dumps({"w": "text"}, protocol=2)),
    "a key that is a number": lambda: zipped(pickle.dumps({1: "text"}, protocol=2)),
    "a storage that is not there": lambda: zipped(tensor((4,), (1,), 4)),
    "a storage that claims terabytes": lambda: zipped(tensor((2**40,), (1,), 2**40), {"data/0": FOUR}),
    "a storage larger than its member": lambda: zipped(tensor((5,), (1,), 5), {"data/0": FOUR}),
    "a view beyond its storage": lambda: zipped(tensor((4,), (2,), 4), {"data/0": FOUR}),
    "a view that begins beyond it": lambda: zipped(tensor((1,), (1,), 4, offset=4), {"data/0": FOUR}),
    "a negative offset": lambda: zipped(tensor((1,), (1,), 4, offset=-1), {"data/0": FOUR}),
    "a negative size": lambda: zipped(tensor((-1,), (1,), 4), {"data/0": FOUR}),
    "a negative stride": lambda: zipped(tensor((4,), (-1,), 4), {"data/0": FOUR}),
    "a stride of zero over terabytes": lambda: zipped(tensor((2**40,), (0,), 4), {"data/0": FOUR}),
    "strides of zero beyond all numbers": lambda: zipped(tensor((2**40, 2**40), (0, 0), 4), {"data/0": FOUR}),
    "nothing in many dimensions": lambda: zipped(tensor((0, 2**62, 2**62), (1, 1, 1), 4), {"data/0": FOUR}),
    "a thousand dimensions": lambda: zipped(tensor((1,) * 1000, (1,) * 1000, 4), {"data/0": FOUR}),
    "an unknown storage": lambda: zipped(tensor((4,), (1,), 4, kind="Magic"), {"data/0": FOUR}),
    "big-endian bytes": lambda: zipped(tensor((4,), (1,), 4), {"data/0": FOUR, "byteorder": b"big"}),
    "an old file that is cut": lambda: old(tensor((4,), (1,), 4), ("0",), struct.pack("<q", 4) + FOUR[:8]),
    "an old file with bytes behind": lambda: old(tensor((4,), (1,), 4), ("0",), struct.pack("<q", 4) + FOUR + b"x"),
    "an old file that claims terabytes": lambda: old(tensor((4,), (1,), 4), ("0",), struct.pack("<q", 2**60)),
    "an old file with a negative count": lambda: old(tensor((4,), (1,), 4), ("0",), struct.pack("<q", -1) + FOUR),
    "an old file without storages": lambda: old(tensor((4,), (1,), 4)),
    "a tar archive": lambda: _tar(),
}


def _zip(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def _twice() -> bytes:
    return zipped(b"N.", {"data/0": b"1", "data/1": b"2"}).replace(b"data/1", b"data/0")


def _overlapping() -> bytes:
    """A zip whose list of members names one large member a thousand times."""
    data = zipped(b"N.", {"data/0": bytes(1_000_000)})
    end = data.rfind(b"PK\x05\x06")
    start = struct.unpack_from("<I", data, end + 16)[0]
    entries = data[start:end]
    last = entries[entries.rfind(b"PK\x01\x02") :]
    more = b"".join(last.replace(b"data/0", f"dat{i:03}".encode()) for i in range(1000))
    directory = entries + more
    return data[:start] + directory + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1002, 1002, len(directory), start, 0)


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../../escape"), io.BytesIO())
    return file.getvalue()


@pytest.mark.parametrize("what", HOSTILE_FILES)
def test_a_hostile_file_of_tensors_ends_in_an_error_of_ours(what: str, tmp_path: Path) -> None:
    path = weights(tmp_path, HOSTILE_FILES[what]())
    message = ends_in_ours(lambda: torch_file.read_tensors(path))
    assert "pytorch_adapter.bin" in message
    assert [entry.name for entry in tmp_path.iterdir()] == ["pytorch_adapter.bin"]


@pytest.mark.parametrize("size", [2**31, 2**40])
@pytest.mark.parametrize("name", ["pytorch_adapter.bin", "adapter.safetensors", "adapter_config.json"])
def test_a_file_of_holes_costs_no_memory(name: str, size: int, tmp_path: Path) -> None:
    folder = copy(tmp_path)
    (folder / name).unlink(missing_ok=True)
    if name == "pytorch_adapter.bin":
        (folder / "adapter.safetensors").unlink()
    os.truncate(os.open(folder / name, os.O_CREAT | os.O_WRONLY), size)
    ends_in_ours(lambda: read(folder))


def copy(tmp_path: Path, case: str = "a-bert-par_bn") -> Path:
    return Path(shutil.copytree(GOLDEN.case(case).adapter, tmp_path / "adapter"))


HOSTILE_JSON = {
    "deep lists": b"[" * 1_000_000,
    "deep objects": b'{"a":' * 1_000_000,
    "a number of many digits": b'{"hidden_size": ' + b"9" * 3_000_000 + b"}",
    "a number beyond all": b'{"hidden_size": 1e999999999}',
    "infinity": b'{"hidden_size": Infinity}',
    "a key twice": b'{"name": "a", "name": "b"}',
    "another encoding": '{"name": "a"}'.encode("utf-16"),
    "bytes of no encoding": b'{"name": "\xff"}',
    "half of a surrogate pair": b'{"name": "\\ud800", "model_type": "bert", "config": {}}',
    "a list": b"[]",
    "a text": b'"adapter"',
    "nothing": b"",
    "more than a document may have": b" " * 5_000_000,
}


@pytest.mark.parametrize("file", ["adapter_config.json", "head_config.json"])
@pytest.mark.parametrize("what", HOSTILE_JSON)
def test_a_hostile_document_ends_in_an_error_of_ours(what: str, file: str, tmp_path: Path) -> None:
    folder = copy(tmp_path, "c-bert-cls2")
    (folder / file).write_bytes(HOSTILE_JSON[what])
    ends_in_ours(lambda: read(folder))


def test_many_keys_and_one_of_them_twice_end_in_time(tmp_path: Path) -> None:
    folder = copy(tmp_path)
    keys = "".join(f'"k{i}":0,' for i in range(100_000))
    (folder / "adapter_config.json").write_text(f'{{{keys}"k7":1}}')
    ends_in_ours(lambda: read(folder))


HOSTILE_CONFIGS: dict[str, dict[str, Any]] = {
    "a factor of zero": {"reduction_factor": 0},
    "a factor that is tiny": {"reduction_factor": 1e-300},
    "a factor that is huge": {"reduction_factor": 1e300},
    "a negative factor": {"reduction_factor": -4},
    "a factor for a layer that is not": {"reduction_factor": {"0": 2, "99999999999999999999": 2}},
    "factors without end": {"reduction_factor": {str(i): 2 for i in range(100_000)}},
    "layers left out without end": {"leave_out": list(range(2, 200_000))},
    "a layer left out beyond all": {"leave_out": [10**30]},
    "a negative layer": {"leave_out": [0, -1]},
    "an activation that is a path": {"non_linearity": "../../etc/passwd"},
    "a seed beyond all": {"init_weights_seed": 10**300, "scaling": "x"},
}


@pytest.mark.parametrize("what", HOSTILE_CONFIGS)
def test_a_hostile_configuration_ends_in_time(what: str, tmp_path: Path) -> None:
    folder = copy(tmp_path)
    document = json.loads((folder / "adapter_config.json").read_text())
    document["config"] |= HOSTILE_CONFIGS[what]
    (folder / "adapter_config.json").write_text(json.dumps(document))
    answer = confined(lambda: read(folder))
    assert answer["kind"] in {"ours", "ok"}, answer
    assert answer["seconds"] < SECONDS


@pytest.mark.parametrize("name", ["x" * 1_000_000, "a.b", "..", "a\x00b", "(a+)+$", "\n", "."])
def test_a_hostile_name_ends_in_time(name: str, tmp_path: Path) -> None:
    folder = copy(tmp_path)
    document = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(document | {"name": name}))
    ends_in_ours(lambda: read(folder))


SPECIAL: dict[str, Callable[[Path], Any]] = {
    "a pipe": lambda path: os.mkfifo(path),
    "a folder": lambda path: path.mkdir(),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to a file elsewhere": lambda path: path.symlink_to("/etc/hostname"),
    "a link upwards": lambda path: path.symlink_to("../../secret"),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a link to itself": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter.safetensors", "pytorch_adapter.bin"])
@pytest.mark.parametrize("what", SPECIAL)
def test_a_special_file_ends_in_an_error_of_ours(what: str, file: str, tmp_path: Path) -> None:
    folder = copy(tmp_path)
    (tmp_path / "secret").write_text("{}")
    (folder / ("adapter.safetensors" if file.endswith(".bin") else file)).unlink()
    SPECIAL[what](folder / file)
    ends_in_ours(lambda: read(folder))


def good_files() -> Iterator[tuple[str, bytes]]:
    for case in ("c-bert-cls2", "a-bertvar-ln_both"):
        for path in sorted(GOLDEN.case(case).adapter.iterdir()):
            yield f"{case}/{path.name}", path.read_bytes()


GOOD = dict(good_files())


@given(st.sampled_from(sorted(GOOD)), st.integers(0, 2**16), st.binary(min_size=1, max_size=8), st.booleans())
@settings(deadline=None, max_examples=300)
def test_no_change_of_a_file_ends_in_a_foreign_error(name: str, place: int, junk: bytes, cut: bool) -> None:
    import tempfile

    case, file = name.split("/")
    data = GOOD[name]
    place %= len(data)
    with tempfile.TemporaryDirectory() as home:
        folder = copy(Path(home), case)
        (folder / file).write_bytes(data[:place] + junk + (b"" if cut else data[place + len(junk) :]))
        try:
            read(folder)
        except AdapterHubError:
            return


@given(st.binary(max_size=200), st.sampled_from(["bare", "zip", "old"]))
@settings(deadline=None, max_examples=300)
def test_no_bytes_taken_for_a_pickle_end_in_a_foreign_error(data: bytes, container: str) -> None:
    made = {"bare": data, "zip": zipped(data), "old": old(data)}[container]
    try:
        found = torch_file.loads(bytearray(made), "junk")
    except FormatError:
        return
    assert found == {}, "an empty dictionary is all that so few bytes can say"
