"""Speaker embeddings of models whose frontend is the student; options are ESPnet's.

ESPnet's own ``spk_inference`` cannot run in 202511 and 202611: it joins ``--output_dir`` as if
it were a path, calls ``build_colate_fn``, which no task has, prepares single utterances as if
they were pairs, and ignores ``--ngpu``. Its ``spk_embed_extract`` reads both sides of every
trial anew (75 440 files for the 4700 utterances of VoxCeleb1-O), normalizes only the last batch.
Here its model and its options serve, one whole utterance at a time.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from espnet2.bin.spk_inference import Speech2Embedding
from espnet2.fileio.npy_scp import NpyScpWriter
from espnet2.tasks.spk import SpeakerTask
from espnet2.torch_utils.set_all_random_seed import set_all_random_seed

from espnet_star.data.errors import some
from espnet_star.encoders.too_short import TooShort
from espnet_star.errors import StarError
from espnet_star.files.model_file import read_model
from espnet_star.tasks.plugin import register_in
from espnet_star.tasks.preflight import check_decoding

register_in("spk")


def load(args: argparse.Namespace) -> Speech2Embedding:
    """Build the model of a training and load its weights, all of them.

    Raises:
        StarError: If files are missing or the weights are those of another model.
    """
    if args.model_tag is None:
        for option in ("train_config", "model_file"):
            path = getattr(args, option)
            if path is None or not Path(path).is_file():
                raise StarError(f"--{option} {path}: no such file; has the training finished?")
        # ESPnet loads in silence what fits and leaves the rest random.
        weights = read_model(Path(args.model_file))
    embed = Speech2Embedding.from_pretrained(
        model_tag=args.model_tag,
        train_config=args.train_config,
        model_file=args.model_file,
        device="cuda" if args.ngpu else "cpu",
        dtype=args.dtype,
    )
    if args.model_tag is None:
        wanted = embed.spk_model.state_dict().keys()
        if wanted != weights.keys():
            odd = sorted(wanted ^ weights.keys())
            raise StarError(
                f"{args.model_file} is not the model of {args.train_config}: {len(odd)} of its "
                f"weights differ, e.g. {odd[0]}"
            )
    return embed


def extract(args: argparse.Namespace) -> None:
    """Write ``embed.scp`` and a NumPy file ``(width,)`` of each utterance.

    Raises:
        StarError: If the options ask for more than one GPU or utterance at a time.
    """
    if args.batch_size > 1 or args.ngpu > 1:
        raise StarError("one utterance at a time on one GPU: give --batch_size 1 and --ngpu 0 or 1")
    logging.basicConfig(
        level=args.log_level,
        format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s",
    )
    check_decoding(args, integers=True)
    set_all_random_seed(args.seed)
    embed = load(args)
    loader = SpeakerTask.build_streaming_iterator(
        args.data_path_and_name_and_type,
        dtype=args.dtype,
        batch_size=1,
        key_file=args.key_file,
        num_workers=args.num_workers,
        preprocess_fn=None,
        collate_fn=SpeakerTask.build_collate_fn(embed.spk_train_args, False),
        inference=True,
    )
    outdir = Path(args.output_dir)
    # embed.scp appears when it is complete: a stopped run does not look like a finished one.
    partial = outdir / "embed.scp.partial"
    short = []
    with NpyScpWriter(outdir / "embed", partial) as writer:
        for keys, batch in loader:
            speech = batch["speech"][0]
            if not speech.is_floating_point():  # archives of 16-bit WAV files
                speech = speech / 2.0**15
            try:
                writer[keys[0]] = embed(speech).squeeze(0).float().cpu().numpy()
            except TooShort as error:
                logging.warning("Utterance %s gets no embedding: %s", keys[0], error)
                short.append(keys[0])
    if short:
        print(f"{outdir}: {len(short)} utterances are too short for an embedding: {some(short)}")
    partial.replace(outdir / "embed.scp")
