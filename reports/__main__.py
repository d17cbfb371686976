"""``python -m reports document``: write ``docs/report-lifecycle.md`` anew from the table of transitions."""

from __future__ import annotations

import argparse

from reports.lifecycle_document import DOCUMENT, document


def main(arguments: list[str] | None = None) -> None:
    """Run the one command."""
    parser = argparse.ArgumentParser(prog="python -m reports", description="The table of transitions, for people.")
    commands = parser.add_subparsers(required=True)
    commands.add_parser("document", help=f"write docs/{DOCUMENT.name} anew")
    parser.parse_args(arguments)
    DOCUMENT.write_text(document(), "utf-8")
    print(f"Wrote {DOCUMENT}")


if __name__ == "__main__":
    main()
