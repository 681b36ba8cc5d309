"""SUPERB's table; a bug here shows a number in the wrong column, or a score nobody earned."""

from espnet_star.evaluate.superb.published import COLUMNS, PUBLISHED, Row
from espnet_star.evaluate.superb.table import markdown, table


def cells(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return dict(zip(["header", "rule", *range(len(rows) - 2)], rows, strict=True))


def test_published_rows_are_printed_as_in_the_paper():
    text = markdown(table([], {}))
    rows = cells(text)
    assert rows["header"][4:] == [column.header for column in COLUMNS]
    assert rows[0] == [
        *("HuBERT Base (teacher)", "94.70", "80.8", "940"),
        *("5.41", "6.42", "96.30", ".0736", "81.42", "5.11", "5.88", "98.34"),
        *("88.53", "25.20", "64.92"),
    ]
    assert rows[6][0] == "DistilHuBERT (1)" and rows[6][7] == ".0511"
    assert "(1) QbE from DistilHuBERT's own paper" in text


def test_a_part_of_the_columns_gets_no_score_but_a_labeled_mean():
    tasks = {"pr": {"status": "no data", "reason": "data: librispeech is not set"}}
    content = table([Row("mine|1", 4.2, {"sid_acc": 70.0, "asv_eer": 10.0})], tasks)
    text = markdown(content)
    row = cells(text.replace("\\|", "/"))[0]
    assert row[:4] == ["mine/1", "4.20", "-", "-"]
    assert [row[8], row[9]] == ["70.00", "10.00"] and row.count("-") == 2 + 9
    assert "no overall and no generalizability score without PR PER, ASR WER, KS Acc" in text
    assert "Partial mean over the 2 columns there are: 80.0 (no overall score" in text
    assert "pr: no data: data: librispeech is not set" in text
    assert content["systems"][0]["overall"] is None
    assert content["systems"][0]["partial_mean"] == 80.0


def test_a_whole_row_gets_both_scores():
    content = table([Row("mine", None, PUBLISHED[1].values)], {})
    own, published = content["systems"][0], content["systems"][2]
    assert own["overall"] == published["overall"] and not own["published"]
    assert own["partial_mean"] is None and published["published"]
    assert cells(markdown(content))[0][1] == "-"
