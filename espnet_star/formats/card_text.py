"""Fixed parts of a model card."""

from __future__ import annotations


def loading_own(name: str) -> str:
    """How to load a student that no HubertModel of transformers can hold."""
    return f'''## How to load

`{name}` stands for this directory or its name on the hub; espnet_star reads it.

```python
import espnet_star

encode = espnet_star.load("{name}")
features = encode(["first.wav", "second.flac"])
print(features.last.shape, features.lengths)
```

In ESPnet, learned weights over all states:

```sh
python -m espnet_star asr_train --frontend star --frontend_conf upstream={name} ...
```

An utterance has the same features alone and in any padded batch.'''


def citation() -> str:
    """The paper of STaR."""
    return """## Citation

```bibtex
@inproceedings{jang2024star,
  title     = {{STaR}: Distilling Speech Temporal Relation for Lightweight Speech
               Self-Supervised Learning Models},
  author    = {Jang, Kangwook and Kim, Sungnyun and Kim, Hoirin},
  booktitle = {ICASSP},
  year      = {2024},
  note      = {arXiv:2312.09040}
}
```"""
