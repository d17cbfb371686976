"""What the content checks find: by rules that were ordered, else by a short list of words; a picture passes.

The words are few and plain on purpose, so that whoever tries the product knows what will be refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Suggest = Literal["pass", "review", "risky"]
Subject = Literal["text", "image"]

RULES_KEPT = 1000

# WeChat's labels: 100 fine, 10001 advertisement, 20001 politics, 20002 pornography, 20003 abuse, 20006 crime,
# 20008 fraud, 20012 vulgar, 20013 copyright, 21000 other.
LABEL_OF: dict[Suggest, int] = {"pass": 100, "review": 21000, "risky": 21000}
WORDS: dict[str, tuple[Suggest, int]] = {
    "赌博": ("risky", 20006),
    "代开发票": ("risky", 20006),
    "毒品": ("risky", 20006),
    "色情": ("risky", 20002),
    "裸聊": ("risky", 20002),
    "傻逼": ("risky", 20003),
    "刷单返利": ("risky", 20008),
    "加微信": ("review", 10001),
    "贷款": ("review", 10001),
    "他妈的": ("review", 20012),
}


@dataclass(slots=True, frozen=True)
class Verdict:
    """What was found. ``label`` is a number here, and in some of WeChat's pushes the same number as text."""

    suggest: Suggest
    label: int | str
    keyword: str = ""


@dataclass(slots=True)
class Rule:
    """A verdict that was ordered, for what fits everything the rule names; ``times`` None: until it is withdrawn."""

    subject: Subject
    verdict: Verdict
    times: int | None = 1
    sha256: str | None = None
    contains: str | None = None
    openid: str | None = None

    def rank(self) -> int:
        """What names the content goes before what names the person, and that before what names nothing."""
        return 0 if self.sha256 or self.contains else 1 if self.openid else 2

    def fits(self, subject: Subject, openid: str, text: str, sha256: str) -> bool:
        """Whether the rule is for this check."""
        return (
            self.subject == subject
            and (self.openid is None or self.openid == openid)
            and (self.sha256 is None or self.sha256 == sha256)
            and (self.contains is None or self.contains in text)
        )


class Verdicts:
    """The ordered rules, and what is found without any."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []

    def add(self, rule: Rule) -> None:
        """Take on a rule after those of its rank; the oldest goes when there are more than 1,000."""
        self._rules.append(rule)
        del self._rules[:-RULES_KEPT]
        self._rules.sort(key=Rule.rank)

    def clear(self) -> None:
        """Withdraw every rule."""
        self._rules.clear()

    def on_text(self, openid: str, text: str) -> Verdict:
        """The verdict on a text: an ordered one, else by the worst word in it."""
        ordered = self._ordered("text", openid, text, "")
        if ordered is not None:
            return ordered
        found = [Verdict(suggest, label, word) for word, (suggest, label) in WORDS.items() if word in text]
        if not found:
            return Verdict("pass", 100)
        return next((verdict for verdict in found if verdict.suggest == "risky"), found[0])

    def on_image(self, openid: str, sha256: str) -> Verdict:
        """The verdict on a picture, known by the SHA-256 of its bytes: an ordered one, else that it passes."""
        return self._ordered("image", openid, "", sha256) or Verdict("pass", 100)

    def _ordered(self, subject: Subject, openid: str, text: str, sha256: str) -> Verdict | None:
        for rule in self._rules:
            if rule.fits(subject, openid, text, sha256):
                if rule.times is not None:
                    rule.times -= 1
                    if rule.times <= 0:
                        self._rules.remove(rule)
                return rule.verdict
        return None
