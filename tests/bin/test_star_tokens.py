import subprocess
import sys

import pytest
import sentencepiece

from espnet_star.bin.star_data.tokens import main

TEXTS = [
    "the cat sat on the mat",
    "a dog ran after the cat",
    "the dog and the cat are friends",
    "tea at three and cake at ten",
]


@pytest.fixture
def write(tmp_path):
    def call(texts=TEXTS):
        path = tmp_path / "text"
        path.write_text("".join(f"u{i} {text}\n" for i, text in enumerate(texts)), "utf-8")
        return path

    return call


@pytest.fixture
def tokens(tmp_path, capsys):
    def call(text, *options):
        status = 0
        try:
            main(["--text", str(text), "--output_dir", str(tmp_path / "tokens"), *options])
        except SystemExit as stop:
            status = stop.code
        path = tmp_path / "tokens" / "tokens.txt"
        lines = path.read_text("utf-8").split("\n")[:-1] if path.exists() else []
        return status, capsys.readouterr(), lines

    return call


def test_pieces_are_the_models(tokens, write, tmp_path):
    status, captured, lines = tokens(write(), "--vocab_size", "40")
    assert status == 0, captured.err
    assert lines[:2] == ["<blank>", "<unk>"]
    assert lines[-1] == "<sos/eos>"
    # 40 pieces of SentencePiece, its <unk> among them, and ESPnet's two.
    assert len(lines) == len(set(lines)) == 40 + 2
    assert "42 tokens from 4 transcripts" in captured.out
    model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokens" / "bpe.model"))
    for text in TEXTS:
        pieces = model.encode(text, out_type=str)
        assert set(pieces) <= set(lines)
        assert model.decode(pieces) == text


def test_same_transcripts_give_the_same_pieces(tokens, write):
    first = tokens(write(), "--vocab_size", "40")[2]
    assert tokens(write(), "--vocab_size", "40")[2] == first


def test_characters(tokens, write):
    status, captured, lines = tokens(write(["ab ca", "ça b"]), "--token_type", "char")
    assert status == 0, captured.err
    assert lines == ["<blank>", "<unk>", "<space>", "a", "b", "c", "ç", "<sos/eos>"]


def test_espnet_reads_the_list(tokens, write, tmp_path):
    from espnet2.text.build_tokenizer import build_tokenizer
    from espnet2.text.token_id_converter import TokenIDConverter

    _, _, lines = tokens(write(), "--vocab_size", "40")
    model = str(tmp_path / "tokens" / "bpe.model")
    pieces = build_tokenizer("bpe", bpemodel=model).text2tokens(TEXTS[0])
    ids = TokenIDConverter(str(tmp_path / "tokens" / "tokens.txt")).tokens2ids(pieces)
    assert [lines[i] for i in ids] == pieces
    assert lines.index("<unk>") not in ids


@pytest.mark.parametrize("size", ["5000", "3"])
def test_vocabulary_that_cannot_be_made(tokens, write, size):
    status, captured, lines = tokens(write(), "--vocab_size", size)
    assert status == 2
    assert f"SentencePiece cannot make {size} pieces of these transcripts" in captured.err
    assert captured.err.rstrip().endswith("choose another --vocab_size")
    assert not lines


def test_missing_or_empty_text(tokens, write, tmp_path):
    status, captured, _ = tokens(tmp_path / "nothing")
    assert status == 2
    assert "nothing: cannot be opened" in captured.err
    status, captured, _ = tokens(write([]))
    assert status == 2
    assert "text has no transcript" in captured.err


def test_module_runs_by_itself(write, tmp_path):
    command = [sys.executable, "-m", "espnet_star.bin.star_data", "tokens", "--text", str(write())]
    options = ["--output_dir", str(tmp_path / "tokens"), "--token_type", "char"]
    subprocess.run([*command, *options], check=True, capture_output=True)
    assert (tmp_path / "tokens" / "tokens.txt").exists()
