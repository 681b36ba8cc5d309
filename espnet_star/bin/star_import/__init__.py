"""Models that others have written, read without trusting them: students and packs."""

from espnet_star.bin.command import Subcommands

_OWN = Subcommands(__name__, __doc__)
get_parser, main = _OWN.get_parser, _OWN.main
