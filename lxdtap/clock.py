"""What time it is."""

from __future__ import annotations

from time import monotonic_ns, time_ns

from lxdtap.transaction import Moment

_tuple = tuple.__new__
"""Makes one in two thirds of its class' time."""


def moment() -> Moment:
    """Both clocks, now."""
    return _tuple(Moment, (monotonic_ns(), time_ns()))
