"""``python -m spt_registry.cli``."""

from spt_registry.cli import main

main()
