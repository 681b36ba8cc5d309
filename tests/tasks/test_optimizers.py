"""Optimizers that only our task offers."""

import pytest
import torch
from espnet2.tasks.abs_task import optim_classes
from espnet2.tasks.ssl import SSLTask

from espnet_star.errors import StarError
from espnet_star.tasks.star import StarTask
from espnet_star.training.s3prl_adamw import S3prlAdamW

OPTIONS = ["--output_dir", "exp", "--optim", "s3prl_adamw"]
OPTIONS += ["--optim_conf", "lr=0.1", "--optim_conf", "total_steps=9"]


def test_our_task_builds_it_by_the_names_of_parameters_and_others_do_not_know_it(capsys):
    """Fails if ESPnet's registry is changed for every task, or biases decay."""
    args = StarTask.get_parser().parse_args(OPTIONS)
    (optimizer,) = StarTask.build_optimizers(args, torch.nn.Linear(2, 2))
    assert isinstance(optimizer, S3prlAdamW)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0]
    assert "s3prl_adamw" not in optim_classes
    with pytest.raises(SystemExit):
        SSLTask.get_parser().parse_args(OPTIONS)
    assert "invalid choice: 's3prl_adamw'" in capsys.readouterr().err
    args.optim, args.optim_conf = "adamw", {"lr": 0.1}
    assert type(StarTask.build_optimizers(args, torch.nn.Linear(2, 2))[0]) is torch.optim.AdamW


def test_a_second_schedule_is_refused():
    args = StarTask.get_parser().parse_args([*OPTIONS, "--scheduler", "warmuplr"])
    with pytest.raises(StarError, match="of its own; set scheduler to null"):
        StarTask.build_optimizers(args, torch.nn.Linear(2, 2))
