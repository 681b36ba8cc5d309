"""The page on SUPERB; a bug here sends readers to corpora and classes that do not exist."""

import re
from pathlib import Path

from espnet_star.evaluate.superb.corpora import CORPORA
from espnet_star.evaluate.superb.tasks import TASKS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "superb.md"


def test_the_table_names_every_task_with_its_class_and_corpora():
    rows = re.findall(r"^\| `(\w+)` [^|]* \| (\w+) \| ([^|]*) \| ", PAGE.read_text(), re.M)
    assert [name for name, _, _ in rows] == list(TASKS)
    for name, problem, data in rows:
        assert problem == (TASKS[name].problem or "quesst14_dtw")
        assert re.findall(r"`(\w+)`", data) == list(TASKS[name].data.values())
        assert set(TASKS[name].data.values()) <= set(CORPORA)
