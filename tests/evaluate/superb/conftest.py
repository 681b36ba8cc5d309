"""A student, a configuration with every corpus, and nothing of the user's own caches."""

from pathlib import Path

import pytest
import yaml
from superb_corpora import all_of_them

from espnet_star.evaluate.superb.commands import CommandBuilder
from espnet_star.evaluate.superb.config import load_settings
from espnet_star.evaluate.superb.student import read_upstream

CONF = Path(__file__).resolve().parents[3] / "conf"


@pytest.fixture(scope="session")
def superb_world(tmp_path_factory):
    """Root, home folder and corpora, read only."""
    root = tmp_path_factory.mktemp("superb")
    return root, root / "home", all_of_them(root / "data", root / "home")


@pytest.fixture
def student_dir(tiny_student, tmp_path):
    tiny_student.save_pretrained(tmp_path / "student")
    return tmp_path / "student"


@pytest.fixture
def overlay(tmp_path):
    """Writes a YAML file; returns its path."""

    def write(**content):
        path = tmp_path / f"overlay{len(list(tmp_path.glob('overlay*')))}.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


@pytest.fixture
def make(superb_world, student_dir, tmp_path, overlay):
    """A `CommandBuilder` on the miniature corpora; keywords are laid over conf/superb.yaml."""

    def build(source=None, outdir=None, **content):
        found = {name: str(path) for name, path in superb_world[2].items()}
        content = {"check_counts": False, "source": found | (source or {})} | content
        settings = load_settings([CONF / "superb.yaml", overlay(**content)])
        return CommandBuilder(
            settings=settings,
            upstream=read_upstream(student_dir),
            outdir=outdir or tmp_path / "out",
            python="/envs/s3prl/bin/python",
            gpu=False,
        )

    return build
