"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

# A busy machine is slow, not wrong.
settings.register_profile("recsys", deadline=None)
settings.load_profile("recsys")
