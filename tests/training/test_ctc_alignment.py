"""A bug here ends a run over nothing at loss 0, or lets an utterance vanish unnamed."""

import pytest
import torch
from espnet2.asr.ctc import CTC

from espnet_star.errors import StarError
from espnet_star.training.ctc_alignment import PATIENCE, CtcAlignment, frames_needed

NAMES = ["short", "long"]


class Model(torch.nn.Module):
    """Any model of ESPnet's: features to CTC, half the frames."""

    def __init__(self, weight=1.0):
        super().__init__()
        self.ctc, self.ctc_weight = CTC(odim=5, encoder_output_size=3), weight

    def forward(self, speech, speech_lengths, text, text_lengths, **_):
        if not self.ctc_weight:
            return speech.sum()
        return self.ctc(speech[:, ::2], (speech_lengths + 1) // 2, text, text_lengths)


class Transducer(torch.nn.Module):
    """ESPnet's stand-alone one calls torch's loss by itself."""

    use_auxiliary_ctc = True

    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.Module()
        self.encoder.forward = lambda speech, lengths: (speech[:, ::2], (lengths + 1) // 2)

    def forward(self, speech, speech_lengths, text, text_lengths, **_):
        return self.encoder(speech, speech_lengths)[0].sum()


def batch(first, second=(1, 2)):
    """Five and ten frames of CTC, and transcripts."""
    rows = [torch.tensor(first), torch.tensor(second)]
    text = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
    lengths = torch.tensor([len(row) for row in rows])
    speech = {"speech": torch.randn(2, 20, 3), "speech_lengths": torch.tensor([10, 20])}
    return {"utt_id": NAMES, **speech, "text": text, "text_lengths": lengths}


def test_repeated_symbols_count_double():
    text = torch.tensor([[1, 1, 1, 2], [1, 2, 1, 2], [2, 2, -1, -1], [3, -1, -1, -1]])
    assert frames_needed(text, torch.tensor([4, 4, 2, 1])).tolist() == [6, 4, 3, 1]


def test_needed_is_what_torch_can_align():
    """An independent reference: one frame fewer has an infinite loss."""
    for text in ([1, 1, 2, 2], [1, 2, 3], [4, 4, 4, 4]):
        needed = int(frames_needed(torch.tensor([text]), torch.tensor([len(text)])))
        for frames in (needed - 1, needed):
            logits = torch.zeros(frames, 1, 5).log_softmax(2)
            loss = torch.nn.functional.ctc_loss(
                logits, torch.tensor([text]), torch.tensor([frames]), torch.tensor([len(text)])
            )
            assert bool(loss.isfinite()) == (frames == needed)


@pytest.mark.parametrize("model", [Model, Transducer])
def test_an_utterance_that_vanishes_is_named(model, caplog):
    with CtcAlignment(model(), False) as watch:
        watch.model(**batch([1, 1, 1, 1]))
        watch.model(**batch([1, 1, 1]))
    watch.report()
    assert watch.seen == 4 and watch.lost == {"short": (5, 7)}
    assert "cannot align 1 of 4 utterances of training" in caplog.text
    assert "short (5 frames, 7 needed)" in caplog.text and "long" not in caplog.text


@pytest.mark.parametrize("model", [Model, Transducer])
def test_nothing_is_said_where_all_is_well(model, caplog):
    with CtcAlignment(model(), False) as watch:
        watch.model(**batch([1, 1, 1]))
    watch.report()
    assert not caplog.records and watch.seen == 2


def test_a_set_without_one_alignment_is_refused_early():
    impossible = batch([1] * 4, [2] * 9)
    with (
        CtcAlignment(Model(), False) as watch,
        pytest.raises(StarError, match="align none") as stop,
    ):
        for _ in range(PATIENCE):
            watch.model(**impossible)
    assert "short (5 frames, 7 needed), long (10 frames, 17 needed)" in str(stop.value)
    with CtcAlignment(Model(), False) as watch:  # fewer batches than that
        watch.model(**impossible)
    with pytest.raises(StarError, match="align none"):
        watch.report()
    with CtcAlignment(Model(), False, training=False) as watch:
        watch.model(**impossible)
    watch.report()


def test_beside_another_loss_it_is_only_said(caplog):
    """A decoder with attention may learn where CTC cannot: it does so today."""
    with CtcAlignment(Model(weight=0.3), False) as watch:
        watch.model(**batch([1] * 4, [2] * 9))
    watch.report()
    assert "cannot align 2 of 2 utterances of training" in caplog.text


def test_a_model_that_does_not_ask_ctc_is_left_alone(caplog):
    with CtcAlignment(Model(weight=0.0), False) as watch:
        watch.model(**batch([1] * 9))
    watch.report()
    assert not caplog.records and not watch.seen


def test_ranks_decide_together(monkeypatch):
    """Fails if a rank with bad luck stopped the run, or other ranks' names were lost."""
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda found, op: found.fill_(1))
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)

    def gather(parts, mine):
        parts[:] = [mine, (3, {"elsewhere": (1, 2)})]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    with CtcAlignment(Model(), True) as watch:
        watch.model(**batch([1] * 4, [2] * 9))
    watch.report()
    assert watch.seen == 5 and set(watch.lost) == {"short", "long", "elsewhere"}
