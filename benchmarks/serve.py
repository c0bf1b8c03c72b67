"""A worker's loop: one JSON request per line on stdin, one JSON answer per line on stdout.

One process per library, because their versions of transformers exclude each other; long-lived, so that the driver can
ask them in turn and a slow minute of the machine hits all of them alike.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

Task = Callable[..., Mapping[str, Any]]


def serve(tasks: Mapping[str, Task]) -> None:
    """Answer requests `{"task": name, …arguments…}` until stdin ends."""
    import torch

    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to stderr
    for line in sys.stdin:
        request = json.loads(line)
        answer = tasks[request.pop("task")](**request)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
