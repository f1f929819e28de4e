"""``python -m metadarts``: the command line, for launchers that start modules."""

from metadarts.cli import main

if __name__ == "__main__":
    main()
