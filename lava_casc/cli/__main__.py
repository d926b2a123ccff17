"""``python -m lava_casc.cli``."""

from lava_casc.cli import main

main()
