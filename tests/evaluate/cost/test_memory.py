"""A bug here publishes the memory of something else than the work."""

import memory_work
import pytest

from espnet_star.errors import StarError
from espnet_star.evaluate.cost.memory import peak_memory

MEGABYTE = 10**6


def test_peak_memory_of_a_known_allocation():
    size = 200 * MEGABYTE
    assert peak_memory(memory_work.allocate, size) == pytest.approx(size, rel=0.2)


def test_a_killed_process_is_named():
    with pytest.raises(StarError, match=r"be_killed\(\).* exit code -9; it was killed, .*memory"):
        peak_memory(memory_work.be_killed)


def test_a_failing_process_says_why():
    with pytest.raises(StarError, match=r"fail\(\).* raised ValueError: two lines"):
        peak_memory(memory_work.fail)
