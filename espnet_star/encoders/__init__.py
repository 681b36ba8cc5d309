"""What turns waveforms into hidden states, whatever it is made of."""

from espnet_star.encoders.absent import NoTeacher
from espnet_star.encoders.base import Encoder, Shape, Want
from espnet_star.encoders.cached import Cached
from espnet_star.encoders.frozen import Frozen

__all__ = ["Cached", "Encoder", "Frozen", "NoTeacher", "Shape", "Want"]
