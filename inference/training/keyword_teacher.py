"""The teacher of the citizen's categories: phrases that name a category, since no message carries its label.

The phrases are the catalogue's terms and how people say them. A teacher of this kind is right about what it names
and silent about the rest, so figures against it say how well it is imitated, not how well citizens are served.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import yaml

from inference.text_input import learnt_form


def phrases_of(file: str) -> dict[str, list[str]]:
    """The phrases that a file of this folder lists, by what they name."""
    listed = yaml.safe_load(Path(__file__).with_name(file).read_text(encoding="utf-8"))
    return {name: phrases.split() for name, phrases in listed.items()}


PHRASES: Final = phrases_of("category_phrases.yaml")
"""Phrases by the key of their category."""

_FINDERS = {key: re.compile("|".join(map(re.escape, phrases))) for key, phrases in PHRASES.items()}


def taught(title: str, text: str) -> str:
    """The category that most of the phrases in a message name; ``other`` when none or two tie.

    A phrase in the title counts three times, as in what the network reads, and only the first 400 characters of the
    text count: what is mentioned later is seldom what the message is about.
    """
    words = learnt_form(title, text[:400])
    counts = sorted(((len(finder.findall(words)), key) for key, finder in _FINDERS.items()), reverse=True)
    if counts[0][0] == 0 or counts[0][0] == counts[1][0]:
        return "other"
    return counts[0][1]
