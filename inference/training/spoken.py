"""Made-up messages for the citizen's categories: the teacher's phrases in the words that people put around them.

The messages that exist were written to a mayor, and few are about a street light. On a phone people write a sentence.
"""

from __future__ import annotations

from typing import Final

import numpy as np

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


def spoken(each: int, seed: int) -> list[tuple[str, str]]:
    """``each`` messages for every phrase, with the phrase's category."""
    dice = np.random.default_rng(seed)
    made = []
    for category, phrases in PHRASES.items():
        for phrase in phrases.split():
            for _ in range(each):
                begin, place, middle, end = (
                    choices[int(dice.integers(len(choices)))] for choices in (_BEGINNINGS, _PLACES, _MIDDLES, _ENDINGS)
                )
                made.append((f"{begin}{place}{middle}{phrase}，{end}", category))
    return made
