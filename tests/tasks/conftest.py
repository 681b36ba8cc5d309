"""Distillations that several test files start."""

import pytest
from star_runs import distillation


@pytest.fixture(scope="session")
def command(teacher_directory, data_directory, tiny_options):
    """Make the command line of a distillation into an experiment's folder."""

    def make(exp, *extra, data=data_directory):
        return distillation(teacher_directory, data, exp, tiny_options, *extra)

    return make


@pytest.fixture
def resumed(caplog):
    """Whether the runs so far have gone on from a checkpoint."""
    caplog.set_level("INFO")
    return lambda: "The training was resumed" in caplog.text
