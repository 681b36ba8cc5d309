"""Mistakes in options and data: one line and exit code 2 before anything is built."""

import importlib
import re
import shutil

import numpy as np
import pytest
import soundfile
import yaml
from downstream_runs import asr_options, cls_options
from espnet_tools import asr_train, cls_train, spk_train
from star_runs import pairs, sound_data, training

from espnet_star.bin import star_train
from espnet_star.files.yaml_files import as_numbers
from espnet_star.tasks.preflight.values import check_choices, check_optimizers, coerce_values

RNN = ["--encoder", "rnn", *pairs("--encoder_conf", ["hidden_size=8", "num_layers=1"])]


@pytest.fixture
def data(data_directory, tmp_path):
    """A copy whose lists name its own files, sorted as the lists of the original are."""
    copy = shutil.copytree(data_directory, tmp_path / "data")
    keys = [line.split()[0] for line in (copy / "wav.scp").read_text().splitlines()]
    write(copy / "wav.scp", {key: copy / f"{key}.wav" for key in keys})
    return copy


def write(path, table):
    path.write_text("".join(f"{key} {value}\n" for key, value in table.items()))


def change(path, index, line):
    """Replace a line of a list, or take it out."""
    lines = path.read_text().splitlines(keepends=True)
    lines[index : index + 1] = [] if line is None else [f"{line}\n"]
    path.write_text("".join(lines))


def keys_of(data):
    return [line.split()[0] for line in (data / "wav.scp").read_text().splitlines()]


def refused(tool, options, capsys):
    """The one line that a command ends with."""
    with pytest.raises(SystemExit) as stop:
        tool.main([str(option) for option in options])
    told = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2
    assert len(told) == 1, told
    return told[0]


def resampled(data, keys, rate):
    for key in keys:
        samples, _ = soundfile.read(data / f"{key}.wav")
        soundfile.write(data / f"{key}.wav", samples, rate)


def stereo(data):
    samples, rate = soundfile.read(data / "s1_7.wav")
    soundfile.write(data / "s1_7.wav", np.stack([samples] * 2, axis=1), rate)


def archived(data):
    (data / "all.ark").write_bytes(b"s0_0 \0")
    change(data / "wav.scp", 0, f"s0_0 {data}/all.ark:5")


SPOILED = {
    "all at 8 kHz": (lambda d: resampled(d, keys_of(d), 8000), r"s0_0 .*8000 Hz.*16000 Hz"),
    "one at 44.1 kHz": (lambda d: resampled(d, ["s1_7"], 44100), r"s1_7 .*44100 Hz.*16000 Hz"),
    "one stereo": (stereo, r"s1_7 .*2 channels, a student takes one"),
    "a command": (
        lambda d: change(d / "wav.scp", 0, "s0_0 cat a.wav |"),
        r"s0_0 \(cat a.wav \|\) is a command.*--run_pipes",
    ),
    "a missing recording": (lambda d: (d / "s0_0.wav").unlink(), r"s0_0.wav\): no such file"),
    "a recording that is text": (
        lambda d: (d / "s0_0.wav").write_text("RIFF"),
        r"s0_0 .*cannot be read as audio",
    ),
    "an entry of an archive": (archived, r"all.ark:5\) is an entry of a Kaldi archive.*kaldi_ark"),
    "a length too many": (
        lambda d: change(d / "wav.scp", 3, None),
        r"wav.scp lacks 1 of 8 utterances of .*utt2num_samples: s0_6",
    ),
    "lengths of other data": (
        lambda d: write(d / "utt2num_samples", {"a": 4000, "b": 4000}),
        r"wav.scp lacks 2 of 2 utterances",
    ),
    "no lengths": (lambda d: (d / "utt2num_samples").write_text(""), r"utt2num_samples is empty"),
    "an empty list": (lambda d: (d / "wav.scp").write_text(""), r"wav.scp is empty"),
    "a key twice": (
        lambda d: change(d / "wav.scp", 1, f"s0_0 {d}/s0_0.wav"),
        r"wav.scp:2: utterance s0_0 is duplicated",
    ),
    "no list": (lambda d: (d / "wav.scp").unlink(), r"wav.scp: cannot be opened"),
    "a clip without a frame": (
        lambda d: change(d / "utt2num_samples", 0, "s0_0 399"),
        r"1 utterances have fewer than 400 samples.*s0_0 \(399\)",
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_data_that_a_student_cannot_train_on(command, data, tmp_path, capsys, case):
    """Fails if the training starts, or what is wrong with which utterance is not said."""
    spoil, expected = SPOILED[case]
    spoil(data)
    told = refused(star_train, command(tmp_path / "exp", data=data), capsys)
    assert told.startswith("star_train: error: ") and re.search(expected, told), told
    assert not (tmp_path / "exp").exists()


OPTIONS = {
    "--accum_grad 0": "--accum_grad must be at least 1, got 0",
    "--max_epoch 0": "--max_epoch must be at least 1, got 0",
    "--batch_type numel --batch_bins -5": "--batch_bins must be at least 1, got -5",
    "--optim_conf learning_rate=1": "unknown key of optim_conf (adamw) 'learning_rate'",
    "--optim_conf lr=fast": "optim_conf (adamw): lr must be a number, got 'fast'",
    "--scheduler warmuplr --scheduler_conf warmup=3": "Did you mean 'warmup_steps'?",
    "--scheduler steplr": "scheduler_conf (steplr): step_size is not given",
    "--optim s3prl_adamw": "optim_conf (s3prl_adamw): total_steps is not given",
    "--ngpu 1": "--ngpu 1: torch finds no GPU here; give --ngpu 0",
    "--output_dir {file}": "{file} is a file, expected a folder",
    "--output_dir {file}/exp": "{file} is a file, expected a folder",
    "--init_param {file}.pth:encoder": "--init_param {file}.pth: no such file",
    "--batch_type folded": "--batch_type folded needs a --fold_length",
    "--config {file}.yaml": "{file}.yaml: cannot be read",
    "--config {file}": "is not plain YAML",
    "--bogus 3": "unrecognized arguments: --bogus 3",
}


@pytest.mark.parametrize("options", OPTIONS)
def test_options_that_cannot_be_meant(command, tmp_path, capsys, options):
    """Fails if ESPnet's traceback, or two screens of usage, are what a user sees."""
    file = tmp_path / "file"
    file.write_text("batch_size:\n\t4\n")
    given = options.format(file=file).split()
    told = refused(star_train, command(tmp_path / "exp", *given), capsys)
    assert OPTIONS[options].format(file=file) in told


YAML = {
    "accum_grad: 1.5": "--accum_grad must be a whole number, got 1.5",
    "optim: adamm": "unknown optim 'adamm'. Did you mean 'adam'?",
    "encoder: stra": "unknown encoder 'stra'. Did you mean 'star'?",
    "optim_conf: 0.1": "--optim_conf must be a mapping",
    "use_amp: maybe": "invalid str2bool value: 'maybe'",
    "no_such_key: 1": "unrecognized arguments: no_such_key",
    "train_data_path_and_name_and_type: [wav.scp]": "must be PATH,NAME,TYPE, got 'wav.scp'",
}


@pytest.mark.parametrize("content", YAML)
def test_a_configuration_that_cannot_be_meant(teacher_directory, tmp_path, capsys, content):
    (tmp_path / "conf.yaml").write_text(f"{content}\n")
    options = ["--config", tmp_path / "conf.yaml", "--teacher", teacher_directory]
    told = refused(star_train, [*options, "--output_dir", tmp_path / "exp"], capsys)
    assert YAML[content] in told


def test_numbers_that_yaml_takes_for_text(command, tmp_path):
    """Fails if 1e-3 stays text, in whatever depth, or a whole 1.0 is no whole number."""
    conf = {"optim_conf": {"lr": "2e-3", "weight_decay": "1E-6"}, "accum_grad": 2.0}
    conf["losses"] = [{"name": "temporal_gram", "weight": "5e-1"}]
    (tmp_path / "conf.yaml").write_text(yaml.safe_dump(conf))
    made = command(tmp_path / "exp", "--config", tmp_path / "conf.yaml", "--max_epoch", 1)
    at = made.index("--optim_conf")
    star_train.main(made[:at] + made[at + 2 :])
    saved = yaml.safe_load((tmp_path / "exp" / "config.yaml").read_text())
    assert saved["optim_conf"] == {"lr": 0.002, "weight_decay": 1e-6}
    assert saved["accum_grad"] == 2 and isinstance(saved["accum_grad"], int)
    assert saved["losses"][0]["weight"] == 0.5


TOKENS = {
    "": "is empty",
    "<blank>\n<unk>\nA\nA\n": "'A' are there twice",
    "<blank>\nA\nB\n": "<unk> is not there",
    "A\nB\n<unk>\n": "CTC would take the first token, 'A', for its blank",
    None: "cannot be read",
}


@pytest.mark.parametrize("content", TOKENS)
def test_token_lists(data, tmp_path, capsys, content):
    if content is None:
        (data / "tokens").unlink()
    else:
        (data / "tokens").write_text(content)
    told = refused(asr_train, asr_options(data, tmp_path / "exp"), capsys)
    assert f"{data}/tokens" in told and TOKENS[content] in told


def test_what_asr_needs_beside_the_list(data, tmp_path, capsys):
    """Fails if a transcript that lacks, or a model of pieces, is found by a traceback."""
    options = asr_options(data, tmp_path / "exp")
    told = refused(asr_train, [*options, "--token_type", "bpe"], capsys)
    assert "--bpemodel None: no such file" in told
    change(data / "text", 2, None)
    assert "text lacks 1 of 8 utterances" in refused(asr_train, options, capsys)


def test_sets_without_what_the_task_needs(data, tmp_path, capsys):
    """Fails if an absent validation set, or a set without transcripts, is a traceback."""
    options = training(data, tmp_path / "exp", "--token_type", "char")
    told = refused(asr_train, [*options, "--token_list", data / "tokens"], capsys)
    assert "gives speech, but not text" in told
    part = sound_data(data)[:4]
    bare = ["--output_dir", tmp_path / "exp", "--token_list", data / "tokens", *part]
    bare += ["--token_type", "char"]
    bare += ["--train_data_path_and_name_and_type", f"{data}/text,text,text"]
    told = refused(asr_train, [*bare, "--batch_type", "sorted"], capsys)
    assert "no data: give --valid_data_path_and_name_and_type" in told


@pytest.mark.parametrize("part", ["train", "valid"])
def test_a_label_that_the_list_lacks(data, tmp_path, capsys, part):
    """Fails if a class that does not exist is trained on until the loss is out of range."""
    write(data / "other", {key: "s9" if key == "s0_2" else "s0" for key in keys_of(data)})
    options = cls_options(data, tmp_path / "exp")
    positions = [n for n, option in enumerate(options) if option == f"{data}/label,label,text"]
    at = positions[0 if part == "train" else 1]
    options[at] = f"{data}/other,label,text"
    told = refused(cls_train, options, capsys)
    assert f"{data}/other: 1 labels are not among the 2" in told and "'s9' of s0_2" in told


def test_a_speaker_that_is_not_numbered(data, tmp_path, capsys):
    write(data / "spk2utt", {"s0": "s0_0"})
    options = training(data, tmp_path / "exp", "--spk2utt", data / "spk2utt", "--spk_num", 1)
    options += ["--train_data_path_and_name_and_type", f"{data}/utt2spk,spk_labels,text"]
    told = refused(spk_train, options, capsys)
    assert "1 labels are not among the 1" in told and "'s1' of s1_1" in told


def test_a_misspelled_key_of_a_class(data, tmp_path, capsys):
    """Fails if the class that refuses it is named without the option that gives it."""
    options = [*asr_options(data, tmp_path / "exp"), "--encoder", "rnn"]
    with pytest.raises(SystemExit) as stop:
        asr_train.main([str(o) for o in [*options, "--encoder_conf", "hiden_size=8"]])
    assert stop.value.code == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert "unknown key 'hiden_size' of encoder_conf (RNNEncoder)" in told


def test_telephone_models_of_espnet_stay_possible(data, tmp_path):
    """Fails if the student's rate is asked of ESPnet's own frontend."""
    resampled(data, keys_of(data), 8000)
    options = [*asr_options(data, tmp_path / "exp"), *RNN, "--frontend", "default"]
    options += pairs("--frontend_conf", ["fs=8k", "n_fft=256", "hop_length=80"])
    asr_train.main([str(option) for option in options])
    assert (tmp_path / "exp" / "1epoch.pth").exists()


def test_a_shorter_list_of_lengths_chooses(command, data, tmp_path, caplog):
    """Fails if utterances cannot be left out by leaving out their lengths."""
    change(data / "utt2num_samples", 3, None)
    star_train.main(command(tmp_path / "exp", "--max_epoch", 1, data=data))
    assert "wav.scp: 1 utterances are not in" in caplog.text
    assert (tmp_path / "exp" / "1epoch.pth").exists()


def test_a_recording_that_is_lost_on_the_way(command, data, tmp_path, capsys):
    """Fails if one that no look ahead has seen ends in a worker's traceback."""
    (data / "s0_4.wav").unlink()
    with pytest.raises(SystemExit) as stop:
        star_train.main(command(tmp_path / "exp", "--num_workers", 1, data=data))
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert stop.value.code == 2
    assert told.startswith(f"star_train: error: {data}/wav.scp: s0_4 ({data}/s0_4.wav) cannot")


@pytest.mark.parametrize("name", ["asr", "asr_transducer", "cls", "spk", "slu", "st", "diar"])
def test_defaults_of_espnet_are_never_refused(name):
    """Fails if a guard takes an option that ESPnet itself sets for a mistake."""
    module = importlib.import_module(f"espnet2.tasks.{name}")
    task = next(c for n, c in vars(module).items() if n.endswith("Task") and n != "AbsTask")
    parser = task.get_parser()
    args = parser.parse_args([])
    before = dict(vars(args))
    coerce_values(args, parser)
    check_choices(args, parser, [choice.name for choice in task.class_choices_list])
    check_optimizers(args, task.num_optimizers)
    assert vars(args) == before


def test_names_stay_names():
    """Fails if a commit's name or a word becomes a number."""
    conf = {"revision": "12e4567", "a": ["1e-3", ".5E2", "1e", "e3", "0x1e3", "1e3 Hz", "12e34567"]}
    found = as_numbers(conf)
    assert found["revision"] == "12e4567"
    assert found["a"] == [0.001, 50.0, "1e", "e3", "0x1e3", "1e3 Hz", "12e34567"]
