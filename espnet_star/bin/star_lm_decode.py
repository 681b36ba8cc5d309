#!/usr/bin/env python3
"""Decode a CTC model of asr_train: greedily, or through a lexicon and an n-gram as SUPERB does."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from espnet2.asr.encoder.linear_encoder import TooShortUttError
from espnet2.fileio.datadir_writer import DatadirWriter
from espnet2.text.build_tokenizer import build_tokenizer

from espnet_star.bin.command import positive, run_tool
from espnet_star.ctc_decoding import Decoded, SearchOptions, WordSearch, greedy
from espnet_star.errors import StarError, first_line
from espnet_star.formats.model_file import read_model
from espnet_star.tasks.espnet import student_task
from espnet_star.tasks.preflight import check_decoding, explained
from espnet_star.tasks.preflight.training import check_gpus
from espnet_star.writable import check_writable

LOG_EVERY = 100


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_lm_decode``, named as those of ``asr_inference``."""
    parser = argparse.ArgumentParser(
        prog="star_lm_decode",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--asr_train_config", required=True, help="config.yaml that asr_train has written"
    )
    parser.add_argument(
        "--asr_model_file", required=True, help="Its model, e.g. valid.loss.best.pth"
    )
    parser.add_argument(
        "--data_path_and_name_and_type",
        required=True,
        metavar="PATH,speech,sound",
        help="Audio to decode, e.g. dump/raw/test/wav.scp,speech,sound",
    )
    parser.add_argument("--output_dir", required=True, help="Gets 1best_recog/text and the like")
    parser.add_argument("--ngpu", type=int, default=0, help="0 is the CPU, 1 a GPU")
    parser.add_argument("--batch_size", type=positive, default=8, help="Utterances at a time")
    parser.add_argument("--num_workers", type=int, default=1, help="Processes that read audio")
    parser.add_argument(
        "--lm_file",
        default=None,
        help="n-gram: ARPA, ARPA.gz or KenLM's binary; without it the best token of each frame",
    )
    parser.add_argument(
        "--lexicon",
        default=None,
        help="Words of the n-gram, one a line, with a spelling (HELLO H E L L O |) or without",
    )
    defaults = SearchOptions()
    for name, kind, meaning in (
        ("beam_size", positive, "Hypotheses kept after each frame"),
        ("beam_threshold", float, "Drop those so much worse than the best"),
        ("lm_weight", float, "Weight of the n-gram's log10-probability"),
        ("word_score", float, "Added for each word"),
    ):
        parser.add_argument(f"--{name}", type=kind, default=getattr(defaults, name), help=meaning)
    return parser


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
    model: Any, train_args: argparse.Namespace, args: argparse.Namespace, device: str
) -> Iterator[tuple[str, torch.Tensor]]:
    """Utterances and the logarithms ``(N, V)`` of their CTC posteriors, in the file's order."""
    triple = tuple(args.data_path_and_name_and_type.split(","))
    if triple[1:] != ("speech", "sound"):
        raise StarError(
            "--data_path_and_name_and_type must be PATH,speech,sound, got "
            f"{args.data_path_and_name_and_type}"
        )
    if not Path(triple[0]).is_file():
        raise StarError(f"{triple[0]}: no such file; expected a wav.scp")
    check_decoding(
        argparse.Namespace(
            data_path_and_name_and_type=[triple], asr_train_config=args.asr_train_config
        )
    )
    loader = student_task("asr").build_streaming_iterator(
        [triple],
        dtype="float32",
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        preprocess_fn=student_task("asr").build_preprocess_fn(train_args, False),
        collate_fn=student_task("asr").build_collate_fn(train_args, False),
        ngpu=args.ngpu,
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


def decode(args: argparse.Namespace) -> None:
    """Decode everything and write what ``asr_inference`` would.

    Raises:
        StarError: If options contradict each other, or a file cannot be used.
    """
    if (args.lm_file is None) != (args.lexicon is None):
        raise StarError("--lm_file and --lexicon go together: give both, or none of them")
    check_gpus(args.ngpu)
    check_writable(args.output_dir, "--output_dir")
    device = "cuda" if args.ngpu > 0 else "cpu"
    model, train_args = load_model(args.asr_train_config, args.asr_model_file, device)
    tokens = list(model.token_list)
    search: Callable[[torch.Tensor], Decoded] = greedy
    if args.lm_file is not None:
        options = SearchOptions(
            args.beam_size, args.beam_threshold, args.lm_weight, args.word_score
        )
        search = WordSearch(tokens, args.lexicon, args.lm_file, options)
    tokenizer = build_tokenizer(train_args.token_type, bpemodel=train_args.bpemodel)
    count = 0
    with DatadirWriter(args.output_dir) as writer:
        files = writer["1best_recog"]
        for count, (key, log_probs) in enumerate(posteriors(model, train_args, args, device), 1):
            found = search(log_probs) if len(log_probs) else Decoded([], None, 0.0)
            names = [tokens[number] for number in found.tokens]
            text = tokenizer.tokens2text(names) if found.words is None else " ".join(found.words)
            files["token"][key] = " ".join(names)
            files["token_int"][key] = " ".join(map(str, found.tokens))
            files["score"][key] = str(found.score)
            files["text"][key] = " ".join(text.split())
            if count % LOG_EVERY == 0:
                logging.info("%d utterances decoded", count)
    print(f"{args.output_dir}: {count} utterances decoded")


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_parser().parse_args(cmd)
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s: %(message)s")
    run_tool("star_lm_decode", lambda: explained(args, lambda: decode(args)))


if __name__ == "__main__":
    main()
