"""A bug here leaves half a model under a name that looks whole, or deletes foreign files."""

import os
import signal
import subprocess
import sys

import pytest

from espnet_star.errors import StarError
from espnet_star.files import staging
from espnet_star.files.staging import staged
from espnet_star.formats.target import check_target

FILES = ("config.json", "model.safetensors")


def write(directory, text):
    with staged(directory) as scratch:
        for name in FILES:
            (scratch / name).write_text(text)


def test_a_new_directory_is_whole_and_as_open_as_any_other(tmp_path):
    write(tmp_path / "deep" / "student", "new")
    (tmp_path / "plain").mkdir()
    student = tmp_path / "deep" / "student"
    assert {path.name: path.read_text() for path in student.iterdir()} == dict.fromkeys(
        FILES, "new"
    )
    assert student.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert [path.name for path in student.parent.iterdir()] == ["student"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_writer_leaves_no_trace(tmp_path, error):
    def interrupted():
        with staged(tmp_path / "student") as scratch:
            (scratch / FILES[0]).write_text("half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert not list(tmp_path.iterdir())
    write(tmp_path / "student", "old")
    with pytest.raises(error):
        interrupted()
    assert [path.read_text() for path in (tmp_path / "student").iterdir()] == ["old", "old"]


def test_files_of_others_stay(tmp_path):
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "notes.txt").write_text("mine")
    (tmp_path / "student" / FILES[0]).write_text("old")
    write(tmp_path / "student", "new")
    found = {path.name: path.read_text() for path in (tmp_path / "student").iterdir()}
    assert found == dict.fromkeys(FILES, "new") | {"notes.txt": "mine"}


def test_a_link_to_a_directory_is_followed(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "student").symlink_to("disk")
    write(tmp_path / "student", "new")
    assert (tmp_path / "student").is_symlink()
    assert (tmp_path / "disk" / FILES[0]).read_text() == "new"


KILLED = """
import os, shutil, signal, sys
from espnet_star.files.staging import staged
with staged(sys.argv[1]) as scratch:
    for name in ("config.json", "model.safetensors"):
        (scratch / name).write_text("new")
    if sys.argv[2] == "writing":
        os.kill(os.getpid(), signal.SIGKILL)
    move = shutil.move
    def once(*args):
        move(*args)
        os.kill(os.getpid(), signal.SIGKILL)
    shutil.move = once
"""


@pytest.mark.parametrize("moment", ["writing", "moving"])
def test_a_killed_writer_leaves_nothing_that_loads(tmp_path, moment):
    """Fails if weights could meet another model's configuration."""
    target = tmp_path / "student"
    if moment == "moving":
        write(target, "old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(target), moment])
    assert done.returncode == -signal.SIGKILL
    assert not (target / "config.json").exists()
    if moment == "writing":
        assert not target.exists()
    write(target, "again")
    assert {(target / name).read_text() for name in FILES} == {"again"}


def test_what_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(StarError, match=r"file/student: cannot be written \(File exists\)"):
        write(tmp_path / "file" / "student", "new")

    def full(*args):
        raise OSError(28, os.strerror(28))

    write(tmp_path / "student", "old")
    monkeypatch.setattr(staging.shutil, "move", full)
    with pytest.raises(StarError, match=r"student: cannot be written \(No space left on device"):
        write(tmp_path / "student", "new")


def test_targets_are_checked_before_the_work(tmp_path):
    check_target(tmp_path / "absent", FILES, force=False)
    (tmp_path / "notes.txt").write_text("mine")
    check_target(tmp_path, FILES, force=False)
    with pytest.raises(StarError, match="is a file; --output_dir must name a directory"):
        check_target(tmp_path / "notes.txt", FILES, force=True)
    (tmp_path / FILES[1]).write_text("weights")
    with pytest.raises(StarError, match=r"already holds model.safetensors; give --force true"):
        check_target(tmp_path, FILES, force=False)
    check_target(tmp_path, FILES, force=True)
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(StarError, match="would be read as a distillation experiment"):
        check_target(tmp_path, FILES, force=True)
