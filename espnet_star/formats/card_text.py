"""Fixed parts of a model card."""

from __future__ import annotations

from collections.abc import Sequence


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


def citation(entries: Sequence[str]) -> str:
    """What to cite, of BibTeX entries; empty for none."""
    if not entries:
        return ""
    listed = "\n\n".join(entries)
    return f"## Citation\n\n```bibtex\n{listed}\n```"
