"""What time it is."""

from __future__ import annotations

import time

from lxdtap.transaction import Moment


def moment() -> Moment:
    """Both clocks, now."""
    return Moment(time.monotonic_ns(), time.time_ns())
