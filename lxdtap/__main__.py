"""``python -m lxdtap`` and the console script."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from lxdtap.cli import main as command

    command()


if __name__ == "__main__":
    main()
