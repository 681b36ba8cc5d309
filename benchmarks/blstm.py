"""BLSTM of the recognition head: ESPnet's packed encoder against ours, interleaved.

python benchmarks/blstm.py [--threads 2]: medians of forward and backward over repeats.
"""

import argparse
import statistics
import time

import torch
from espnet2.asr.encoder.rnn_encoder import RNNEncoder

from espnet_star.downstream.heads import BLSTMEncoder
from espnet_star.evaluate.machine import machine_facts


def step(encoder: torch.nn.Module, x: torch.Tensor, lengths: torch.Tensor) -> float:
    """Seconds of one forward and backward pass."""
    start = time.perf_counter()
    encoder(x, lengths)[0].square().mean().backward()
    return time.perf_counter() - start


def main() -> None:
    """Print one Markdown row a shape."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(machine_facts())
    print("| utterances | frames | hidden | packed (ESPnet rnn), s | padded (blstm), s | ratio |")
    print("|---|---|---|---|---|---|")
    for batch, frames, hidden in ((16, 130, 160), (32, 130, 160), (16, 400, 256)):
        x = torch.randn(batch, frames, 240)
        lengths = torch.linspace(frames, 0.9 * frames, batch).long()
        packed = RNNEncoder(
            240,
            num_layers=2,
            hidden_size=hidden,
            output_size=2 * hidden,
            use_projection=False,
            subsample=[1, 1],
        )
        padded = BLSTMEncoder(240, hidden_size=hidden, num_layers=2, dropout=0.0)
        times = [(step(packed, x, lengths), step(padded, x, lengths)) for _ in range(args.repeats)]
        slow, fast = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"| {batch} | {frames} | {hidden} | {slow:.3f} | {fast:.3f} | {slow / fast:.1f} |")


if __name__ == "__main__":
    main()
