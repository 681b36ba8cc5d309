import pytest

from espnet_star.data.errors import DataError
from espnet_star.evaluate.scoring import score_asr, score_sid


@pytest.fixture
def files(tmp_path):
    def write(ref, hyp):
        paths = tmp_path / "ref", tmp_path / "hyp"
        for path, table in zip(paths, (ref, hyp), strict=True):
            path.write_text("".join(f"{k} {v}".rstrip() + "\n" for k, v in table.items()), "utf-8")
        return paths

    return write


def test_rates_by_hand(files):
    pytest.importorskip("jiwer")
    ref = {"a": "one two three", "b": "four"}
    result, warnings = score_asr(*files(ref, {"a": "one too", "b": "four five"}))
    assert result["wer"] == pytest.approx(3 / 4)
    assert result["words"] == {
        "reference": 4,
        "hits": 2,
        "substitutions": 1,
        "deletions": 1,
        "insertions": 1,
    }
    # "one two three" -> "one too": one substitution, six deletions; " five" inserted.
    assert result["cer"] == pytest.approx((1 + 6 + 5) / 17)
    assert warnings == []
    assert [row["utterance"] for row in result["worst"]] == ["b", "a"]


def test_perfect(files):
    pytest.importorskip("jiwer")
    result, _ = score_asr(*files({"a": "x  y"}, {"a": "x y"}))
    assert (result["wer"], result["cer"], result["worst"]) == (0.0, 0.0, [])


def test_missing_is_deleted_and_extra_left_out(files):
    pytest.importorskip("jiwer")
    ref = {f"u{i}": "a b" for i in range(8)}
    hyp = {**{key: "a b" for key in list(ref)[:6]}, "u6": "", "zz": "noise"}
    result, warnings = score_asr(*files(ref, hyp))
    assert result["words"]["deletions"] == 4
    assert (result["missing_utterances"], result["extra_utterances"]) == (["u7"], ["zz"])
    assert warnings == [
        "1 utterances have no hypothesis: u7",
        "1 hypotheses have no reference: zz",
    ]


def test_only_five_worst(files):
    pytest.importorskip("jiwer")
    ref = {f"u{i}": "a b c d" for i in range(9)}
    result, _ = score_asr(*files(ref, {key: "a b c x" for key in ref}))
    assert [row["utterance"] for row in result["worst"]] == [f"u{i}" for i in range(5)]


def test_nothing_to_score(files):
    pytest.importorskip("jiwer")
    with pytest.raises(DataError, match="no utterance in common"):
        score_asr(*files({"a": "x"}, {"b": "x"}))
    with pytest.raises(DataError, match="no references"):
        score_asr(*files({}, {"b": "x"}))
    with pytest.raises(DataError, match="every reference is empty"):
        score_asr(*files({"a": ""}, {"a": "x"}))


def test_accuracy_by_hand(files):
    ref = {"a": "s1", "b": "s1", "c": "s1", "d": "s2"}
    result, warnings = score_sid(*files(ref, {"a": "s1", "b": "s2", "c": "s2", "d": "s2"}))
    assert result["accuracy"] == 0.5
    assert result["macro_accuracy"] == pytest.approx((1 / 3 + 1) / 2)
    assert result["chance"] == 0.75
    assert result["confused"] == [{"ref": "s1", "hyp": "s2", "count": 2}]
    assert warnings == []


def test_missing_prediction_is_wrong(files):
    result, warnings = score_sid(*files({"a": "s1", "b": "s2"}, {"a": "s1"}))
    assert (result["accuracy"], result["missing_utterances"]) == (0.5, ["b"])
    assert result["confused"] == [{"ref": "s2", "hyp": "(none)", "count": 1}]
    assert len(warnings) == 1
