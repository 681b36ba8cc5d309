"""Run as ``python -m espnet_star.bin.star_export``."""

from espnet_star.bin.star_export import main

if __name__ == "__main__":
    main()
