"""Which runner does a list of tasks: one on this machine, or one on a Ray cluster."""

from __future__ import annotations

import os

from .tasks import Runner

JOBS = 8
"""So many tasks are done at a time on this machine where nobody says how many, and no more than it has processors."""


def runner(jobs: int | None, ray: str | None, *, waiting: bool) -> Runner:
    """Return a runner.

    Args:
        jobs: so many tasks at a time; None is as many as fit.
        ray: the address of a Ray cluster, or None for this machine.
        waiting: whether tasks mostly wait for others, as downloads do, and do not compute.
    """
    if ray is not None:
        from .ray_runner import Ray

        return Ray(ray, jobs, waiting=waiting)
    from .local_runner import Processes, Threads

    if waiting:
        return Threads(jobs or JOBS)
    return Processes(jobs or min(JOBS, os.cpu_count() or 1))
