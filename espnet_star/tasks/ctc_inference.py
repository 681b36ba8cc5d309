"""Decoding of ASR models by their CTC: greedily, or through a lexicon and an n-gram."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from espnet2.asr.encoder.linear_encoder import TooShortUttError
from espnet2.fileio.datadir_writer import DatadirWriter
from espnet2.text.build_tokenizer import build_tokenizer

from espnet_star.downstream.ctc_decoding import Decoded, SearchOptions, WordSearch, greedy
from espnet_star.errors import StarError, first_line
from espnet_star.files.model_file import read_model
from espnet_star.files.writable import check_writable
from espnet_star.tasks.espnet import student_task
from espnet_star.tasks.preflight import check_decoding
from espnet_star.tasks.preflight.training import check_gpus

LOG_EVERY = 100


@dataclass(frozen=True)
class Decoding:
    """What is decoded, and with what.

    Attributes:
        config: ``config.yaml`` that ``asr_train`` has written.
        model_file: Its model.
        data: ``PATH,speech,sound``.
        output_dir: Gets ``1best_recog/text`` and the like, as of ``asr_inference``.
        lm_file: n-gram; None takes the best token of each frame.
        lexicon: Its words.
        search: How the n-gram is searched.
        batch_size: Utterances at a time.
        num_workers: Processes that read audio.
        ngpu: 0 is the CPU, 1 a GPU.
    """

    config: str
    model_file: str
    data: str
    output_dir: str
    lm_file: str | None = None
    lexicon: str | None = None
    search: SearchOptions = SearchOptions()  # noqa: RUF009
    batch_size: int = 8
    num_workers: int = 1
    ngpu: int = 0


def decode(job: Decoding) -> int:
    """Decode everything and write what ``asr_inference`` would.

    Returns:
        Number of utterances.

    Raises:
        StarError: If options contradict each other, or a file cannot be used.
    """
    if (job.lm_file is None) != (job.lexicon is None):
        raise StarError("--lm_file and --lexicon go together: give both, or none of them")
    check_gpus(job.ngpu)
    check_writable(job.output_dir, "--output_dir")
    device = "cuda" if job.ngpu > 0 else "cpu"
    model, train_args = load_model(job.config, job.model_file, device)
    tokens = list(model.token_list)
    search: Callable[[torch.Tensor], Decoded] = greedy
    if job.lm_file is not None and job.lexicon is not None:
        search = WordSearch(tokens, job.lexicon, job.lm_file, job.search)
    tokenizer = build_tokenizer(train_args.token_type, bpemodel=train_args.bpemodel)
    count = 0
    with DatadirWriter(job.output_dir) as writer:
        files = writer["1best_recog"]
        for count, (key, log_probs) in enumerate(posteriors(model, train_args, job, device), 1):
            found = search(log_probs) if len(log_probs) else Decoded([], None, 0.0)
            names = [tokens[number] for number in found.tokens]
            text = tokenizer.tokens2text(names) if found.words is None else " ".join(found.words)
            files["token"][key] = " ".join(names)
            files["token_int"][key] = " ".join(map(str, found.tokens))
            files["score"][key] = str(found.score)
            files["text"][key] = " ".join(text.split())
            if count % LOG_EVERY == 0:
                logging.info("%d utterances decoded", count)
    return count


def load_model(config: str, model_file: str, device: str) -> tuple[Any, argparse.Namespace]:
    """ESPnet's model with its weights, none missing, none left over, in eval mode.

    Raises:
        StarError: If a file is missing or damaged, or the model has no CTC.
    """
    if not Path(config).is_file():
        raise StarError(f"{config}: no such file; expected the config.yaml of an asr_train")
    weights = read_model(Path(model_file), "; has the training ended?")
    model, args = student_task("asr").build_model_from_file(config, None, device)
    if getattr(model, "ctc", None) is None:
        raise StarError(f"{config}: the model has no CTC (ctc_weight 0); use asr_inference")
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise StarError(
            f"{model_file} does not belong to {config} ({first_line(error)})"
        ) from error
    return model.eval(), args


def posteriors(
    model: Any, train_args: argparse.Namespace, job: Decoding, device: str
) -> Iterator[tuple[str, torch.Tensor]]:
    """Utterances and the logarithms ``(N, V)`` of their CTC posteriors, in the file's order."""
    triple = tuple(job.data.split(","))
    if triple[1:] != ("speech", "sound"):
        raise StarError(f"--data_path_and_name_and_type must be PATH,speech,sound, got {job.data}")
    if not Path(triple[0]).is_file():
        raise StarError(f"{triple[0]}: no such file; expected a wav.scp")
    check_decoding(
        argparse.Namespace(data_path_and_name_and_type=[triple], asr_train_config=job.config)
    )
    loader = student_task("asr").build_streaming_iterator(
        [triple],
        dtype="float32",
        batch_size=job.batch_size,
        num_workers=job.num_workers,
        preprocess_fn=student_task("asr").build_preprocess_fn(train_args, False),
        collate_fn=student_task("asr").build_collate_fn(train_args, False),
        ngpu=job.ngpu,
        inference=True,
    )
    for keys, batch in loader:
        speech, lengths = (batch[name].to(device) for name in ("speech", "speech_lengths"))
        try:
            found = encode(model, speech, lengths)
        except TooShortUttError:
            found = [
                encode_one(model, key, row[:length], length)
                for key, row, length in zip(keys, speech, lengths, strict=True)
            ]
        yield from zip(keys, found, strict=True)


@torch.inference_mode()
def encode(model: Any, speech: torch.Tensor, lengths: torch.Tensor) -> list[torch.Tensor]:
    """Logarithms ``(N, V)`` of the CTC posteriors of each waveform ``(B, T)``."""
    states, frames = model.encode(speech, lengths)
    states = states[0] if isinstance(states, tuple) else states
    log_probs = model.ctc.log_softmax(states).float().cpu()
    return [rows[:count] for rows, count in zip(log_probs, frames.tolist(), strict=True)]


def encode_one(model: Any, key: str, speech: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
    """The same of one waveform; no frames where it is too short for one."""
    try:
        return encode(model, speech[None], length[None])[0]
    except TooShortUttError as error:
        logging.warning("Utterance %s gets an empty hypothesis: %s", key, error)
        return torch.empty(0, len(model.token_list))
