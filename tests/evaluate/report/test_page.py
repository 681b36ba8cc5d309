"""Would break: a page that is not HTML, loads something, runs a name as markup, or leaves out
what it was given.
"""

import re
from datetime import datetime

import pytest
import yaml
from html_pages import Reader

from espnet_star.errors import StarError
from espnet_star.evaluate.report import tables
from espnet_star.evaluate.report.experiment import labels, read_experiment
from espnet_star.evaluate.report.heads import HeadWeights
from espnet_star.evaluate.report.listen import SpeechOptions, listen
from espnet_star.evaluate.report.page import compose, render

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


@pytest.fixture
def made(quick_costs, run):
    """Make a page of an experiment, after a change of it."""

    def make(change=lambda found: None, label="star", results=None, heads=()):
        found = read_experiment(run, label)
        listen(found, SpeechOptions(utterances=4, panels=2, layers=[1, 2]))
        change(found)
        now = datetime(2026, 11, 25, 12).astimezone()
        return found, render(compose([found], (list(heads), ["asr_logmel"]), results, now))

    return make


def test_whole_and_self_contained(made):
    heads = [HeadWeights("asr", "student", [0.2, 0.3, 0.5], "f")]
    merged = {"systems": [{"system": "student", "params": 4170000, "metrics": {"cer": 0.716}}]}
    found, html = made(heads=heads, results=tables.results(merged, "results.json"))
    page = Reader(html)
    assert html.startswith("<!DOCTYPE html>") and '<html lang="en">' in html
    assert len(set(page.ids)) == len(page.ids)
    for link in page.links:
        assert link.startswith("data:") or link.removeprefix("#") in page.ids, link[:80]
    # Names of XML, which nothing fetches, are the only addresses.
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "@import" not in html and "script" not in page.tags
    # 3 terms and the rate, 2 utterances, 2 similarities, 1 task.
    assert page.tags.count("figure") == page.tags.count("svg") == 9
    assert html.count('role="img" aria-label="') == 9
    text = page.words()
    for expected in ("71.6", "4.17", "asr_logmel", "Linear CKA", found.curves.source):
        assert expected in text


def test_numbers_of_the_page(made):
    found, html = made()
    text = Reader(html).words()
    comparison = found.comparison
    assert comparison.utterances == 4 and comparison.frames > 20
    values = comparison.similarity["student"]
    assert values.shape == (3, 3)
    assert f"{float(values[1, 2]):.3f}" in text
    mean = float((values[1, 1] + values[2, 2]) / 2)
    assert f"{mean:.3f}" in text
    # The objective itself agrees with the gaps below the figures.
    row = comparison.panels[0].rows[0]
    assert f"layer 1: student {row.gap('student'):.3g}" in text
    assert row.gap("student") != row.gap("undistilled")


def test_names_never_become_markup(made):
    def spoil(found):
        found.label = found.config["teacher"] = HOSTILE
        found.facts["command"] = found.config["optim"] = HOSTILE
        found.notes.append(HOSTILE)
        found.config_text += HOSTILE
        panels = found.comparison.panels
        panels[0].utterance = panels[0].utterance._replace(name=HOSTILE)

    heads = [HeadWeights(HOSTILE, HOSTILE, [0.5, 0.5], "f")]
    page = Reader(made(spoil, heads=heads)[1])
    assert not {"script", "img"} & set(page.tags)
    assert page.words().count("alert(1)") >= 8


def test_all_of_the_configuration_is_there(made, run):
    text = "".join(Reader(made()[1]).text)
    assert (run / "config.yaml").read_text() in text
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["version"] in text


def test_labels_tell_experiments_apart(tmp_path):
    paths = [tmp_path / "a" / "star", tmp_path / "b" / "star", tmp_path / "other"]
    found = labels(paths)
    assert len(set(found)) == 3 and found[:2] == ["a/star", "b/star"]
    with pytest.raises(StarError, match="given twice"):
        labels([tmp_path / "a", tmp_path / "b" / ".." / "a"])
