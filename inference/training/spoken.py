"""Made-up messages for the citizen's categories: the teacher's phrases in the words that people put around them.

The messages that exist were written to a mayor, and few are about a street light. On a phone people write a sentence:
a thing and what is the matter with it, as ``spoken_scenes.yaml`` puts them together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import yaml

from inference.training.keyword_teacher import PHRASES

_PLACES: Final = (
    "",
    "小区门口",
    "我家楼下",
    "菜市场旁边",
    "学校对面",
    "公交站附近",
    "人行道上",
    "马路边",
    "村口",
    "单元门前",
    "河边步道",
    "路口转角",
    "公园入口",
    "商业街",
)
_BEGINNINGS: Final = ("", "", "你好，", "反映一下，", "投诉：", "请问", "师傅您好，", "又来反映，")
_MIDDLES: Final = ("的", "有", "这里", "出现", "全是", "一直有", "")
_ENDINGS: Final = (
    "",
    "没人管",
    "好几天了",
    "请尽快处理",
    "影响居民出行",
    "老人小孩走路很不安全",
    "希望有关部门来看看",
    "反映多次没有结果",
    "什么时候能解决？",
    "太难受了",
    "晚上更严重",
    "麻烦派人来弄一下",
    "都快一个月了",
)


_SCENES: Final = {
    category: [(things.split(), states.split()) for things, states in pairs]
    for category, pairs in yaml.safe_load(
        Path(__file__).with_name("spoken_scenes.yaml").read_text(encoding="utf-8")
    ).items()
}


def spoken(each: int, scenes: int, seed: int) -> list[tuple[str, str]]:
    """``each`` messages for every phrase and ``scenes`` of every category's scenes, with the category."""
    dice = np.random.default_rng(seed)

    def one_of(choices: tuple[str, ...] | list[str]) -> str:
        return choices[int(dice.integers(len(choices)))]

    made = []
    for category, phrases in PHRASES.items():
        for phrase in phrases:
            for _ in range(each):
                begin, place, middle, end = map(one_of, (_BEGINNINGS, _PLACES, _MIDDLES, _ENDINGS))
                made.append((f"{begin}{place}{middle}{phrase}，{end}", category))
    for category, pairs in _SCENES.items():
        kinds = np.array([len(things) for things, _ in pairs])
        for kind in dice.choice(len(pairs), scenes, p=kinds / kinds.sum()):
            things, states = pairs[kind]
            begin, place, end = map(one_of, (_BEGINNINGS, _PLACES, _ENDINGS))
            thing, state = one_of(things), one_of(states)
            said = f"{place}{thing}{state}" if dice.random() < 0.8 else f"{thing}{state}，{place}"
            made.append((f"{begin}{said}，{end}" if dice.random() < 0.6 else said, category))
    return made
