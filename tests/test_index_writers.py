"""Several processes that add to one index lose nothing of each other's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tiny_models import model

from adapterhub.loader import attach
from adapterhub.registry import Index

NAMES = ("a", "b", "c", "d")


def test_adapters_added_at_the_same_time_are_all_in_the_index(tmp_path: Path) -> None:
    adapters = attach(model(), base_id="somebody/tiny-bert")
    for name in NAMES:
        adapters.add(name, "seq_bn")
        adapters.save(name, tmp_path / f"{name}.safetensors")
    command = [sys.executable, "-m", "adapterhub.cli", "index", "add", "--version", "1.0.0"]
    place = str(tmp_path / "index.json")
    started = [
        subprocess.Popen([*command, str(tmp_path / f"{name}.safetensors"), "--index", place], stderr=subprocess.PIPE)
        for name in NAMES
    ]
    errors = [process.communicate()[1].decode() for process in started]
    assert [process.returncode for process in started] == [0] * len(NAMES), errors
    assert sorted(Index.load(tmp_path / "index.json").adapters) == list(NAMES)
