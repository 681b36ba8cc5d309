"""Decoding of models that asr_train has written, greedily and through an n-gram."""

import pytest
import torch
import yaml
from espnet_tools import asr_train

from espnet_star.bin import star_lm_decode, star_score
from espnet_star.downstream.ctc_decoding import collapse
from espnet_star.tasks.espnet import student_task

WIDE = ["--beam_size", "200", "--beam_threshold", "1000"]
TOKENS = ["<blank>", "<unk>", "<space>", "A", "B", "<sos/eos>"]
LM = """\\data\\
ngram 1=5
ngram 2=1

\\1-grams:
-9	<unk>	0
-99	<s>	0
-3	</s>	0
-0.3	ABBA	0
-5	BA	0

\\2-grams:
-0.1	ABBA </s>

\\end\\
"""


@pytest.fixture(scope="module")
def model(data_directory, tmp_path_factory):
    """A recognizer of one epoch: a log-mel and SUPERB's head, tiny."""
    exp = tmp_path_factory.mktemp("asr")
    (exp / "tokens.txt").write_text("".join(f"{token}\n" for token in TOKENS))
    options = ["--token_list", f"{exp}/tokens.txt", "--token_type", "char"]
    options += ["--output_dir", f"{exp}", "--ngpu", "0", "--num_workers", "0", "--max_epoch", "1"]
    options += ["--batch_type", "sorted", "--batch_size", "8", "--model_conf", "ctc_weight=1.0"]
    options += ["--optim", "adam", "--use_tensorboard", "false", "--use_matplotlib", "false"]
    for part in ("train", "valid"):
        options += [
            f"--{part}_data_path_and_name_and_type",
            f"{data_directory}/wav.scp,speech,sound",
        ]
        options += [f"--{part}_data_path_and_name_and_type", f"{data_directory}/text,text,text"]
        options += [f"--{part}_shape_file", f"{data_directory}/utt2num_samples"]
    options += ["--frontend", "default", "--normalize", "utterance_mvn", "--encoder", "blstm"]
    for pair in ("hidden_size=8", "num_layers=1", "project=12"):
        options += ["--encoder_conf", pair]
    asr_train.main(options)
    return exp


def decode(model, data, out, *options, weights="1epoch.pth"):
    command = ["--asr_train_config", f"{model}/config.yaml", "--output_dir", f"{out}"]
    command += ["--asr_model_file", f"{model}/{weights}", "--num_workers", "0"]
    command += ["--data_path_and_name_and_type", f"{data}/wav.scp,speech,sound", *options]
    star_lm_decode.main(command)
    lines = (out / "1best_recog" / "text").read_text().splitlines()
    return {line.split()[0]: line.split()[1:] for line in lines}


def test_greedy_is_the_best_path_of_each_utterance_alone(model, data_directory, tmp_path):
    """Fails if neighbors in the batch change a text, or tokens and text disagree."""
    found = decode(model, data_directory, tmp_path / "batch", "--batch_size", "3")
    assert found == decode(model, data_directory, tmp_path / "one", "--batch_size", "1")
    import soundfile

    task = student_task("asr")
    asr, _ = task.build_model_from_file(model / "config.yaml", model / "1epoch.pth")
    asr.eval()
    for line in (data_directory / "wav.scp").read_text().splitlines():
        key, path = line.split()
        speech = torch.from_numpy(soundfile.read(path, dtype="float32")[0])[None]
        states, _ = asr.encode(speech, torch.tensor([speech.shape[1]]))
        text = "".join(TOKENS[i] for i in collapse(asr.ctc.argmax(states)[0].tolist()))
        assert found[key] == text.replace("<space>", " ").split()


def test_the_ngram_decides_and_star_score_reads_it(model, data_directory, tmp_path, capsys):
    """Fails if the LM is not used, or the layout is not asr_inference's."""
    pytest.importorskip("flashlight.lib.text", reason="pip install espnet_star[lm]")
    (tmp_path / "lm.arpa").write_text(LM)
    (tmp_path / "words.txt").write_text("ABBA\nBA\n")
    search = ["--lm_file", f"{tmp_path}/lm.arpa", "--lexicon", f"{tmp_path}/words.txt"]
    greedy = decode(model, data_directory, tmp_path / "greedy")
    found = decode(model, data_directory, tmp_path / "lm", *search, "--lm_weight", "50", *WIDE)
    assert found != greedy and {tuple(words) for words in found.values()} == {("ABBA",)}
    names = {path.name for path in (tmp_path / "lm" / "1best_recog").iterdir()}
    assert names == {"text", "token", "token_int", "score"}
    assert " A B B A\n" in (tmp_path / "lm" / "1best_recog" / "token").read_text()
    reference = tmp_path / "text"
    reference.write_text("".join(f"{key} ABBA\n" for key in found))
    star_score.main(["asr", "--ref", f"{reference}", "--hyp", f"{tmp_path}/lm/1best_recog/text"])
    assert "WER 0.0 %" in capsys.readouterr().out


def test_mistakes_are_one_line(model, data_directory, tmp_path, capsys):
    def fails(message, *options, folder=model, weights="1epoch.pth"):
        with pytest.raises(SystemExit):
            decode(folder, data_directory, tmp_path / "x", *options, weights=weights)
        assert message in capsys.readouterr().err
        assert not (tmp_path / "x").exists()

    fails("--lm_file and --lexicon go together", "--lm_file", "x.arpa")
    fails("not a complete model file", weights="none.pth")
    fails("no such file; expected the config.yaml", folder=tmp_path)
    fails("must be PATH,speech,sound", "--data_path_and_name_and_type", "wav.scp,speech")
    fails("no such file; expected a wav.scp", "--data_path_and_name_and_type", "a,speech,sound")
    fails("no such file; expected an n-gram", "--lm_file", "x.arpa", "--lexicon", "x.txt")


def test_weights_of_another_model_are_refused(model, data_directory, tmp_path, capsys):
    """ESPnet itself loads them with strict=False in silence."""
    weights = torch.load(model / "1epoch.pth", weights_only=True)
    weights.pop("ctc.ctc_lo.bias")
    torch.save(weights, tmp_path / "1epoch.pth")
    config = yaml.safe_load((model / "config.yaml").read_text())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(SystemExit):
        decode(tmp_path, data_directory, tmp_path / "x")
    assert "does not belong to" in capsys.readouterr().err
