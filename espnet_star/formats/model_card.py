"""Model card of an exported student: where it comes from, what it costs, how to load it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml
from huggingface_hub import ModelCardData
from transformers import HubertConfig

from espnet_star import __version__
from espnet_star.encoders import Shape
from espnet_star.errors import StarError
from espnet_star.formats import card_text
from espnet_star.formats.training_facts import TrainingFacts

CARD = "README.md"
# Tells a card of ours from a README that somebody else has put there.
MARK = "<!-- Written by espnet_star's star_export. -->"
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_TAGS = ["speech", "audio", "hubert", "knowledge-distillation", "star", "espnet"]


@dataclass(frozen=True)
class Card:
    """What a user says about a model.

    Attributes:
        name: How a reader names it: hub name, directory or file.
        license: The hub's identifier, ``apache-2.0`` for instance.
        description: A sentence or more.
        language: Code of its language, e.g. ``"en"``.
        results: Table in Markdown.
        inference_args: Decoding options that the results were made with.
        terms: Name of the terms where there is no license; None leaves them out.
    """

    name: str
    license: str | None = None
    description: str | None = None
    language: str | None = None
    results: str | None = None
    inference_args: str = ""
    terms: str | None = "terms-of-teacher-and-data"


@dataclass(frozen=True)
class StudentFacts:
    """What is known of a student itself.

    Attributes:
        config: Its configuration.
        params: Its parameters.
        training: Where it comes from.
        macs_per_second: Multiply-accumulates per second of audio, None if not counted.
        speed: Real-time factor and how it was taken, empty if it was not.
        random_seed: Seed of weights that were drawn instead of distilled, else None.
        shape: Its states; those of a HuBERT's layers by default.
        beyond_hubert: What no HubertModel can hold of it, empty where one can.
    """

    config: HubertConfig
    params: int
    training: TrainingFacts
    macs_per_second: float | None = None
    speed: str = ""
    random_seed: int | None = None
    shape: Shape | None = None
    beyond_hubert: str = ""


def check_license(identifier: str) -> str:
    """A license's identifier as the hub writes them.

    Raises:
        StarError: If it is a sentence or a file instead.
    """
    if not _LICENSE.fullmatch(identifier):
        raise StarError(
            f"--license must be an identifier such as apache-2.0, cc-by-nc-4.0 or other, got "
            f"{identifier!r}"
        )
    return identifier


def is_foreign(directory: str | Path) -> bool:
    """Whether a directory holds a README that no export has written."""
    path = Path(directory) / CARD
    if not path.exists():
        return False
    try:
        return MARK not in path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return True


def model_card(card: Card, student: StudentFacts) -> str:
    """The card of a student, Markdown behind a YAML header as the hub reads it."""
    distilled = student.random_seed is None
    sections = [
        f"---\n{_header(card, student)}\n---\n\n{MARK}\n\n# {card.name.rpartition('/')[2]}",
        _summary(student),
        _facts(student),
        _training(student.training) if distilled and student.training.options else "",
        f"## Results\n\n{card.results.strip()}" if card.results else "",
        card_text.loading_own(card.name) if student.beyond_hubert else _loading(card.name),
        "" if student.beyond_hubert else _padding(student.config),
        _license(card.license, distilled),
        card_text.citation(student.training.bibtex) if distilled else "",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _header(card: Card, student: StudentFacts) -> str:
    data = ModelCardData(
        language=card.language,
        license=card.license or ("other" if card.terms else None),
        license_name=None if card.license else card.terms,
        library_name="espnet" if student.beyond_hubert else "transformers",
        pipeline_tag="feature-extraction",
        base_model=student.training.base_model if student.random_seed is None else None,
        tags=_TAGS,
    )
    return str(data.to_yaml()).strip()


def _shape(student: StudentFacts) -> Shape:
    config = student.config
    return student.shape or Shape(config.num_hidden_layers, config.hidden_size)


def _summary(student: StudentFacts) -> str:
    config = student.config
    shape = (
        f"{student.params / 1e6:.2f} M parameters, {config.num_hidden_layers} layers of width "
        f"{config.hidden_size}, {_shape(student).rate:g} frames per second"
    )
    if student.random_seed is not None:
        return (
            f"An encoder of speech with **random weights** (seed {student.random_seed}): {shape}. "
            "It is the baseline that a distilled student of the same architecture has to beat."
        )
    teacher = f" from `{student.training.teacher}`" if student.training.teacher else ""
    how = f" by {' and '.join(student.training.sources)}" if student.training.sources else ""
    return (
        f"An encoder of speech: {shape}. It was {'distilled' if teacher else 'trained'}{teacher}"
        f"{how} with espnet_star {__version__}, and has "
        + (
            f"{student.beyond_hubert}, which no HubertModel of transformers can hold: espnet_star "
            "loads it."
            if student.beyond_hubert
            else "the architecture of HuBERT, so that plain transformers loads it."
        )
    )


def _facts(student: StudentFacts) -> str:
    states, training = _shape(student), student.training
    rows: list[tuple[str, str]] = []
    if student.random_seed is None:
        rows += [("Teacher", f"`{training.teacher}`")] if training.teacher else []
        rows += [("Training data", _data(training))]
        rows += [("Objective", _objective(training))]
    macs = f"{(student.macs_per_second or 0) / 1e9:.2f} G per second of audio"
    rows += [
        ("Parameters", f"{student.params / 1e6:.2f} M"),
        *([("Multiply-accumulates", macs)] if student.macs_per_second else []),
        *([("Real-time factor", student.speed)] if student.speed else []),
        ("Input", "waveform at 16 kHz, mono, in [-1, 1), not normalized"),
        (
            "Output",
            f"{states.layers + 1} hidden states of width {states.width}, "
            f"a frame every {1000 / states.rate:g} ms",
        ),
    ]
    lines = ["| | |", "| --- | --- |"]
    return "\n".join(
        lines + [f"| {key} | {value.replace('|', chr(92) + '|')} |" for key, value in rows]
    )


def _data(training: TrainingFacts) -> str:
    names = ", ".join(f"`{name}`" for name in training.train_sets) or "not recorded"
    if training.hours is None:
        return names
    return f"{names}: {training.hours:.3g} h, {training.utterances} utterances"


def _objective(training: TrainingFacts) -> str:
    terms = []
    for loss in training.options.get("losses", []):
        conf = ", ".join(f"{key}: {value}" for key, value in (loss.get("conf") or {}).items())
        terms.append(
            f"`{loss['name']}`, weight {loss.get('weight', 1.0):g}" + f" ({conf})" * bool(conf)
        )
    return "; ".join(terms) or "not recorded"


def _training(training: TrainingFacts) -> str:
    options = yaml.safe_dump(training.options, sort_keys=False, allow_unicode=True)
    return f"## Training\n\nKeys of ESPnet's configuration:\n\n```yaml\n{options.strip()}\n```"


def _loading(name: str) -> str:
    return f'''## How to load

`{name}` stands for this directory or its name on the hub.

With espnet_star, from files or waveforms of any rate:

```python
import espnet_star

encode = espnet_star.load("{name}")
features = encode(["first.wav", "second.flac"])
print(features.last.shape, features.lengths)
```

With transformers:

```python
import torch
from transformers import AutoFeatureExtractor, AutoModel

extractor = AutoFeatureExtractor.from_pretrained("{name}")
model = AutoModel.from_pretrained("{name}").eval()
speech = torch.randn(16000).numpy()
inputs = extractor(speech, sampling_rate=16000, return_tensors="pt")
with torch.no_grad():
    states = model(**inputs, output_hidden_states=True).hidden_states
print(len(states), states[-1].shape)
```

With s3prl (`pip install espnet-s3prl`), as SUPERB loads it:

```python
import torch
from s3prl.nn import S3PRLUpstream

upstream = S3PRLUpstream("hf_hubert_custom", path_or_url="{name}").eval()
with torch.no_grad():
    states, lengths = upstream(torch.randn(1, 16000), torch.tensor([16000]))
print(len(states), states[-1].shape, lengths[-1])
```

In ESPnet: learned weights over all layers with espnet_star, the last layer with a stock ESPnet
202611, all layers with a stock ESPnet and s3prl:

```sh
python -m espnet_star asr_train --frontend star --frontend_conf upstream={name} ...
python -m espnet2.bin.asr_train --frontend huggingface --frontend_conf model={name} ...
python -m espnet2.bin.asr_train --frontend s3prl --frontend_conf multilayer_feature=true \\
    --frontend_conf frontend_conf.upstream=hf_hubert_custom \\
    --frontend_conf frontend_conf.path_or_url={name} ...
```'''


def _padding(config: HubertConfig) -> str:
    if config.feat_extract_norm == "group":
        text = (
            "The first convolution is followed by a group norm over time. transformers, and with\n"
            "it s3prl and ESPnet's own frontends, takes its statistics over padding too: in a\n"
            "batch, an utterance that is padded has other features than alone. Give them one\n"
            "utterance at a time, or utterances of one length. espnet_star leaves padding out: an\n"
            "utterance has the same features alone and in any batch, those of transformers alone."
        )
    else:
        text = (
            "Normalization is by frame: with the attention mask that the feature extractor\n"
            "returns, an utterance has the same features alone and in a padded batch, in\n"
            "transformers and in espnet_star. What stands in padded frames means nothing."
        )
    s3prl = (
        "s3prl gives `ceil(samples / 320)` frames instead of `floor((samples - 400) / 320) + 1`:\n"
        "it repeats the last one."
    )
    return f"## Padded batches\n\n{text}\n\n{s3prl}"


def _license(license: str | None, distilled: bool) -> str:
    if license and license != "other":
        return f"## License\n\n`{license}`."
    if not distilled:
        return "## License\n\nNone was stated."
    return (
        "## License\n\nNone was stated for these weights. They were learned from the teacher's\n"
        "outputs on the training data and follow the terms of both."
    )
