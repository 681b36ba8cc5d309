"""The recipe under egs3, and what it says when something is wrong."""

import importlib.util
from pathlib import Path

import pytest
import soundfile
import torch
import yaml

from espnet_star.errors import StarError
from espnet_star.espnet3 import launch
from espnet_star.espnet3.optimizer import adamw
from espnet_star.espnet3.plan import log_plan
from espnet_star.espnet3.record import espnet2_options
from espnet_star.files.run_lock import exclusive

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "egs3" / "amazon_queen" / "star"
CONFIGS = sorted(path.name for path in (RECIPE / "conf").glob("*.yaml"))
SHARED = [
    "batch_type",
    "batch_bins",
    "sort_in_batch",
    "sort_batch",
    "num_iters_per_epoch",
    "max_epoch",
    "optim",
    "optim_conf",
    "scheduler",
    "scheduler_conf",
    "grad_clip",
    "best_model_criterion",
]


def read(path):
    """A configuration as the launcher reads it."""
    pytest.importorskip("espnet3", reason="ESPnet 202611 brings it")
    from espnet3.utils.config_utils import load_and_merge_config
    from omegaconf import OmegaConf

    config = load_and_merge_config(path, "training.yaml", launch.PACKAGE)
    return OmegaConf.to_container(config, resolve=True)


def assert_like_espnet2(config, name):
    theirs = yaml.safe_load((ROOT / name).read_text())
    ours = espnet2_options(config) | config["model"]
    for key in {*SHARED, "encoder_conf"} & set(theirs):
        assert ours[key] == theirs[key], key
    for one, other in zip(ours["losses"], theirs["losses"], strict=True):
        chosen = {"target_norm", "layerwise_weight", "intralayer_weight"}  # as by default
        assert one.get("conf", {}).items() <= other["conf"].items()
        assert other["conf"].keys() - one.get("conf", {}).keys() <= chosen


def test_the_recipe_trains_as_its_namesake(tmp_path):
    """Fails if one of the two recipes was changed and the other was not."""
    assert_like_espnet2(
        read(RECIPE / "conf" / "training.yaml"), "egs2/amazon_queen/star1/conf/train_star.yaml"
    )


def test_defaults_are_those_of_the_paper(tmp_path):
    """Fails if a recipe that says nothing would not train as conf/train_star.yaml."""
    empty = tmp_path / "training.yaml"
    empty.write_text("model:\n  encoder_conf:\n    preset: starhubert\n")
    assert_like_espnet2(read(empty), "conf/train_star.yaml")


@pytest.mark.parametrize("name", CONFIGS)
def test_every_configuration_fits_together(name):
    """Fails if a schedule does not last as long as its training, or ranks change the loss."""
    config = read(RECIPE / "conf" / name)
    options = espnet2_options(config)
    updates = options["max_epoch"] * options["num_iters_per_epoch"]
    assert options["scheduler_conf"]["first_cycle_steps"] == updates + 1
    scopes = {(entry.get("conf") or {}).get("scope") for entry in config["model"]["losses"]}
    assert config["num_device"] == 1 or "batch" not in scopes
    assert config["exp_dir"] == f"./exp/{Path(name).stem}"
    assert config["task"] == "espnet_star.tasks.star.StarTask"


def test_the_builder_prepares_what_egs2_has_fetched(tmp_path, make_speech):
    """Fails if paths relative to the other recipe were read from here, or options not passed."""
    pytest.importorskip("espnet3", reason="ESPnet 202611 brings it")
    spec = importlib.util.spec_from_file_location("builder", RECIPE / "dataset" / "builder.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    source, target = tmp_path / "egs2", tmp_path / "data"
    for name in module.SETS:
        (source / "data" / name).mkdir(parents=True)
        for key, seconds in (("long", 1.0), ("short", 0.3)):
            path = source / f"{name}_{key}.wav"
            soundfile.write(path, make_speech(1, int(22050 * seconds)), 22050)
        rows = "".join(f"{key} {name}_{key}.wav\n" for key in ("long", "short"))
        (source / "data" / name / "wav.scp").write_text(rows)
        (source / "data" / name / "utt2spk").write_text("long a\nshort a\n")
    builder = module.AmazonQueenBuilder(source)
    assert not builder.is_source_prepared() and not builder.is_built(data_dir=target)
    hours = {"train_hours": 1.0, "valid_hours": 1.0, "min_duration": 0.5}
    builder.build(data_dir=target, recipe_dir=tmp_path, nj=1, **hours)
    assert builder.is_built(data_dir=target)
    assert (target / "valid" / "utt2num_samples").read_text() == "long 16000\n"
    (source / "local").mkdir()
    (source / "local" / "data.sh").write_text("#!/bin/sh\nexit 3\n")
    (source / "local" / "data.sh").chmod(0o755)
    with pytest.raises(StarError, match=r"cannot be fetched from here.*local/data\.sh"):
        builder.prepare_source()


@pytest.mark.parametrize("absent", ["espnet3", "lightning"])
def test_a_missing_package_is_named(absent, monkeypatch, capsys):
    """Fails if somebody with ESPnet 202511 met a traceback."""
    present = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name == absent else present("json"),
    )
    with pytest.raises(SystemExit) as stop:
        launch.main(["--stages", "train"])
    assert stop.value.code == 2 and "espnet_star[espnet3]" in capsys.readouterr().err


@pytest.fixture
def system():
    """The module of the stages."""
    for name in ("espnet3", "lightning"):
        pytest.importorskip(name, reason="ESPnet 202611 and espnet_star[espnet3]")
    from espnet_star.espnet3 import system

    return system


def test_a_configuration_without_a_teacher_is_refused(system, tmp_path):
    from omegaconf import OmegaConf

    config = OmegaConf.create({"exp_dir": str(tmp_path / "exp"), "model": {"teacher": None}})
    with pytest.raises(StarError, match=r"no model\.teacher"):
        system.StarSystem(training_config=config).train()


def test_a_plan_that_cannot_be_meant_is_refused(base, system, tmp_path, caplog):
    """Fails if a batch far from the paper's cost days, or the lengths' absence a traceback."""
    from espnet3_runs import merged, write

    caplog.set_level("INFO")
    paths = {"recipe_dir": str(tmp_path)}
    config = read(write(tmp_path / "training.yaml", base, paths))
    log_plan(config)
    assert "effective batch 4.0 utterances" in caplog.text
    assert "decays over 100 updates, of which only 4 are made" in caplog.text
    with pytest.raises(StarError, match="the learning rate was meant for 48"):
        log_plan(merged(config, {"model": {"expected_batch": 48}}))
    loader = {"iter_factory": {"batches": {"shape_files": [f"{tmp_path}/utt2num_samples"]}}}
    with pytest.raises(StarError, match="run the stage create_dataset"):
        log_plan(merged(config, {"dataloader": {"train": loader}}))


def test_one_run_a_folder(base, system, tmp_path):
    """Fails if two runs could write their checkpoints over each other."""
    from espnet3_runs import write
    from omegaconf import OmegaConf

    config = read(write(tmp_path / "training.yaml", base, {"recipe_dir": str(tmp_path)}))
    stages = system.StarSystem(training_config=OmegaConf.create(config))
    with exclusive(config["exp_dir"]), pytest.raises(StarError, match="another run is writing"):
        stages.train()


def test_options_of_the_export_are_checked(system, tmp_path):
    args = system.export_args(tmp_path, {"license": "cc-by-4.0", "hf_repo": None, "speed": False})
    assert (args.license, args.hf_repo, args.speed) == ("cc-by-4.0", None, False)
    assert args.output_dir == str(tmp_path / "student")
    with pytest.raises(StarError, match=r"key of export 'licens'.*Did you mean 'license'"):
        system.export_args(tmp_path, {"licens": "cc-by-4.0"})
    with pytest.raises(StarError, match="export"):
        system.export_args(tmp_path, {"seed": "many"})


def test_a_directory_that_is_not_prepared_is_refused(system, tmp_path, make_speech):
    """Fails if 8 kHz or a missing table were found out in the middle of an epoch."""
    from espnet_star.espnet3.dataset import Dataset, DatasetBuilder

    soundfile.write(tmp_path / "a.wav", make_speech(1, 8000), 8000)
    (tmp_path / "wav.scp").write_text(f"a {tmp_path}/a.wav\n")
    with pytest.raises(StarError, match="no utt2num_samples"):
        Dataset(tmp_path)
    (tmp_path / "utt2num_samples").write_text("a 8000\n")
    with pytest.raises(StarError, match=r"utterance a: .* 1 channels at 8000 Hz"):
        Dataset(tmp_path)
    soundfile.write(tmp_path / "a.wav", make_speech(1, 8000), 16000)
    data = Dataset(tmp_path)
    assert list(data.keys()) == ["a"] and data["a"]["speech"].shape == (8000,)
    (tmp_path / "units").write_text("a 3 3 1\n")
    assert Dataset(tmp_path, tmp_path / "units")["a"]["labels"].tolist() == [3, 3, 1]
    (tmp_path / "units").write_text("b 3\n")
    with pytest.raises(StarError, match="units has no labels for a of"):
        Dataset(tmp_path, tmp_path / "units")
    with pytest.raises(KeyError):
        data[0]  # so that ESPnet3 asks by name
    with pytest.raises(StarError, match=r"train.wav\.scp"):
        DatasetBuilder().build(data_dir=tmp_path)


def test_marked_parameters_are_not_decayed():
    """Fails if biases and norms shrank with the rest, or were left out of the optimizer."""
    params = [torch.nn.Parameter(torch.ones(3)) for _ in range(4)]
    params[1]._optim = params[3]._optim = {"weight_decay": 0.0}
    groups = adamw(iter(params), lr=0.1, weight_decay=0.5).param_groups
    assert [(len(group["params"]), group["weight_decay"]) for group in groups] == [(2, 0.5), (2, 0)]


def test_words_of_espnet2_without_its_iterator():
    config = {
        "trainer": {"precision": "bf16-true", "gradient_clip_val": 1.0, "max_epochs": 3},
        "best_model_criterion": [["valid/loss", 4, "min"]],
        "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.1, "_convert_": "all"},
        "scheduler": {"_target_": "espnet2.schedulers.warmup_lr.WarmupLR"},
        "dataset": {"train": [{"data_src_args": {"split": "train"}}], "valid": None},
        "dataloader": {"train": {"iter_factory": None, "batch_size": 6}},
    }
    options = espnet2_options(config)
    assert options["optim"] == "adam" and options["optim_conf"] == {"lr": 0.1}
    assert options["scheduler"] == "WarmupLR" and options["batch_size"] == 6
    assert (options["train_dtype"], options["use_amp"]) == ("bfloat16", False)
    assert (options["grad_clip"], options["keep_nbest_models"]) == (1.0, [4])
    assert options["train_data_path_and_name_and_type"] == []
