"""A list of tasks: each is done once, whoever does it; one that fails, or dies, does not stop the others."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from small_tasks import deadly, failing, square

from adapterhub import errors
from adapterhub.errors import AdapterHubError, DigestError, NotFoundError
from adapterhub.registry.local_runner import Processes, Threads
from adapterhub.registry.tasks import Runner, Task, run

RUNNERS = [Threads(1), Threads(3), Processes(1), Processes(2)]


def tasks(count: int) -> list[Task[int]]:
    return [Task(f"{number:04}", number) for number in range(count)]


@pytest.mark.parametrize("runner", RUNNERS, ids=str)
def test_every_task_is_done_once_and_told(runner: Runner) -> None:
    told: list[int] = []
    report = run(square, tasks(40), runner, progress=told.append)
    assert report.done == {f"{n:04}": n * n for n in range(40)}
    assert list(report.done) == sorted(report.done)
    assert (report.skipped, report.failed) == ({}, {})
    assert told == list(range(1, 41))


@pytest.mark.parametrize("runner", RUNNERS, ids=str)
def test_a_task_that_fails_does_not_stop_the_others_and_its_reason_is_told(runner: Runner) -> None:
    report = run(failing, tasks(9), runner)
    assert report.done == {"0002": 2, "0005": 5, "0008": 8}
    wrong = report.failed["0003"]
    assert isinstance(wrong, DigestError)
    assert (wrong.what, wrong.expected, wrong.hint) == ("file 3", "sha256:a", "look")
    assert "KeyError: 4" in report.failed["0004"].message
    assert len(report.failed) == 6


class Kept(dict[str, int]):
    """A memory."""

    def recall(self, task: Task[int]) -> int | None:
        return self.get(task.name)

    def keep(self, task: Task[int], result: int) -> None:
        self[task.name] = result


def test_what_the_memory_knows_is_skipped_and_what_is_done_is_kept() -> None:
    memory = Kept({"0001": 7})
    told: list[int] = []
    report = run(square, tasks(4), Threads(2), memory=memory, progress=told.append)
    assert (report.skipped, report.done) == ({"0001": 7}, {"0000": 0, "0002": 4, "0003": 9})
    assert memory == {"0000": 0, "0001": 7, "0002": 4, "0003": 9}
    assert told[-1] == 4
    assert run(square, tasks(4), Threads(2), memory=memory).done == {}


def test_a_process_that_dies_takes_no_task_with_it_but_the_one_that_it_died_of(tmp_path: Path) -> None:
    report = run(partial(deadly, tmp_path), tasks(12), Processes(2))
    assert list(report.failed) == ["0005"]
    assert "its process died" in report.failed["0005"].message
    assert len(report.done) == 11
    # Only those that were under way with it are done again.
    assert len(list(tmp_path.iterdir())) <= 12 + 5


def test_where_no_process_starts_it_says_so(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from adapterhub.registry.local_runner import Processes\n"
        "from adapterhub.registry.tasks import Task, run\n"
        "run(len, [Task('a', 'b')], Processes(2))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert "no other process can be started here; use --jobs 1" in done.stderr


def test_an_interrupted_list_of_tasks_begins_no_other() -> None:
    begun: list[int] = []

    def task(number: int) -> int:
        begun.append(number)
        if number == 3:
            raise KeyboardInterrupt
        time.sleep(0.01)
        return number

    memory = Kept()
    with pytest.raises(KeyboardInterrupt):
        run(task, tasks(1000), Threads(2), memory=memory)
    assert len(begun) < 20
    # What had begun has ended, and is known.
    assert sorted(memory.values()) == sorted(set(begun) - {3})


def test_a_memory_that_cannot_keep_ends_the_list() -> None:
    class Full(Kept):
        def keep(self, task: Task[int], result: int) -> None:
            raise AdapterHubError("the disk is full")

    begun: list[int] = []

    def task(number: int) -> int:
        begun.append(number)
        return number

    with pytest.raises(AdapterHubError, match="the disk is full"):
        run(task, tasks(1000), Threads(2), memory=Full())
    assert len(begun) < 20


def test_tasks_are_made_when_there_is_room_for_them() -> None:
    made: list[int] = []
    gate = threading.Event()

    def endless() -> Iterator[Task[int]]:
        for number in range(100):
            made.append(number)
            yield Task(str(number), number)

    def wait(number: int) -> int:
        if number == 0:
            gate.wait(5)
        return number

    def progress(done: int) -> None:
        if done == 50:
            assert len(made) < 60
            gate.set()

    assert len(run(wait, endless(), Threads(2), progress=progress).done) == 100


@pytest.mark.parametrize(
    "error",
    [
        DigestError("it", expected="sha256:0", actual="sha256:1"),
        errors.FormatError("it failed", faults=["a", "b"], hint="try again"),
        errors.SchemaError("it", ["a: is wrong"]),
        NotFoundError("it failed", hint="try again"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_the_same_in_another_process(error: AdapterHubError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), vars(again), again.args) == (str(error), vars(error), error.args)
