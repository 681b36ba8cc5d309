#!/usr/bin/env python3
"""Labels of frames by k-means on a layer of an encoder, for training on labels.

Writes labels (a line "utterance 3 3 17 ..." each, 50 labels a second; give
FILE,labels,text_int to star_train), centroids.safetensors and clusters.json, which says how
well and how evenly the clusters are used. Label further sets with --centroids.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from espnet_star import catalog, inference
from espnet_star.bin.command import positive, run_tool, str2bool
from espnet_star.data.centroids import Centroids, Usage, fit_means, squared_distances
from espnet_star.data.errors import DataError
from espnet_star.data.kaldi import read_counts, read_wav_scp
from espnet_star.data.labels import write_labels
from espnet_star.errors import StarError
from espnet_star.evaluate.table import write_json
from espnet_star.files.writable import check_writable
from espnet_star.outputs import HOP, SAMPLE_RATE

LABELS, CENTROIDS, FACTS = "labels", "centroids.safetensors", "clusters.json"


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_clusters``."""
    parser = argparse.ArgumentParser(
        prog="star_clusters",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--upstream", required=True, help="Student or teacher, as for star_extract")
    parser.add_argument(
        "--kind", default="auto", choices=catalog.KINDS, help="What --upstream is; auto looks"
    )
    parser.add_argument(
        "--data_dir", required=True, help="Prepared directory: wav.scp and utt2num_samples"
    )
    parser.add_argument("--output_dir", required=True, help="Directory to write")
    parser.add_argument(
        "--layer",
        type=int,
        default=None,
        help="0 (input of the first layer) to L, -1 (default) for the last",
    )
    parser.add_argument("--clusters", type=positive, default=None, help="Clusters (500)")
    parser.add_argument(
        "--centroids",
        metavar="FILE",
        help="Label with these instead of finding new ones, at their layer",
    )
    parser.add_argument(
        "--max_hours",
        type=float,
        default=None,
        help="Find clusters on a random subset of so many; all utterances are labeled",
    )
    parser.add_argument("--seed", type=int, default=0, help="Of the subset, its order and k-means")
    parser.add_argument(
        "--batch_seconds", type=float, default=60.0, help="Audio of a batch, with its padding"
    )
    parser.add_argument("--threads", type=positive, default=None, help="Threads of torch")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--force", type=str2bool, default=False, help="Replace labels there")
    return parser


def check_options(args: argparse.Namespace) -> None:
    """Refuse options that cannot be meant so, before an encoder is loaded.

    Raises:
        StarError: Naming the option.
    """
    outdir = Path(args.output_dir)
    if args.centroids and (args.clusters or args.layer is not None or args.max_hours):
        raise StarError(
            "--centroids says layer and clusters; leave --clusters, --layer and --max_hours out"
        )
    if args.max_hours is not None and not args.max_hours > 0:
        raise StarError(f"--max_hours must be above 0, got {args.max_hours:g}")
    if not args.batch_seconds > 0:
        raise StarError(f"--batch_seconds must be above 0, got {args.batch_seconds:g}")
    if (outdir / LABELS).exists() and not args.force:
        raise StarError(f"{outdir} already holds labels; give --force true to replace them")
    check_writable(outdir, "--output_dir")


def read_paths(directory: Path) -> tuple[dict[str, str], dict[str, int]]:
    """Audio file and samples of each utterance of a prepared directory.

    Raises:
        DataError: If it is none, or its files name different utterances.
    """
    if (directory / "segments").exists():
        raise DataError(f"{directory} has segments; cut them with star_data prepare first")
    paths = read_wav_scp(directory / "wav.scp")
    counts = read_counts(directory / "utt2num_samples")
    if odd := sorted(paths.keys() ^ counts.keys()):
        raise DataError(
            f"{directory}: wav.scp and utt2num_samples name different utterances, e.g. {odd[0]}; "
            "prepare it again with star_data prepare"
        )
    if not paths:
        raise DataError(f"{directory}/wav.scp is empty; expected lines 'utterance path'")
    return paths, counts


def subset(counts: dict[str, int], max_hours: float | None, seed: int) -> list[str]:
    """Utterances in a random order, until they are so many hours: at least one."""
    names = sorted(counts)
    order = [names[index] for index in np.random.default_rng(seed).permutation(len(names))]
    if max_hours is None:
        return order
    ends = np.cumsum([counts[name] for name in order])
    return order[: max(1, int((ends <= max_hours * 3600 * SAMPLE_RATE).sum()))]


def states(
    encode: inference.Speech2Features, paths: Sequence[str], layer: int, batch_seconds: float
) -> Iterator[torch.Tensor]:
    """States ``(N, D)`` of a layer, an utterance after the other."""
    for features in encode.stream(paths, layer=layer, batch_seconds=batch_seconds):
        yield features.hidden_states[0][0].float()


def find_centroids(
    args: argparse.Namespace,
    encode: inference.Speech2Features,
    paths: dict[str, str],
    counts: dict[str, int],
) -> Centroids:
    """Those of ``--centroids``, or new ones, whose variance is known after labeling.

    Raises:
        StarError: If there is no such layer, or they are not of such an encoder.
    """
    layers = encode.num_layers
    if args.centroids:
        given = Centroids.load(args.centroids)
        if given.means.shape[1] != encode.output_size() or given.layer > layers:
            raise StarError(
                f"{args.centroids} is of width {given.means.shape[1]} at layer {given.layer}, "
                f"{args.upstream} has width {encode.output_size()} and layers 0 to {layers}; "
                "label with the encoder that was clustered"
            )
        return given
    layer = -1 if args.layer is None else args.layer
    if not -layers - 1 <= layer <= layers:
        raise StarError(f"--layer must be 0 to {layers}, or -1 for the last; got {layer}")
    layer %= layers + 1
    chosen = [paths[name] for name in subset(counts, args.max_hours, args.seed)]
    pieces = (s.cpu().numpy() for s in states(encode, chosen, layer, args.batch_seconds))
    means = fit_means(pieces, args.clusters or 500, args.seed)
    return Centroids(torch.from_numpy(means), layer, 0.0, str(args.upstream))


def label(
    args: argparse.Namespace,
    encode: inference.Speech2Features,
    paths: dict[str, str],
    counts: dict[str, int],
    centroids: Centroids,
) -> tuple[dict[str, np.ndarray], Usage]:
    """The nearest centroid of every frame, and what the labels are like."""
    means = centroids.means.to(encode.device)
    usage = Usage(np.zeros(len(means), dtype=np.int64))
    # Similar lengths together, the longest first, so that a lack of memory shows.
    order = sorted(paths, key=lambda name: (-counts[name], name))
    stream = states(encode, [paths[n] for n in order], centroids.layer, args.batch_seconds)
    labels = {}
    for name, state in zip(order, stream, strict=True):
        if not bool(state.isfinite().all()):
            raise StarError(
                f"utterance {name} has NaN or infinite states although its audio is finite; check "
                "the weights of the upstream"
            )
        nearest = squared_distances(state, means).min(dim=1)
        found = nearest.indices.cpu().numpy()
        usage.add(found, nearest.values.cpu().numpy())
        labels[name] = found.astype(np.min_scalar_type(len(means)))
    return labels, usage


def cluster(args: argparse.Namespace) -> None:
    """Check everything, then find centroids, label and write."""
    check_options(args)
    paths, counts = read_paths(Path(args.data_dir))
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    encode = inference.load(args.upstream, device=args.device, kind=args.kind)
    if encode.encoder.shape.hop != HOP:
        raise StarError(
            f"{args.upstream} has {encode.encoder.shape.rate:g} frames/s, labels are "
            f"{SAMPLE_RATE // HOP} a second; cluster an encoder of that rate"
        )
    centroids = find_centroids(args, encode, paths, counts)
    labels, usage = label(args, encode, paths, counts, centroids)
    outdir = Path(args.output_dir)
    try:
        outdir.mkdir(parents=True, exist_ok=True)
        (outdir / LABELS).unlink(missing_ok=True)
        if not args.centroids:
            variance = usage.inertia / (usage.frames * centroids.means.shape[1])
            found = Centroids(centroids.means, centroids.layer, variance, centroids.upstream)
            found.save(outdir / CENTROIDS)
        facts = usage.facts() | {"layer": centroids.layer, "upstream": str(args.upstream)}
        write_json(outdir / FACTS, facts)
        write_labels(outdir / LABELS, labels)
    except OSError as error:
        name = error.filename or outdir
        raise DataError(f"{name}: cannot be written ({error.strerror or error})") from error
    print(
        f"{outdir}/{LABELS}: {len(labels)} utterances, {usage.frames} frames at layer "
        f"{centroids.layer}; {facts['clusters'] - facts['empty']} of {facts['clusters']} clusters "
        f"used, perplexity {facts['perplexity']:.1f}"
    )


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_parser().parse_args(cmd)
    run_tool("star_clusters", lambda: cluster(args))


if __name__ == "__main__":
    main()
