"""SLERP: two updates are mixed along the arc between their directions (Shoemake 1985).

    D = sin((1 - t) Ω) / sin Ω · D_1 + sin(t Ω) / sin Ω · D_2,      cos Ω = ⟨D_1, D_2⟩ / (‖D_1‖ ‖D_2‖),
    t = w_2 / (w_1 + w_2)

The angle is taken at each map for itself. Nearly parallel or opposite updates are mixed on the straight line. The
result is a sum of the two, so it keeps their low rank.

Sources: Shoemake 1985, Animating rotation with quaternion curves, SIGGRAPH, §3.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from ..errors import UsageError

PARALLEL = 0.9995
"""From this cosine on, the arc is taken for a line."""


def slerp(products: Tensor, weights: Sequence[float]) -> list[float]:
    """Return what the two updates are multiplied by.

    products: their inner products (2, 2).

    Raises:
        UsageError: the weights are no mixture.
    """
    first, second = weights
    if first < 0 or second < 0 or first + second <= 0:
        raise UsageError(
            f"slerp mixes with the weights {first:g} and {second:g}", hint="give two weights of at least 0"
        )
    t = second / (first + second)
    lengths = math.sqrt(float(products[0, 0] * products[1, 1]))
    cosine = float(products[0, 1]) / lengths if lengths else 1.0
    if abs(cosine) > PARALLEL:
        return [1 - t, t]
    angle = math.acos(cosine)
    return [math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)]
