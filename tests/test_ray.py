"""Bulk work on a Ray cluster of two nodes, one of which is killed half-way: all is done, and the report is right."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from bulk_registry import make_registry
from cli_session import type_command
from local_server import Answer, Request, StaticHost, running
from ray_cluster import Cluster, cluster

from adapterhub.registry import Settings, open_registry

pytestmark = [pytest.mark.usefixtures("online"), pytest.mark.slow]

COUNT = 12
ALL = COUNT * 2


@pytest.fixture(scope="module")
def head() -> Iterator[Cluster]:
    """A cluster of one node."""
    with cluster() as found:
        yield found


@pytest.fixture
def two_nodes(head: Cluster) -> Cluster:
    """A cluster of two nodes with one processor each."""
    head.complete()
    return head


@pytest.fixture(scope="session")
def made(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_registry(tmp_path_factory.mktemp("bulk") / "hub", base, COUNT, ("lora[r=2]",))


@pytest.fixture
def registry(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "hub"))


def begun(*arguments: str | Path) -> subprocess.Popen[str]:
    """Return a command for all adapters of a registry that was started."""
    command = [sys.executable, "-m", "adapterhub.cli", "index", *map(str, arguments), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def reported(process: subprocess.Popen[str], status: int = 0) -> Any:
    """Return the report of a command, when it has ended."""
    out, err = process.communicate(timeout=240)
    assert process.returncode == status, out + err
    return json.loads(out)


def wait_until(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Return when something is reached while the command runs."""
    while not reached():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def test_a_mirror_is_whole_though_a_node_was_killed_half_way(
    registry: Path, tmp_path: Path, two_nodes: Cluster
) -> None:
    files = {quote(p.relative_to(registry).as_posix()): p.read_bytes() for p in registry.rglob("*") if p.is_file()}

    def slowly(request: Request) -> Answer | None:
        time.sleep(0.3)
        return None

    with running(StaticHost(files)) as host:
        host.faults.append(slowly)
        process = begun("mirror", host.url, tmp_path / "out", "--ray", two_nodes.address)
        wait_until(lambda: len(host.requests) > ALL // 2, process)
        two_nodes.kill()
        found = reported(process)
    assert (found["adapters"], len(found["copied"]), found["failed"]) == (COUNT, COUNT, [])
    # What a task had brought when its node died is not fetched again, and not counted.
    assert 0 < found["size"] <= sum(path.stat().st_size for path in registry.glob("*.safetensors"))
    out = open_registry(tmp_path / "out")
    for name in out.index.names():
        assert out.index.entry(name).versions.keys() == {"1.0.0", "1.1.0"}
    assert type_command("index", "check", str(tmp_path / "out")).status == 0
    assert not list((tmp_path / "out" / ".mirror").glob("token"))


def test_a_conversion_and_a_look_at_it_are_whole_though_a_node_was_killed_half_way(
    registry: Path, tmp_path: Path, two_nodes: Cluster
) -> None:
    (registry / "a3-1.0.0.safetensors").unlink()
    out = tmp_path / "out"
    process = begun("convert-all", registry, out, "--to", "adapters", "--ray", two_nodes.address)
    wait_until(lambda: lines(out / ".convert" / "journal.jsonl") >= ALL // 3, process)
    two_nodes.kill()
    found = reported(process, status=3)
    assert len(found["converted"]) == ALL - 1
    assert [(one["name"][:8], one["code"]) for one in found["failed"]] == [("a3@1.0.0", "E_NOT_FOUND")]
    two_nodes.complete()
    process = begun("verify-all", out, "--ray", two_nodes.address)
    journals = Settings.load().cache / "bulk"
    wait_until(lambda: any(lines(path) >= ALL // 3 for path in journals.glob("verify-*.jsonl")), process)
    two_nodes.kill()
    found = reported(process)
    assert (len(found["verified"]), found["failed"]) == (ALL - 1, [])


def test_a_list_that_was_interrupted_and_then_killed_goes_on_at_another_runner(
    registry: Path, tmp_path: Path, two_nodes: Cluster
) -> None:
    out = tmp_path / "out"
    journal = out / ".convert" / "journal.jsonl"
    known = 0
    for number, status in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        process = begun("convert-all", registry, out, "--to", "adapters", "--ray", two_nodes.address)
        wait_until(lambda: lines(journal) >= known + 4, process)  # noqa: B023
        process.send_signal(number)
        process.communicate(timeout=60)
        assert (process.returncode, lines(journal) >= known + 4) == (status, True)
        known = lines(journal)
    found = reported(begun("convert-all", registry, out, "--to", "adapters", "--jobs", "1"))
    assert (len(found["skipped"]), len(found["converted"])) == (known, ALL - known)
    assert reported(begun("verify-all", out, "--jobs", "1"))["failed"] == []


def test_a_folder_that_the_machines_do_not_share_is_refused(registry: Path, tmp_path: Path, two_nodes: Cluster) -> None:
    # What the workers are told is a folder of theirs; here they lose sight of the one that was meant.
    out = tmp_path / "out"
    process = begun("mirror", registry, out, "--ray", two_nodes.address, "--jobs", "1")
    wait_until(lambda: (out / ".mirror" / "token").is_file(), process)
    (out / ".mirror" / "token").write_text("that of another machine")
    report = reported(process, status=1)
    assert report["failed"]
    assert {one["code"] for one in report["failed"]} == {"E_STATE"}
    assert "not the same folder on all machines" in report["failed"][0]["message"]
    assert {one["name"] for one in report["failed"]} == set(open_registry(registry).index.names()) - set(
        open_registry(out).index.names()
    )


def test_another_version_on_a_machine_of_the_cluster_is_refused() -> None:
    from adapterhub.registry.ray_runner import _do

    assert "and not 0.0.1" in str(_do(len, [1], "0.0.1"))


def test_where_no_cluster_is_it_says_so_at_once(registry: Path) -> None:
    for address, status in (("127.0.0.1:9", 7), ("nowhere", 2), ("ray://127.0.0.1:10001", 2)):
        typed = type_command("index", "verify-all", str(registry), "--ray", address)
        assert (typed.status, "Ray cluster" in typed.err) == (status, True), typed.err


def test_without_ray_it_says_what_to_install(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    typed = type_command("index", "verify-all", str(registry), "--ray", "127.0.0.1:9")
    assert (typed.status, "adapterhub[ray]" in typed.err) == (6, True)


def test_ray_is_imported_only_where_it_is_asked_for(registry: Path) -> None:
    code = (
        "import sys; from adapterhub.cli.application import run\n"
        f"status = run(['index', 'verify-all', {str(registry)!r}, '--jobs', '1', '-q'])\n"
        "print('ray' in sys.modules, status)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ)).stdout
    assert out.splitlines()[-1] == "False 0"
