import json

import pytest

from espnet_star.bin.star_score import main


def test_from_predictions_to_checked_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "utt2spk").write_text("a s1\nb s2\n")
    (tmp_path / "good").write_text("a s1\nb s2\n")
    (tmp_path / "poor").write_text("a s2\n")
    for name in ("good", "poor"):
        main(["sid", "--ref", "utt2spk", "--hyp", name, "--output", f"exp/{name}_sid.json"])
        metric = f"sid_acc=exp/{name}_sid.json#accuracy"
        main(
            ["add", "--output", f"results/{name}.json", "--system", name, "--metric", metric, "n=2"]
        )
    assert "b" in capsys.readouterr().err
    files = ["results/good.json", "results/poor.json"]
    main(["table", "--results", *files, "--output", "RESULTS.md", "results.json"])
    assert "| good | - | 100.0 | 2 |" in (tmp_path / "RESULTS.md").read_text()
    relation = ["good.sid_acc", "poor.sid_acc"]
    main(["check", "--results", "results.json", "--greater", *relation])
    assert "1 relations hold" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["check", "--results", "results.json", "--less", *relation])
    assert stop.value.code == 1
    assert "good.sid_acc = 1 should be less than poor.sid_acc = 0" in capsys.readouterr().err


def test_asr(tmp_path, capsys):
    pytest.importorskip("jiwer")
    (tmp_path / "text").write_text("a x y\n")
    (tmp_path / "hyp").write_text("a x z\n")
    out = tmp_path / "asr.json"
    main(
        [
            "asr",
            "--ref",
            str(tmp_path / "text"),
            "--hyp",
            str(tmp_path / "hyp"),
            "--output",
            str(out),
        ]
    )
    assert json.loads(out.read_text())["wer"] == 0.5
    assert "WER 50.0 %, CER 33.3 %" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["check", "--results", "x.json"], ["sid", "--ref", "x", "--hyp", "y"]]
)
def test_user_errors(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "star_score: error: " in capsys.readouterr().err
