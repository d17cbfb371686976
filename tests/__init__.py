"""Tests, a folder for each package; what several share lies beside the folders."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
