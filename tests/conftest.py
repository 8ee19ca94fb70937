"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from recsys.training.distributed import Distributed

# A busy machine is slow, not wrong.
settings.register_profile("recsys", deadline=None)
settings.load_profile("recsys")


@pytest.fixture
def ranks() -> Iterator[Distributed]:
    """A process group of this one process, on CPU, as long as the test lasts."""
    from recsys.training.distributed import distributed  # not every test needs torch

    with distributed("cpu") as ranks:
        yield ranks
