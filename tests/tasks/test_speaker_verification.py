"""Speakers, from training to error rate. A bug here trains, extracts or scores something else."""

import argparse
import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
import yaml
from espnet2.train.preprocessor import SpkPreprocessor
from espnet_tools import spk_train
from star_runs import OFF, pairs

from espnet_star.bin import spk_inference, star_data, star_export, star_import, star_score
from espnet_star.data.kaldi import invert, read_table, write_table
from espnet_star.downstream.excerpts import Excerpts, SpeakerPreprocessor, random_excerpt
from espnet_star.errors import StarError
from espnet_star.students import StarEncoder
from espnet_star.tasks.cls import CLSTask
from espnet_star.tasks.spk import SpeakerTask

pytest.importorskip("sklearn")
HEAD = ["--encoder", "xvector", "--pooling", "stats", "--projector", "xvector"]
SMALL = [
    *pairs("--encoder_conf", ["ndim=8", "output_size=6", "paddings=[2,2,3,0,0]"]),
    *("--projector_conf", "output_size=5", "--loss", "amsoftmax"),
]
PREPARE = ["target_duration=0.125", "num_eval=2", "noise_apply_prob=0.0", "rir_apply_prob=0.0"]


@pytest.fixture(scope="module")
def speakers(data_directory, tmp_path_factory):
    """The clips with pairs to validate on."""
    folder = shutil.copytree(data_directory, tmp_path_factory.mktemp("speakers") / "data")
    table = read_table(folder / "utt2spk")
    write_table(folder / "category2utt", invert(table))
    keys = sorted(table)
    lines = [f"{int(table[a] == table[b])} {a} {b}\n" for a in keys for b in keys if a < b]
    (folder / "trials").write_text("".join(lines))
    star_data.main(["trials", "--trials", f"{folder}/trials", "--data_dir", str(folder)])
    return folder


def train(data, exp, *extra):
    options = ["--output_dir", str(exp), "--ngpu", "0", "--num_workers", "0", "--max_epoch", "1"]
    options += ["--optim", "adam", "--optim_conf", "lr=0.01", "--drop_last_iter", "true"]
    options += ["--iterator_type", "category", "--batch_type", "catbel", "--batch_size", "4"]
    options += ["--valid_iterator_type", "sequence", "--valid_batch_type", "unsorted"]
    options += ["--valid_batch_size", "8", "--best_model_criterion", '["valid", "eer", "min"]']
    options += [part for name in OFF for part in (f"--{name}", "false")]
    options += ["--spk2utt", f"{data}/category2utt", "--spk_num", "2"]
    for name, kind in (("wav.scp", "speech,sound"), ("utt2spk", "spk_labels,text")):
        options += ["--train_data_path_and_name_and_type", f"{data}/{name},{kind}"]
    for name, kind in (
        ("trial.scp", "speech,sound"),
        ("trial2.scp", "speech2,sound"),
        ("trial_label", "spk_labels,text"),
    ):
        options += ["--valid_data_path_and_name_and_type", f"{data}/{name},{kind}"]
    options += ["--train_shape_file", f"{data}/utt2num_samples"]
    options += ["--valid_shape_file", f"{data}/trial_shape", *pairs("--preprocessor_conf", PREPARE)]
    spk_train.main([*options, *HEAD, *SMALL, *map(str, extra)])


@pytest.fixture(scope="module")
def trained(speakers, tiny_options, tmp_path_factory):
    """Experiment of a frozen student whose folder is gone."""
    work = tmp_path_factory.mktemp("sv")
    torch.manual_seed(0)
    StarEncoder(**tiny_options).eval().save_pretrained(work / "student")
    star = ["--frontend", "star", "--frontend_conf", f"upstream={work}/student"]
    train(speakers, work / "exp", *star)
    shutil.rmtree(work / "student")
    return work / "exp"


def embed(data, exp, out, *extra):
    options = ["--train_config", f"{exp}/config.yaml", "--model_file", f"{exp}/1epoch.pth"]
    options += ["--output_dir", str(out), "--num_workers", "0", *extra]
    spk_inference.main([*options, "--data_path_and_name_and_type", f"{data}/wav.scp,speech,sound"])
    return read_table(out / "embed.scp")


def test_embeddings_and_error_rate(speakers, trained, tmp_path):
    """Fails if embeddings are not the trained model's of whole clips, or EER is miscounted."""
    table = embed(speakers, trained, tmp_path / "out")
    found = {name: np.load(path) for name, path in table.items()}
    model, _ = SpeakerTask.build_model_from_file(trained / "config.yaml", trained / "1epoch.pth")
    model.eval()
    assert len(found) == 8
    for name, path in read_table(speakers / "wav.scp").items():
        speech = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
        with torch.no_grad():
            expected = model(speech=speech[None], extract_embd=True)[0]
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6)
    out = tmp_path / "score.json"
    call = ["sv", "--ref", f"{speakers}/trials", "--hyp", f"{tmp_path}/out/embed.scp"]
    star_score.main([*call, "--output", str(out)])
    unit = {name: value / np.linalg.norm(value) for name, value in found.items()}
    scores, labels = [], []
    for line in (speakers / "trials").read_text().splitlines():
        label, first, second = line.split()
        scores.append(float(unit[first].astype(float) @ unit[second].astype(float)))
        labels.append(int(label))
    scores, labels = np.array(scores), np.array(labels)
    rates = [
        ((scores[labels == 1] < threshold).mean(), (scores[labels == 0] >= threshold).mean())
        for threshold in [*scores, np.inf]
    ]
    # At the threshold where the rates are closest; which of several is a matter of taste.
    gap = min(abs(miss - alarm) for miss, alarm in rates)
    nearest = {round(max(pair), 9) for pair in rates if abs(abs(pair[0] - pair[1]) - gap) < 1e-9}
    assert round(json.loads(out.read_text())["eer"], 9) in nearest


def test_a_pack_embeds_alike(speakers, trained, tmp_path):
    """Fails if a packed speaker model lacks something, or is another one."""
    pack = ["spk", "--expdir", str(trained), "--model_file", "1epoch.pth"]
    star_export.main(["pack", *pack, "--output", f"{tmp_path}/sv.zip"])
    star_import.main(["pack", "--pack", f"{tmp_path}/sv.zip", "--output_dir", f"{tmp_path}/model"])
    unpacked = tmp_path / "model" / "exp" / trained.name
    command = (tmp_path / "model" / "README.md").read_text()
    assert f"spk_inference --train_config model/exp/{trained.name}/config.yaml" in command
    before = embed(speakers, trained, tmp_path / "before")
    after = embed(speakers, unpacked, tmp_path / "after")
    for name, path in before.items():
        np.testing.assert_array_equal(np.load(path), np.load(after[name]))


def test_training_validates_by_equal_error_rate(trained):
    """Fails if the best model is chosen by something else, or the student is trained."""
    assert (trained / "valid.eer.best.pth").exists()
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert config["frontend_conf"]["student_conf"]["hidden_size"] == 16
    assert config["loss"] == "amsoftmax"


def test_weights_of_another_model_are_refused(speakers, trained, tmp_path, capsys):
    """Fails if ESPnet's silence about missing weights leaves a random head."""
    other = tmp_path / "exp"
    other.mkdir()
    shutil.copy(trained / "config.yaml", other)
    weights = torch.load(trained / "1epoch.pth", weights_only=True)
    weights["projector.fc9.weight"] = weights.pop("projector.fc1.weight")
    torch.save(weights, other / "1epoch.pth")
    with pytest.raises(SystemExit) as stop:
        embed(speakers, other, tmp_path / "out")
    assert stop.value.code == 2
    assert "2 of its weights differ, e.g. projector.fc1.weight" in capsys.readouterr().err
    assert not (tmp_path / "out" / "embed.scp").exists()


def test_wrong_calls_of_the_inference(speakers, trained, tmp_path, capsys):
    for extra, message in (
        (["--batch_size", "2"], "one utterance at a time"),
        (["--model_file", "none.pth"], "--model_file none.pth: no such file"),
    ):
        with pytest.raises(SystemExit) as stop:
            embed(speakers, trained, tmp_path / "out", *extra)
        assert stop.value.code == 2
        assert message in capsys.readouterr().err


def test_training_excerpts_are_of_one_length(speakers):
    """Fails where NumPy refuses ESPnet's own excerpts, or they leave the utterance."""
    prepare = SpeakerPreprocessor(
        train=True,
        spk2utt=str(speakers / "category2utt"),
        target_duration=0.01,
        noise_apply_prob=0.0,
        rir_apply_prob=0.0,
    )
    ramp = np.arange(400.0)
    starts = set()
    for _ in range(50):
        data = prepare("u", {"speech": ramp, "spk_labels": "s1"})
        assert data["spk_labels"].tolist() == [1]
        assert len(data["speech"]) == 160
        assert (np.diff(data["speech"]) == 1).all()
        starts.add(data["speech"][0])
    assert len(starts) > 10
    short = prepare("u", {"speech": ramp[:60], "spk_labels": "s0"})["speech"]
    assert short.tolist() == [*range(60), *range(60), *range(40)]


def test_validation_is_espnets(speakers):
    """Fails if validation hears random excerpts, so that no two epochs compare."""
    conf = dict(noise_apply_prob=0.0, rir_apply_prob=0.0, target_duration=0.01, num_eval=3)
    speech = np.arange(400.0)
    data = {"speech": speech, "speech2": speech[::-1], "spk_labels": "1"}
    ours = SpeakerPreprocessor(train=False, **conf)("a*b", dict(data))
    theirs = SpkPreprocessor(train=False, **conf)("a*b", dict(data))
    for key in ("speech", "speech2", "spk_labels"):
        np.testing.assert_array_equal(ours[key], theirs[key])


@pytest.mark.parametrize("key", ["noise_apply_prob", "rir_apply_prob", "target_duration"])
def test_what_espnets_defaults_lack(speakers, key):
    """Fails if ESPnet's defaults stop with an error that names no option."""
    conf = {"target_duration": 1.0, "noise_apply_prob": 0.0, "rir_apply_prob": 0.0}
    args = argparse.Namespace(
        use_preprocessor=True,
        preprocessor="spk",
        spk2utt=str(speakers / "category2utt"),
        preprocessor_conf=conf,
    )
    assert isinstance(SpeakerTask.build_preprocess_fn(args, True), SpeakerPreprocessor)
    del args.preprocessor_conf[key]
    with pytest.raises(StarError, match=f"--preprocessor_conf {key}="):
        SpeakerTask.build_preprocess_fn(args, True)


def test_excerpts_in_training_alone(data_directory):
    """Fails if SUPERB's excerpts reach validation, or are not as long as asked for."""
    options = ["--token_list", f"{data_directory}/labels", "--excerpt_seconds", "0.01"]
    args = CLSTask.get_parser().parse_args([*options, "--output_dir", "x"])
    args.token_list = ["s0", "s1", "<unk>"]
    cut, whole = (CLSTask.build_preprocess_fn(args, train) for train in (True, False))
    speech = np.arange(400.0, dtype=np.float32)
    assert len(cut("u", {"speech": speech, "label": "s1"})["speech"]) == 160
    assert cut("u", {"speech": speech, "label": "s1"})["label"].tolist() == [1]
    assert len(whole("u", {"speech": speech, "label": "s1"})["speech"]) == 400
    args.excerpt_seconds = -1.0
    with pytest.raises(StarError, match="--excerpt_seconds must be above 0"):
        CLSTask.build_preprocess_fn(args, True)
    # Models trained before there was the option, or by ESPnet, do not have it.
    del args.excerpt_seconds
    assert not isinstance(CLSTask.build_preprocess_fn(args, True), Excerpts)


def test_an_excerpt_may_be_the_first_or_the_last():
    """Fails if the end of utterances is never heard."""
    found = {int(random_excerpt(np.arange(12), 10)[0]) for _ in range(100)}
    assert found == {0, 1, 2}
    assert random_excerpt(np.arange(3), 10).tolist() == [0, 1, 2]


def test_a_clip_without_a_frame_costs_its_own_embedding_alone(
    trained, tmp_path, make_speech, capsys
):
    """Fails if one clip of 25 ms ends the extraction, or is left out without a word."""
    for key, samples in (("a", 399), ("b", 8000)):
        soundfile.write(tmp_path / f"{key}.wav", make_speech(1, samples), 16000)
    (tmp_path / "wav.scp").write_text("".join(f"{k} {tmp_path}/{k}.wav\n" for k in "ab"))
    embed(tmp_path, trained, tmp_path / "out")
    assert "1 utterances are too short for an embedding: a" in capsys.readouterr().out
    assert (tmp_path / "out" / "embed.scp").read_text().startswith("b ")
