"""Speech corpora as Kaldi-style data directories: made, brought to 16 kHz, checked, written out."""

from espnet_star.bin.command import Subcommands

_OWN = Subcommands(__name__, __doc__)
get_parser, main = _OWN.get_parser, _OWN.main
