"""METHODS: every way to merge adapters, a row for each.

A new one is a file with a pure function and a row here.
"""

from __future__ import annotations

import dataclasses

from ..errors import UsageError
from .combination import Combination, weights_alone
from .dare import dare_linear, dare_ties
from .magnitude_prune import magnitude_prune
from .slerp import slerp
from .ties import ties

_ILHARCO = "Ilharco et al. 2023, Editing models with task arithmetic, arXiv 2212.04089"
_YADAV = "Yadav et al. 2023, TIES-Merging, arXiv 2306.01708"
_YU = "Yu et al. 2024, Language models are super Mario (DARE), arXiv 2311.03099"
_ZHANG = "Zhang et al. 2023, Composing parameter-efficient modules with arithmetic operations, arXiv 2306.14870"
_ECKART = "Eckart and Young 1936, Psychometrika 1, 211-218"

_LINEAR = Combination(
    name="linear",
    summary="the weighted sum of the updates, or of the tensors where there are no updates",
    paper="Wortsman et al. 2022, Model soups, arXiv 2203.05482",
    equation="D = Σ w_i D_i",
    coefficients=weights_alone,
    takes=("rank",),
    by_tensor=True,
)
_PRUNE = Combination(
    name="magnitude_prune",
    summary="the weighted sum of the largest entries of each update",
    paper=f"{_YADAV}, §4",
    equation="D = Σ w_i trim(D_i)",
    matrix=magnitude_prune,
    needs=("density",),
    takes=("rank",),
)
_TIES = Combination(
    name="ties",
    summary="trim, elect signs, and average what agrees",
    paper=_YADAV,
    equation="D = mean of the w_i trim(D_i) with the elected sign",
    matrix=ties,
    needs=("density",),
    takes=("rank", "majority"),
)
_DARE_LINEAR = Combination(
    name="dare_linear",
    summary="the weighted sum of updates with entries dropped at random",
    paper=_YU,
    equation="D = Σ w_i m_i ∘ D_i / density",
    matrix=dare_linear,
    needs=("density",),
    takes=("rank", "seed"),
)
_DARE_TIES = Combination(
    name="dare_ties",
    summary="TIES of updates with entries dropped at random",
    paper=f"{_YU}; {_YADAV}",
    equation="D = mean of the w_i m_i ∘ D_i / density with the elected sign",
    matrix=dare_ties,
    needs=("density",),
    takes=("rank", "seed", "majority"),
)
_SLERP = Combination(
    name="slerp",
    summary="two updates mixed along the arc between their directions",
    paper="Shoemake 1985, Animating rotation with quaternion curves, SIGGRAPH",
    equation="D = (sin((1-t)Ω) D_1 + sin(tΩ) D_2) / sin Ω, t = w_2 / (w_1 + w_2)",
    coefficients=slerp,
    takes=("rank",),
    count=2,
)


def _compressed(row: Combination, name: str) -> Combination:
    """Return a method that brings the result of another to the largest rank of the parents, or to the one asked for."""
    return dataclasses.replace(
        row, name=name, kept="rank", by_tensor=False, summary=f"{row.summary}, to a given rank by SVD"
    )


METHODS: tuple[Combination, ...] = (
    _LINEAR,
    dataclasses.replace(
        _LINEAR,
        name="task_arithmetic",
        summary="the weighted sum of the updates; without weights, their plain sum",
        paper=_ILHARCO,
        default_weight=1.0,
    ),
    dataclasses.replace(
        _LINEAR,
        name="cat",
        summary="the weighted sum, the factors of all adapters one after the other as they are",
        paper="Hu et al. 2022, LoRA, arXiv 2106.09685, §4.1: a sum of products is a product",
        equation="A = [A_1; A_2; …], B = [w_1 s_1 B_1, w_2 s_2 B_2, …]",
        takes=(),
    ),
    dataclasses.replace(_compressed(_LINEAR, "svd"), summary="the weighted sum, to a given rank by SVD", paper=_ECKART),
    dataclasses.replace(
        _compressed(_LINEAR, "lora_delta_w_svd"),
        summary="svd, by the name that `adapters` has for it",
        paper=_ECKART,
        needs=("rank",),
        takes=(),
    ),
    Combination(
        name="lora_linear_only_negate_b",
        summary="sums of the factors; negative weights negate B alone",
        paper=_ZHANG,
        equation="A = Σ |w_i| A_i, B = Σ w_i B_i",
        kept="factors",
    ),
    _PRUNE,
    _compressed(_PRUNE, "magnitude_prune_svd"),
    _TIES,
    _compressed(_TIES, "ties_svd"),
    _DARE_LINEAR,
    _compressed(_DARE_LINEAR, "dare_linear_svd"),
    _DARE_TIES,
    _compressed(_DARE_TIES, "dare_ties_svd"),
    _SLERP,
    _compressed(_SLERP, "slerp_svd"),
)

ALIASES = {"dare": "dare_linear", "dare_svd": "dare_linear_svd"}


def by_name(name: str) -> Combination:
    """Return the method called name.

    Raises:
        UsageError: there is none.
    """
    wanted = ALIASES.get(name, name)
    for row in METHODS:
        if row.name == wanted:
            return row
    raise UsageError(f"no merge method is called {name!r}", hint=f"known are {', '.join(row.name for row in METHODS)}")
