"""For all tests."""

from __future__ import annotations

from hypothesis import settings

# A loaded machine is slow now and then; the timeout of each test is the bound that counts.
settings.register_profile("lxdtap", deadline=None)
settings.load_profile("lxdtap")
