"""Run as ``python -m espnet_star.bin.star_import``."""

from espnet_star.bin.star_import import main

if __name__ == "__main__":
    main()
