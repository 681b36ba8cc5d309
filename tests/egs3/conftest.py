"""A small distillation's configuration, for ESPnet3 where it is installed."""

import importlib.util

import pytest


def absent():
    """First of what ESPnet3 stands on that is not installed."""
    names = ("espnet3", "lightning")
    return next((name for name in names if importlib.util.find_spec(name) is None), None)


@pytest.fixture(scope="session")
def base(teacher_directory, data_directory, tiny_options):
    """What a recipe would say of a distillation of seconds; no dropout, so runs compare."""
    if name := absent():
        pytest.skip(f"no {name} here (ESPnet 202611 and espnet_star[espnet3])")
    dropouts = ("feat_proj", "hidden", "attention", "activation")
    student = tiny_options | {f"{name}_dropout": 0.0 for name in dropouts}
    data = {"data_src": "espnet_star.espnet3.dataset", "data_src_args": {}}
    data["data_src_args"]["data_dir"] = str(data_directory)
    batches = {"type": "unsorted", "batch_size": 4}
    batches["shape_files"] = [f"{data_directory}/utt2num_samples"]
    loader = {"num_workers": 0, "num_iters_per_epoch": None, "batches": batches}
    return {
        "dataset": {"train": [data], "valid": [data]},
        "model": {
            "teacher": str(teacher_directory),
            "encoder_conf": student,
            "expected_batch": 4,
            "expected_updates": 4,
        },
        "scheduler": {"first_cycle_steps": 100, "warmup_steps": 2},
        "seed": 3,
        "best_model_criterion": [["valid/loss", 2, "min"]],
        "dataloader": {split: {"iter_factory": loader} for split in ("train", "valid")},
        "trainer": {"accelerator": "cpu", "max_epochs": 2, "log_every_n_steps": 1},
        "export": {"speed": False},
    }


@pytest.fixture(scope="session")
def experiment(base, tmp_path_factory):
    """Train by ESPnet3, once for each name; folder of the experiment."""
    from espnet3_runs import run, write

    root = tmp_path_factory.mktemp("espnet3")

    def make(name, *extras, stages=("train",), world=1):
        """Each of ``extras`` changes the configuration of one more run into the folder."""
        if not (root / "exp" / name).exists():
            for extra in extras or ({},):
                paths = {"recipe_dir": str(root), "exp_tag": name}
                config = write(root / f"{name}.yaml", base, paths, extra)
                for code, log in run(config, *stages, world=world):
                    assert code == 0, log[-4000:]
        return root / "exp" / name

    return make


@pytest.fixture(scope="session")
def plain(experiment):
    """One process, stopped after an epoch and started again, then exported."""
    short, full = ({"trainer": {"max_epochs": epochs}} for epochs in (1, 2))
    return experiment("plain", short, full, stages=("train", "export"))
