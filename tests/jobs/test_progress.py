import io

import pytest

from espnet_star.jobs.display import Display
from espnet_star.jobs.progress import (
    TrainingProgress,
    exception_line,
    read_statistics,
)

PREFIX = "[host] 2026-01-02 03:04:05,678 (trainer:322) INFO: "
RESULTS = (
    "{}epoch results: [train] iter_time=1.2e-04, loss=2.500, optim0_lr0=1.000e-03, "
    "train_time=0.1, time=1 hour, 2 minutes and 3.5 seconds, total_count=10, "
    "gpu_max_cached_mem_GB=1.1, [valid] loss=2.250, acc=0.400, time=0.3 seconds, total_count=2, "
    "[att_plot] time=0 seconds, total_count=0"
)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def progress(clock):
    return TrainingProgress(clock=clock)


def test_first_epoch_has_no_estimate(progress):
    progress.feed(PREFIX + "1/4epoch started")
    progress.feed(PREFIX + "1epoch:train:1-50batch: iter_time=0.001, loss=3.142, acc=0.1")
    assert progress.describe() == "epoch 1/4, batch 50, loss 3.142"
    assert progress.seconds_left() is None


def test_time_left_counts_down_within_an_epoch(progress, clock):
    progress.feed(PREFIX + "1/4epoch started")
    clock.now = 100.0
    result = progress.feed(PREFIX + RESULTS.format(1))
    assert result.seconds == 100.0
    assert result.summary() == "train loss 2.5, valid loss 2.25, valid acc 0.4"
    progress.feed(PREFIX + "2/4epoch started. Estimated time to finish: 5 minutes")
    assert progress.seconds_left() == 300.0
    clock.now = 160.0
    assert progress.seconds_left() == 240.0
    assert progress.describe() == "epoch 2/4, 4 minutes left"
    clock.now = 10000.0
    assert progress.seconds_left() == 0.0


def test_resumed_run_estimates_from_its_own_epochs(progress, clock):
    progress.feed(PREFIX + "The training was resumed using exp/checkpoint.pth")
    progress.feed(PREFIX + "7/10epoch started")
    clock.now = 60.0
    progress.feed(PREFIX + "8/10epoch started. Estimated time to finish: 3 minutes")
    assert progress.resumed
    assert progress.seconds_left() == 180.0


def test_max_epoch_of_the_caller_is_used_until_the_log_tells(clock):
    progress = TrainingProgress(max_epoch=9, clock=clock)
    progress.feed("3epoch:train:1-10batch: loss=1.000e-04")
    assert progress.describe() == "epoch 3/9, batch 10, loss 0.0001"
    progress.feed("4/20epoch started")
    assert progress.max_epoch == 20


def test_early_stopping_and_other_lines(progress):
    assert progress.feed("# python -m espnet2.bin.asr_train") is None
    assert progress.describe() == ""
    progress.feed("[Early stopping] valid.loss has not been improved 3 epochs continuously.")
    assert progress.stopped_early


def test_statistics_leave_text_out():
    assert read_statistics("a=1.500, t=12.3 seconds, b=-2.0e-05, c=nan, d=x")["b"] == -2e-5
    assert set(read_statistics("a=1.500, t=12.3 seconds, d=x, e=3")) == {"a", "e"}


def test_formats_of_the_installed_espnet(progress):
    reporter = pytest.importorskip("espnet2.train.reporter").Reporter()
    reporter.set_epoch(1)
    for key in ("train", "valid"):
        with reporter.observe(key) as sub:
            for loss in (2.0, 4.0):
                sub.register({"loss": loss})
                sub.next()
            if key == "train":
                progress.feed(sub.log_message(-2))
                assert (progress.batch, progress.loss) == (2, 3.0)
    result = progress.feed(reporter.log_message())
    assert result.summary() == "train loss 3, valid loss 3"


def test_exception_line():
    lines = """Traceback (most recent call last):
  File "a.py", line 1, in <module>
    f()
ValueError: first

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "a.py", line 3, in <module>
    g()
    ~^^
espnet_star.data.errors.DataError: second
  with a detail
  and another
""".splitlines()
    assert exception_line(lines) == "espnet_star.data.errors.DataError: second"
    assert exception_line(["all", "is well"]) == ""
    assert exception_line(["Traceback (most recent call last):", "  cut"]) == ""


def test_what_was_not_measured_is_not_shown(progress):
    """Fails if a line ends in "valid acc nan, valid cer nan", or a lost loss goes unseen."""
    text = "1epoch results: [train] loss=2.5, time=1, [valid] loss=nan, acc=nan, cer_ctc=inf, wer=1"
    assert progress.feed(text).summary() == "train loss 2.5, valid loss nan, valid wer 1"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_terminal_gets_one_line_no_wider_than_itself(progress, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    display = Display("Stage 5: distill", progress, stream)
    display.begin("x.log")
    progress.feed("1/4epoch started")
    progress.feed("1epoch:train:1-50batch: loss=3.142")
    for _ in range(3):
        display.redraw()
    display.epoch(progress.feed(RESULTS.format(1)))
    display.end("done")
    written = stream.getvalue()
    assert written.count("\n") == 2
    assert "Stage 5: distill: 0:00:00, epoch 1/4, b" in written
    assert all(len(part) <= 40 for part in written.split("\r\x1b[K")[2:])


def test_file_gets_a_line_an_epoch_and_no_carriage_return(progress):
    stream = io.StringIO()
    display = Display("Stage 5", progress, stream)
    display.begin("x.log")
    progress.feed("1/4epoch started")
    display.redraw()
    display.epoch(progress.feed(RESULTS.format(1)))
    display.end("done")
    assert stream.getvalue().splitlines() == [
        "Stage 5: started, output in x.log",
        "Stage 5: epoch 1/4 took 0 seconds, train loss 2.5, valid loss 2.25, valid acc 0.4",
        "Stage 5: done",
    ]
    assert "\r" not in stream.getvalue()


def test_a_long_run_gets_ten_lines_in_a_file(progress):
    """Fails if hundreds of epochs fill the log of a CI job."""
    stream = io.StringIO()
    display = Display("Stage 5", progress, stream)
    for epoch in range(1, 26):
        progress.feed(f"{epoch}/25epoch started")
        display.epoch(progress.feed(RESULTS.format(epoch)))
    shown = [line.split()[3] for line in stream.getvalue().splitlines()]
    assert shown == [f"{epoch}/25" for epoch in (3, 6, 9, 12, 15, 18, 21, 24, 25)]


def test_updates_of_s3prl_stand_for_epochs(clock):
    """Fails if a SUPERB task shows no progress for days."""
    progress = TrainingProgress(max_epoch=2000, clock=clock)
    line = "INFO | 2026-11-26 05:54:35,855 | base:569 | {} at step {}"
    progress.feed("train:  25%|##  | 500/2000 [00:10<00:30]" + line.format("train", 500))
    assert progress.brief() == "500/2000"
    clock.now = 60.0
    progress.feed(line.format("train", 1000))
    progress.feed(line.format("valid", 1000))
    assert progress.brief() == "1000/2000 0:02:00 left"
