import json

import pytest

from espnet_star.data.errors import DataError
from espnet_star.evaluate.machine import machine_facts
from espnet_star.evaluate.table import (
    add_result,
    lookup,
    markdown,
    merge,
    read_merged,
    read_metric,
    read_scores,
    violations,
    write_json,
)


@pytest.fixture
def results(tmp_path):
    student, other = tmp_path / "student.json", tmp_path / "undistilled.json"
    add_result(student, "STaR | 10 M", 10_123_456, [("cer", 0.2), ("sid_acc", 0.444), ("zeta", 3)])
    add_result(other, "Undistilled", None, [("cer", 0.3), ("sid_acc", 0.36)])
    return merge([student, other])


def test_columns_are_in_the_stated_order(results):
    lines = markdown(results).splitlines()
    assert lines[0] == "| system | params (M) | sid_acc (%) | cer (%) | zeta |"
    assert lines[2] == "| STaR \\| 10 M | 10.12 | 44.4 | 20.0 | 3 |"
    assert lines[3] == "| Undistilled | - | 36.0 | 30.0 | - |"
    assert f"{results['machine']['cores']} cores" in markdown(results)


def test_each_test_set_has_its_columns(tmp_path):
    """Fails if sets and ways of decoding are mixed up, or stand behind other metrics."""
    names = ["zeta", "cer_lm_test_clean", "wer_test_other", "cer_test_clean", "wer_test_clean"]
    names += ["wer_lm_test_clean", "sid_acc_channel", "eer_vox1"]
    path = tmp_path / "s.json"
    add_result(path, "S", 5, [(name, 0.25) for name in names])
    assert markdown(merge([path])).splitlines()[0] == (
        "| system | params (M) | sid_acc_channel (%) | wer test_clean (%) | wer test_other (%) | "
        "cer test_clean (%) | wer_lm test_clean (%) | cer_lm test_clean (%) | eer vox1 (%) | zeta |"
    )


def test_chosen_columns(results):
    assert markdown(results, ["cer"]).startswith("| system | params (M) | cer (%) |\n")
    with pytest.raises(DataError, match="no result has wer; there are cer, sid_acc, zeta"):
        markdown(results, ["wer"])


def test_add_extends_a_result(tmp_path):
    path = tmp_path / "new" / "s.json"
    with pytest.raises(DataError, match="needs --system"):
        add_result(path, metrics=[("cer", 0.1)])
    add_result(path, "S", 5, [("cer", 0.1)])
    add_result(path, metrics=[("wer", 0.2)])
    assert json.loads(path.read_text()) == {
        "system": "S",
        "params": 5,
        "metrics": {"cer": 0.1, "wer": 0.2},
    }


def test_metric_forms(tmp_path):
    (tmp_path / "sid.json").write_text('{"accuracy": 0.44, "task": "sid"}')
    assert read_metric("sid_acc=0.44") == ("sid_acc", 0.44)
    assert read_metric(f"sid_acc={tmp_path / 'sid.json'}#accuracy") == ("sid_acc", 0.44)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sid_acc", "expected NAME=NUMBER"),
        ("=3", "expected NAME=NUMBER"),
        ("a=b", "'b' is not a number"),
        ("a=nan", "not a finite number"),
        ("a={dir}/sid.json#task", "'sid' is not a number"),
        ("a={dir}/sid.json#nothing", "has no 'nothing'"),
        ("a={dir}/other.json#x", "cannot be read"),
        ("a={dir}/bad.json#x", "not a JSON file"),
    ],
)
def test_bad_metrics(tmp_path, text, message):
    (tmp_path / "sid.json").write_text('{"task": "sid"}')
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(DataError, match=message):
        read_metric(text.format(dir=tmp_path))


def test_malformed_and_equal_names(tmp_path):
    (tmp_path / "a.json").write_text('{"system": "a", "metrics": {"cer": "low"}}')
    with pytest.raises(DataError, match=r"a\.json: expected"):
        merge([tmp_path / "a.json"])
    for folder in ("x", "y"):
        add_result(tmp_path / folder / "b.json", "B")
    with pytest.raises(DataError, match="another result is called b"):
        merge([tmp_path / "x" / "b.json", tmp_path / "y" / "b.json"])


def test_merged_results_are_read_back(results, tmp_path):
    write_json(tmp_path / "results.json", results)
    assert read_merged(tmp_path / "results.json") == results


@pytest.mark.parametrize(
    "content",
    [[], {}, {"systems": []}, {"systems": [{"key": "a"}]}, {"systems": [{"metrics": {}}]}],
)
def test_results_of_another_kind(content, tmp_path):
    if isinstance(content, dict):
        content["machine"] = {}
    write_json(tmp_path / "results.json", content)
    with pytest.raises(DataError, match="star_score table --output FILE\\.json writes them"):
        read_merged(tmp_path / "results.json")


def test_relations(results):
    holds = ["student.sid_acc", "undistilled.sid_acc"]
    assert violations(results, greater=[holds], less=[["student.cer", "Undistilled.cer"]]) == []
    assert violations(results, less=[holds]) == [
        "student.sid_acc = 0.444 should be less than undistilled.sid_acc = 0.36"
    ]
    assert len(violations(results, greater=[["student.cer", "student.cer"]])) == 1


@pytest.mark.parametrize(("margin", "holds"), [("0.084", True), ("0.085", False)])
def test_a_relation_may_ask_for_a_difference(results, margin, holds):
    """Fails if CI passes a student that is better by a hair, or rounding decides."""
    found = violations(results, greater=[["student.sid_acc", "undistilled.sid_acc", margin]])
    assert (found == []) is holds
    assert violations(results, less=[["student.cer", "undistilled.cer", "0.1"]]) == []


@pytest.mark.parametrize("relation", [["student.cer"], ["student.cer", "undistilled.cer", "much"]])
def test_a_relation_that_is_none_is_named(results, relation):
    with pytest.raises(DataError, match="expected"):
        violations(results, greater=[relation])


def test_lookup_names_what_there_is(results):
    with pytest.raises(DataError, match="no system 'teacher', only student, undistilled"):
        lookup(results, "teacher.cer")
    with pytest.raises(DataError, match="student has no wer, only cer, sid_acc"):
        lookup(results, "student.wer")


def test_machine_facts():
    facts = machine_facts()
    assert facts["cores"] >= 1
    assert facts["cpu"]
    assert facts["torch"] != "not installed"
    json.dumps(facts)


def test_scores_of_a_systems_heads(tmp_path):
    """Fails if a score gets another's column, or an absent one stops the table."""
    names = ("score_lm_clean.json", "score.json", "score_b.json")
    asr, sid, sv = (tmp_path / name for name in names)
    asr.write_text('{"wer": 0.5, "cer": 0.25, "utterances": 3}')
    sid.write_text('{"accuracy": 0.75}')
    sv.write_text('{"eer": 0.1, "mindcf": 0.2}')
    assert read_scores([asr, tmp_path / "score_none.json", sid, sv]) == [
        *[("wer_lm_clean", 0.5), ("cer_lm_clean", 0.25), ("sid_acc", 0.75)],
        *[("sv_eer_b", 0.1), ("sv_mindcf_b", 0.2)],
    ]
    with pytest.raises(DataError, match=r"no score yet: none of .*score_none.json"):
        read_scores([tmp_path / "score_none.json"])
    sid.write_text('{"loss": 1}')
    with pytest.raises(DataError, match=r"score.json: has none of wer, cer"):
        read_scores([sid])
