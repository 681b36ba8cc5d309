"""The look at s3prl's environment; a bug here promises runs that fail, or refuses good ones."""

import sys

import pytest

from espnet_star.errors import StarError
from espnet_star.evaluate.superb import probe_script
from espnet_star.evaluate.superb.probe import REMEDIES, Environment, probe
from espnet_star.evaluate.superb.tasks import CUDA, TASKS


def script(tmp_path, text):
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_every_need_has_a_check_and_a_remedy():
    needs = {need for task in TASKS.values() for need in task.needs}
    checks = {check.__name__ for check in probe_script.CHECKS}
    assert needs == set(REMEDIES) and needs | {CUDA} == checks


def test_a_check_that_fails_says_why_in_one_line():
    def leaves():
        raise SystemExit

    def breaks():
        raise ImportError("\n  no module named 'dtw'\nmore")

    assert probe_script.attempt(leaves) == "SystemExit"
    assert probe_script.attempt(breaks) == "ImportError: no module named 'dtw'"
    assert probe_script.attempt(lambda: None) is None


def test_reasons_name_the_check_and_what_to_do():
    environment = Environment("/py", {}, {"sox_effects": "ImportError: no libsox"})
    assert environment.problem(TASKS["sid"].needs) is None
    assert environment.problem(TASKS["asv"].needs) == (
        "sox_effects does not work (ImportError: no libsox); needs torchaudio before 2.9 and libsox"
    )


def test_versions_come_from_the_interpreter_itself():
    environment = probe(sys.executable, [])
    assert environment.versions["python"].startswith(sys.version.split()[0])
    assert "torch" in environment.versions and not environment.missing


def test_interpreters_that_will_not_do(tmp_path):
    with pytest.raises(StarError, match="cannot be started"):
        probe(str(tmp_path / "none"), [])
    with pytest.raises(StarError, match=r"is no working Python 3 .no output."):
        probe(script(tmp_path, "exit 0"), [])
    # Without site-packages there is nothing but the standard library.
    bare = script(tmp_path, f'exec {sys.executable} -I -S "$@"')
    with pytest.raises(StarError, match="s3prl is not installed; pip install"):
        probe(bare, ["upstream"])
