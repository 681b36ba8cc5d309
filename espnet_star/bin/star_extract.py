#!/usr/bin/env python3
"""Features of audio files from a student or a teacher, for use outside ESPnet.

Audio of any rate and number of channels is brought to 16 kHz mono as star_data prepare
does it. Utterances that cannot be used are listed with the reason in skipped.txt.
feats.scp is written last, so that an interrupted run never looks complete.
"""

from __future__ import annotations

import argparse
import functools
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import soundfile
import torch

from espnet_star import catalog
from espnet_star.bin.command import run_tool, str2bool
from espnet_star.data.audio import AudioOptions, Job, Result, convert, file_name
from espnet_star.data.corpus import clean
from espnet_star.data.errors import DataError, some
from espnet_star.data.kaldi import read_wav_scp, write_table
from espnet_star.encoders import Encoder
from espnet_star.errors import StarError
from espnet_star.files.writable import check_writable
from espnet_star.outputs import RECEPTIVE_FIELD, SAMPLE_RATE

ALL = "all"
SCP = "feats.scp"


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_extract``."""
    parser = argparse.ArgumentParser(
        prog="star_extract",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--upstream",
        required=True,
        help="Student (directory, hub name, distillation experiment or ONNX file) or teacher",
    )
    parser.add_argument(
        "--kind",
        default="auto",
        choices=catalog.KINDS,
        help="What --upstream is; auto looks into its files",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--wav_scp", help="Lines 'utterance path'")
    source.add_argument(
        "--audio", nargs="+", metavar="FILE", help="Audio files; their stems name the utterances"
    )
    parser.add_argument("--output_dir", required=True, help="Directory to write")
    parser.add_argument(
        "--layer",
        default="-1",
        help="0 (input of the first layer) to L, -1 for the last (default), or all",
    )
    parser.add_argument(
        "--format",
        choices=["npy", "ark"],
        default="npy",
        help="A file an utterance, (N, D) or with --layer all (L+1, N, D); or a Kaldi archive",
    )
    parser.add_argument(
        "--batch_seconds", type=float, default=60.0, help="Audio of a batch, with its padding"
    )
    parser.add_argument("--threads", type=int, default=None, help="Threads of torch")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument(
        "--force", type=str2bool, default=False, help="Replace features already there"
    )
    return parser


class Features(NamedTuple):
    """Features of an utterance, ``(N, D)`` or ``(L+1, N, D)`` in float32."""

    utterance: str
    array: np.ndarray


def write_npy(outdir: Path, features: Features) -> str:
    """Write a NumPy file; returns its entry for ``feats.scp``."""
    path = outdir / "feats" / file_name(features.utterance, "npy")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, features.array)
    return str(path)


def append_ark(archive: BinaryIO, features: Features) -> str:
    """Append a binary float matrix to a Kaldi archive; returns its entry, with the offset."""
    archive.write(f"{features.utterance} ".encode())
    # Kaldi's offset points behind the key, at the mark of binary data.
    offset = archive.tell()
    rows, columns = features.array.shape
    archive.write(b"\0BFM " + struct.pack("<bibi", 4, rows, 4, columns))
    archive.write(features.array.astype("<f4", order="C").tobytes())
    return f"{archive.name}:{offset}"


def list_audio(args: argparse.Namespace) -> dict[str, str]:
    """Path of each utterance.

    Raises:
        DataError: If ``wav.scp`` is malformed or two files give the same utterance.
    """
    if args.wav_scp is not None:
        return read_wav_scp(args.wav_scp)
    paths: dict[str, str] = {}
    for path in args.audio:
        # A key of a Kaldi table ends at its first white space.
        utterance = clean(Path(path).stem)
        if utterance in paths:
            raise DataError(
                f"{paths[utterance]} and {path} both give utterance {utterance}; rename one of "
                "them, or give names of your own with --wav_scp"
            )
        paths[utterance] = path
    return paths


def load_audio(paths: dict[str, str], scratch: str) -> tuple[list[Result], dict[str, str]]:
    """Check every utterance and convert those that need it.

    Args:
        paths: Audio file of each utterance.
        scratch: Folder for converted audio.

    Returns:
        Usable utterances, and the reason for each of the others.

    Raises:
        DataError: If none can be used.
    """
    options = AudioOptions(
        fs=SAMPLE_RATE, min_samples=RECEPTIVE_FIELD, min_duration=0.0, max_duration=float("inf")
    )
    results = [convert(Job(key, path), scratch, options) for key, path in paths.items()]
    skipped = {result.utterance: result.reason for result in results if result.reason}
    usable = [result for result in results if not result.reason]
    if not usable:
        examples = some(f"{key} ({paths[key]}): {reason}" for key, reason in skipped.items())
        raise DataError(f"none of {len(paths)} utterances can be used: {examples}")
    return usable, skipped


def choose_layers(text: str, num_layers: int) -> slice | int:
    """Index into the ``num_layers + 1`` hidden states.

    Raises:
        StarError: If it is no number or out of range.
    """
    if text == ALL:
        return slice(None)
    try:
        layer = int(text)
    except ValueError:
        layer = num_layers + 1
    if not -num_layers - 1 <= layer <= num_layers:
        raise StarError(f"--layer must be 0 to {num_layers}, -1 for the last, or all; got {text!r}")
    return layer


def make_batches(audio: Sequence[Result], batch_samples: float) -> Iterator[list[Result]]:
    """Utterances of similar lengths, the longest first, so that a lack of memory shows."""
    batch: list[Result] = []
    for result in sorted(audio, key=lambda r: (-r.samples, r.utterance)):
        if batch and (len(batch) + 1) * batch[0].samples > batch_samples:
            yield batch
            batch = []
        batch.append(result)
    if batch:
        yield batch


@torch.inference_mode()
def extract_batch(
    encoder: Encoder, batch: Sequence[Result], layers: slice | int
) -> Iterator[Features]:
    """Features of a batch, in its order.

    Raises:
        StarError: If the encoder refuses an utterance or gives values that are not finite.
    """
    # An ONNX student has no parameters.
    device = next(encoder.parameters(), torch.empty(0)).device
    waves = [torch.from_numpy(soundfile.read(result.path, dtype="float32")[0]) for result in batch]
    lengths = torch.tensor([len(wave) for wave in waves], device=device)
    speech = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True).to(device)
    try:
        outputs = encoder.encode(speech, lengths)
    except StarError as error:
        names = some(result.utterance for result in batch)
        raise StarError(f"utterances {names}: {error}") from error
    chosen = outputs.hidden_states[layers]
    states = chosen if isinstance(chosen, torch.Tensor) else torch.stack(chosen, dim=1)
    for result, state, frames in zip(batch, states, outputs.lengths.tolist(), strict=True):
        array = state[..., :frames, :].float().cpu().numpy()
        if not np.isfinite(array).all():
            raise StarError(
                f"utterance {result.utterance} has NaN or infinite features although its audio "
                "is finite; check the weights of the upstream"
            )
        yield Features(result.utterance, array)


def choose_device(name: str) -> torch.device:
    """Device of torch.

    Raises:
        StarError: If it is unknown or not there.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise StarError(f"--device {name} cannot be used ({reason}); try --device cpu") from error
    return device


def extract(args: argparse.Namespace) -> None:
    """Check everything, then compute and write."""
    outdir = Path(args.output_dir)
    if args.format == "ark" and args.layer == ALL:
        raise StarError(
            "--format ark holds one matrix an utterance, so not --layer all; choose one layer, "
            "or --format npy"
        )
    if args.batch_seconds <= 0:
        raise StarError(f"--batch_seconds must be above 0, got {args.batch_seconds:g}")
    if args.threads is not None and args.threads < 1:
        raise StarError(f"--threads must be at least 1, got {args.threads}")
    if (outdir / SCP).exists() and not args.force:
        raise StarError(f"{outdir} already holds features; give --force true to replace them")
    check_writable(outdir, "--output_dir")
    paths = list_audio(args)
    device = choose_device(args.device)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    encoder = catalog.load(args.upstream, args.kind).to(device).eval()
    layers = choose_layers(args.layer, encoder.shape.layers)
    try:
        with tempfile.TemporaryDirectory(prefix="star_extract") as scratch:
            audio, skipped = load_audio(paths, scratch)
            batches = make_batches(audio, args.batch_seconds * SAMPLE_RATE)
            stream = (f for batch in batches for f in extract_batch(encoder, batch, layers))
            shape = write_features(stream, outdir, args.format, skipped)
    except OSError as error:
        name = error.filename or outdir
        raise DataError(f"{name}: cannot be read or written ({error.strerror or error})") from error
    print(f"{outdir}/{SCP}: {len(audio)} utterances, features {shape}")
    if told := [f"{r.utterance} ({note})" for r in audio for note in r.notes if ":" in note]:
        print(f"  to look at: {some(told, limit=3)}")
    if skipped:
        examples = some((f"{key} ({reason})" for key, reason in sorted(skipped.items())), limit=3)
        print(f"  {len(skipped)} skipped: {examples}")
        print(f"  all reasons: {outdir}/skipped.txt")


def write_features(
    stream: Iterator[Features], outdir: Path, file_format: str, skipped: dict[str, str]
) -> str:
    """Write features and tables, ``feats.scp`` last; returns the shape of the features."""
    outdir.mkdir(parents=True, exist_ok=True)
    for name in (SCP, "utt2num_frames", "skipped.txt"):
        (outdir / name).unlink(missing_ok=True)
    entries: dict[str, str] = {}
    frames: dict[str, int] = {}
    shape = ""
    with ExitStack() as stack:
        write = functools.partial(write_npy, outdir)
        if file_format == "ark":
            archive = stack.enter_context((outdir / "feats.ark").open("wb"))
            write = functools.partial(append_ark, archive)
        for features in stream:
            entries[features.utterance] = write(features)
            frames[features.utterance] = features.array.shape[-2]
            *first, _, width = features.array.shape
            shape = f"({', '.join([*map(str, first), 'N', str(width)])})"
    if skipped:
        write_table(outdir / "skipped.txt", skipped)
    write_table(outdir / "utt2num_frames", frames)
    write_table(outdir / SCP, entries)
    return shape


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_parser().parse_args(cmd)
    run_tool("star_extract", lambda: extract(args))


if __name__ == "__main__":
    main()
