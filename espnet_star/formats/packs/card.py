"""README of a pack: license, what it is, how to run it, results."""

from __future__ import annotations

import shlex
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData

from espnet_star import __version__
from espnet_star.errors import StarError
from espnet_star.formats.model_card import Card

# Options of asr_inference that Speech2Text takes under the same names.
_DECODING = {
    "beam_size",
    "ctc_weight",
    "lm_weight",
    "maxlenratio",
    "minlenratio",
    "nbest",
    "normalize_length",
    "penalty",
}
_PIPELINES = {
    "asr": "automatic-speech-recognition",
    "cls": "audio-classification",
    "spk": "audio-classification",
}

_SOURCES = """
## Sources

STaR: [arXiv 2312.09040](https://arxiv.org/abs/2312.09040). ESPnet:
[arXiv 1804.00015](https://arxiv.org/abs/1804.00015).
"""


def task_card(task: str, card: Card, config: dict[str, Any], home: str, model_file: str) -> str:
    """README of a downstream model of ESPnet.

    Args:
        task: ``"asr"``, ``"cls"`` or ``"spk"``.
        card: What its user says.
        config: ``config.yaml`` of the training.
        home: Folder of configuration and model in the pack.
        model_file: Name of the model.
    """
    options = _decoding_options(card.inference_args)
    config_path, model_path = f"model/{home}/config.yaml", f"model/{home}/{model_file}"
    if task == "asr":
        title = "Speech recognition"
        kwargs = "".join(f", {key}={value}" for key, value in options.items() if key in _DECODING)
        imported = "from espnet2.bin.asr_inference import Speech2Text"
        use = f"speech2text = Speech2Text(**files{kwargs})\n\nprint(speech2text(speech)[0][0])"
        flags = f"--asr_train_config {config_path} \\\n    --asr_model_file {model_path}"
        command = f"asr_inference {flags} {card.inference_args}".rstrip()
    elif task == "spk":
        title = "Speaker embeddings"
        imported = "from espnet2.bin.spk_inference import Speech2Embedding"
        use = "embed = Speech2Embedding(**files)\n\nprint(embed(speech).shape)"
        command = f"spk_inference --train_config {config_path} \\\n    --model_file {model_path}"
    else:
        title = "Classification"
        imported = "from espnet2.bin.cls_inference import Classification"
        use = "classify = Classification(**files)\n\nprint(classify(speech)[-1])"
        flags = f"--classification_train_config {config_path}"
        command = f"cls_inference {flags} \\\n    --classification_model_file {model_path}"
    return (
        _front(task, card)
        + f"""# {_title(card)}

{title} with ESPnet on {_frontend(config)}, made with espnet_star {__version__}.
{_paragraph(card.description)}
## Use

With espnet_star installed:

```python
import soundfile
{imported}
from espnet_model_zoo.downloader import ModelDownloader
from espnet_star.tasks.plugin import register_in

register_in("{task}")  # the student, as a frontend of ESPnet's task
speech, rate = soundfile.read("speech.wav")  # 16 kHz, mono
files = ModelDownloader("models").download_and_unpack("{card.name}")
{use}
```

or, for many files and with the pack checked before anything is written or loaded,

```sh
python -m espnet_star star_import pack --pack {card.name} --output_dir model
python -m espnet_star {command} \\
    --output_dir decoded --data_path_and_name_and_type wav.scp,speech,sound
```
{_results(card)}{_SOURCES}"""
    )


def packed_student(text: str, card: Card) -> str:
    """A student's card with what its user says, and the way to unpack it.

    Args:
        text: README that lies with the student, of :func:`model_card` for instance.
        card: What its user says.
    """
    present = ModelCard(text, ignore_metadata_errors=True)
    for key, value in {"license": card.license, "language": card.language}.items():
        if value is not None:
            present.data[key] = value
    present.data["tags"] = sorted({*(present.data.get("tags") or []), "espnet", "espnet_star"})
    return f"""---
{present.data.to_yaml()}
---

{present.text.strip()}
{_paragraph(card.description)}
## The pack

```sh
python -m espnet_star star_import pack --pack {card.name} --output_dir student
```
{_results(card)}"""


def _front(task: str, card: Card) -> str:
    data = ModelCardData(
        language=card.language,
        license=card.license,
        library_name="espnet",
        pipeline_tag=_PIPELINES[task],
        tags=["espnet", "espnet_star", "audio", _PIPELINES[task]],
    )
    return f"---\n{data.to_yaml()}\n---\n\n"


def _title(card: Card) -> str:
    return card.name.removesuffix(".zip").rsplit("/", maxsplit=1)[-1]


def _frontend(config: dict[str, Any]) -> str:
    for part in ("frontend", "encoder"):
        conf = config.get(f"{part}_conf") or {}
        architecture = conf.get("student_conf") if part == "frontend" else conf
        if config.get(part) == "star" and architecture:
            layers, width = architecture.get("num_hidden_layers"), architecture.get("hidden_size")
            return f"a student of {layers} layers of width {width}"
    return f"ESPnet's own frontend ({config.get('frontend')})"


def _paragraph(text: str | None) -> str:
    return f"\n{text.strip()}\n" if text else ""


def _results(card: Card) -> str:
    return f"\n## Results\n\n{card.results.strip()}\n" if card.results else ""


def _decoding_options(text: str) -> dict[str, str]:
    words = shlex.split(text)
    keys, values = words[::2], words[1::2]
    if len(keys) != len(values) or not all(key.startswith("--") for key in keys):
        raise StarError(f"inference_args must be pairs, e.g. '--beam_size 1', got {text!r}")
    names = (key.removeprefix("--").replace("-", "_") for key in keys)
    return {name: repr(yaml.safe_load(value)) for name, value in zip(names, values, strict=True)}
