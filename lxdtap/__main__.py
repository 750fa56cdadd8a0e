"""``python -m lxdtap`` and the console script."""

from __future__ import annotations

import gc


def main() -> None:
    """Run the command line."""
    gc.disable()  # what is imported stays: until that is done there is no garbage to look for
    from lxdtap.cli import main as command

    command()


if __name__ == "__main__":
    main()
