"""Training from shards; a bug here trains on other data than a list of files would, or hangs."""

import json
import logging
import shutil
import signal
from collections import Counter

import pytest
import torch
import yaml
from espnet2.bin import split_scps
from espnet2.train.distributed_utils import DistributedOption
from star_runs import (
    ZERO_DROPOUT,
    assert_same_updates,
    assert_same_weights,
    distill,
    join,
    log_of,
    pairs,
    ranks,
    sound_data,
    states,
    statistics,
    weights,
)

from espnet_star.bin import star_train
from espnet_star.data.kaldi import read_wav_scp
from espnet_star.data.shard_writer import ShardOptions, write_shards
from espnet_star.errors import StarError
from espnet_star.tasks.star import StarTask

pytest.importorskip("lhotse", reason="pip install espnet_star[shards]")

SAME = ["--optim", "sgd", "--optim_conf", "lr=0.0001", "--grad_clip", "inf"]
SAME += [*pairs("--encoder_conf", ZERO_DROPOUT)]
BINS = ["--batch_type", "numel", "--batch_bins", 24000]


@pytest.fixture(scope="module")
def factory(command, shards, tmp_path_factory):
    """ESPnet's iterator factory for given options."""

    def make(*extra, mode="train", data=shards):
        made = command(tmp_path_factory.mktemp("exp"), *extra, data=data)
        args = StarTask.get_parser().parse_args(made)
        return StarTask.build_iter_factory(args, DistributedOption(), mode)

    return make


def keys(epoch):
    return [list(batch_keys) for batch_keys, _ in epoch]


def test_a_batch_is_what_a_list_of_files_gives(factory, many_directory):
    """Fails if shards and files differ in samples, lengths or padding."""
    from_files = factory("--batch_size", 100, data=many_directory).build_iter(1)
    ((names, files),) = list(from_files)
    order = {key: place for place, key in enumerate(names)}
    seen = Counter()
    for batch_keys, batch in factory(*BINS, "--num_workers", 2).build_iter(1):
        seen.update(batch_keys)
        rows = [order[key] for key in batch_keys]
        assert torch.equal(batch["speech_lengths"], files["speech_lengths"][rows])
        width = batch["speech"].shape[1]
        assert torch.equal(batch["speech"], files["speech"][rows, :width])
        assert batch["speech"].dtype == files["speech"].dtype
        assert batch["speech"].numel() <= 24000
    assert seen == dict.fromkeys(read_wav_scp(many_directory / "wav.scp"), 1)


def test_epochs_of_a_number_of_batches_go_on_where_the_last_ended(factory):
    """Fails if short epochs miss the end of the data, or a resumed one starts anew."""
    whole = factory(*BINS)
    passes = [batch for epoch in range(1, 5) for batch in keys(whole.build_iter(epoch))]
    short = factory(*BINS, "--num_iters_per_epoch", 5)
    epochs = [keys(short.build_iter(epoch)) for epoch in range(1, 8)]
    assert [batch for epoch in epochs for batch in epoch] == passes[:35]
    for workers in (0, 2):
        options = [*BINS, "--num_iters_per_epoch", 5, "--num_workers", workers]
        expected = [keys(factory(*options).build_iter(epoch)) for epoch in range(1, 8)]
        one = factory(*options)
        assert [keys(one.build_iter(epoch)) for epoch in range(1, 8)] == expected
    assert len(short.build_iter(9)) == 5
    assert keys(factory(*BINS).build_iter(2)) != keys(factory(*BINS).build_iter(1))


def test_batches_and_updates_are_told_ahead(command, shards, tmp_path, caplog):
    """Fails if a training from shards does not say what its learning rate is up against."""
    caplog.set_level(logging.INFO)
    options = ["--batch_size", 6, "--batch_type", "sorted", "--max_epoch", 1, "--accum_grad", 2]
    distill(command(tmp_path / "exp", *options, data=shards))
    told = (
        "effective batch 12.0 utterances (2 batches of 6 to 6); 2 updates an epoch, 2 in 1 epochs"
    )
    assert told in caplog.text


def test_validation_is_the_same_every_epoch(factory):
    one = factory(*BINS, mode="valid")
    epochs = [keys(one.build_iter(epoch)) for epoch in (1, 2, 2, 9)]
    assert epochs[0] == epochs[1] == epochs[2] == epochs[3]


def test_the_loss_is_that_of_files(command, shards, many_directory, tmp_path):
    """Fails if a training from shards is another training."""
    options = [*SAME, "--max_epoch", 1, "--batch_size", 24]
    distill(command(tmp_path / "shards", *options, data=shards))
    distill(command(tmp_path / "files", *options, data=many_directory))
    for section in ("train", "valid"):
        one, two = (statistics(tmp_path / n, 1, section, "loss") for n in ("shards", "files"))
        assert one == pytest.approx(two, rel=1e-5)
    saved = yaml.safe_load((tmp_path / "shards" / "config.yaml").read_text())
    assert saved["train_shards"] == [str(shards)]


def test_resumed_it_is_the_run_that_was_never_stopped(command, shards, tmp_path, resumed):
    """Fails if a resumed epoch sees other batches, or dropout draws other numbers."""
    options = [*BINS, "--num_iters_per_epoch", 5, "--num_workers", 1]
    distill(command(tmp_path / "whole", *options, "--max_epoch", 3, data=shards))
    for epochs in (1, 2, 3):
        distill(command(tmp_path / "exp", *options, "--max_epoch", epochs, data=shards))
    assert resumed()
    assert_same_weights(tmp_path / "exp", tmp_path / "whole")


def test_two_ranks_equal_one_process(command, shards, tmp_path):
    """Fails if a rank reads what the other reads, or gradients are weighted otherwise."""
    # Four shards of three utterances are one batch of a rank.
    options = [*SAME, "--batch_size", 24, "--max_epoch", 1]
    distill(command(tmp_path / "one", *options, data=shards))
    distill(command(tmp_path / "start", *options, "--optim_conf", "lr=0.0", data=shards))
    made = command(tmp_path / "two", *options, data=shards)
    join(ranks(made, tmp_path / "meet"))
    assert_same_updates(tmp_path / "two", tmp_path / "one", weights(tmp_path / "start"))
    for section in ("train", "valid"):
        one, two = (statistics(tmp_path / n, 1, section, "loss") for n in ("one", "two"))
        assert one == pytest.approx(two, rel=1e-4)


def test_uneven_ranks_killed_and_resumed(command, many_directory, tmp_path):
    """Fails if a rank with fewer batches is waited for, or a resumed one reads on elsewhere."""
    uneven = tmp_path / "uneven"
    write_shards(many_directory, uneven, ShardOptions(size=5, min_shards=1))
    options = ["--batch_type", "numel", "--batch_bins", 64000, "--max_epoch", 2]
    made = command(tmp_path / "whole", *options, data=uneven)
    join(ranks(made, tmp_path / "meet"))
    assert "batches are cut in two" in log_of(made).read_text()
    made = command(tmp_path / "exp", *options, data=uneven)
    killed, left = ranks(made, tmp_path / "meet2", kill_at=("save", "checkpoint.pth", 2, 0.5))
    join(killed, -signal.SIGKILL)
    left.kill()
    left.join(300)
    join(ranks(made, tmp_path / "meet3"))
    assert "one epoch earlier" in log_of(made).read_text()
    assert_same_weights(tmp_path / "exp", tmp_path / "whole")


def test_too_few_shards_for_the_ranks_end_both(command, shards, tmp_path):
    """Fails if ranks without data hang instead of saying so."""
    few = tmp_path / "few"
    shutil.copytree(shards, few)
    content = json.loads((few / "shards.json").read_text())
    content["shards"] = content["shards"][:1]
    content["utterances"], content["samples"] = 3, content["shards"][0]["samples"]
    (few / "shards.json").write_text(json.dumps(content))
    made = command(tmp_path / "exp", *BINS, data=few)
    join(ranks(made, tmp_path / "meet"), 1)
    assert log_of(made).read_text().count("1 shards for 2 ranks; write more and smaller") >= 2


def test_clips_left_out_and_uneven_shards_are_told(factory, caplog):
    caplog.set_level(logging.INFO)
    factory(*BINS, "--max_duration", 0.5, "--num_workers", 3)
    text = caplog.text
    assert "24 utterances, 0.00 h in 8 shards for 1 ranks of 3 data loading processes" in text
    assert "0 utterances of at most 0.05 s and 8 longer than 0.5 s are left out" in text
    assert "the longest has 0.7 s" in text
    assert "batches are cut in two: more and smaller shards share better" in text
    assert "longer than a batch" not in text
    factory(*BINS, "--num_workers", 20)
    assert "8 workers, not 20: no more shards" in caplog.text


def test_clips_longer_than_a_batch_are_batches_of_their_own(factory, caplog):
    """Fails if they are refused, or told of differently than in lists of files."""
    made = factory("--batch_type", "numel", "--batch_bins", 7000)
    assert "8 of 24 utterances are longer than a batch of 0.4 s (batch_bins 7000)" in caplog.text
    assert "takes such a clip alone, of up to 0.7 s" in caplog.text
    batches = keys(made.build_iter(1))
    assert sum(map(len, batches)) == 24
    long = [batch for batch in batches if any(int(key[-2:]) >= 16 for key in batch)]
    assert len(long) == 8


def test_lists_of_files_split_in_parts_are_read_as_before(
    command, many_directory, tmp_path, caplog
):
    """Fails if ESPnet's own way of training on large lists is lost."""
    caplog.set_level(logging.INFO)
    tables = [str(many_directory / name) for name in ("wav.scp", "utt2num_samples")]
    split_scps.main(["--scps", *tables, "--num_splits", "2", "--output_dir", f"{tmp_path}/split"])
    options = ["--train_data_path_and_name_and_type", f"{tmp_path}/split/wav.scp,speech,sound"]
    options += ["--train_shape_file", f"{tmp_path}/split/utt2num_samples"]
    valid = sound_data(many_directory)[4:]
    made = command(tmp_path / "exp", "--max_epoch", 1, "--batch_size", 6, data=many_directory)
    place = made.index("--train_data_path_and_name_and_type")
    made = [*made[:place], *options, *valid, *made[place + 8 :], "--multiple_iterator", "true"]
    distill(made)
    assert "Building 1th iter-factory" in caplog.text
    assert states(tmp_path / "exp")["reporter"]["stats"][1]["train"]["total_count"] == 4


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--train_shards"], "no data: give --train_shards, or"),
        (["--valid_shards"], "no data: give --valid_shards, or"),
        (["--train_data_path_and_name_and_type", "x,speech,sound"], "both given; give one"),
        (["--multiple_iterator", "true"], "reads split lists of files, not --train_shards"),
        (["--batch_type", "folded"], "--batch_type folded is not there for shards; give numel"),
        (["--train_shards", "/nowhere"], "/nowhere: has no shards.json"),
        (["--max_duration", "0.1"], "no clip of 0.05 to 0.1 s is left"),
        (["--expected_batch", "48", "--batch_size", "8"], "effective batch is 8.0 utterances"),
    ],
)
def test_a_mistake_is_one_line(command, shards, tmp_path, capsys, extra, message):
    with pytest.raises(SystemExit) as stop:
        star_train.main(command(tmp_path / "exp", *extra, data=shards))
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_shard_that_breaks_in_a_worker_is_one_line(command, shards, tmp_path, capsys):
    """Fails if the name of a broken shard drowns in a traceback of torch's."""
    copy = shutil.copytree(shards, tmp_path / "copy")
    path = copy / "shar" / "recording.000003.tar"
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(SystemExit):
        star_train.main(command(tmp_path / "exp", *BINS, "--num_workers", 2, data=copy))
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("star_train: error: ") and "recording.000003.tar" in line


def test_attention_plots_are_refused(factory):
    with pytest.raises(StarError, match="--num_att_plot 0"):
        factory(*BINS, mode="plot_att")
