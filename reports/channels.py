"""How cases come in (渠道): what each channel is called, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal


@dataclass(frozen=True)
class Channel:
    """One way in.

    ``name`` is what staff read, ``received`` the first line of the timeline and ``filed_by`` the reason that the system
    gives when it files such a case. ``text_verdict`` is what its words count as when they come: ``pending`` until
    WeChat has checked them, ``pass`` where staff wrote or read them, ``unchecked`` where nobody did. Where it is
    ``picked``, the one who reports names the category.
    """

    name: str
    received: str = ""
    filed_by: str = "已选择类别，自动立案"
    text_verdict: Literal["pending", "pass", "unchecked"] = "unchecked"
    picked: bool = False


CHANNELS: Final = MappingProxyType(
    {
        "mini_program": Channel("小程序", "已收到您的上报", "上报人已选择类别，自动立案", "pending", picked=True),
        "collector": Channel("采集员", "采集员巡查发现", "采集员上报，自动立案", "pass"),
        "camera": Channel("摄像机抓拍", "摄像机抓拍，经人工确认", "抓拍已经人工确认，自动立案", "pass"),
        # What partners hand on, staff read first.
        "open311": Channel("合作方（Open311）"),
        "hotline": Channel("12345 热线"),
        "department": Channel("其他部门"),
        # Whoever split the case wrote its words.
        "split": Channel("拆分", text_verdict="pass"),
    }
)
"""All of them, by what a case's ``channel`` says."""
