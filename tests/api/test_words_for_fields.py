"""What a refusal calls a field is what that field is."""

from __future__ import annotations

import pytest

from admin.accounts.own_account import Code
from admin.common.live import LiveQuery
from admin.reports.hidden_regions import DrawnRegion
from handlers.base import _validated
from handlers.field_names import named
from miniprogram_api.account import WeChatCode
from reports.snapshots.camera_sheets import read_cameras


def test_a_code_is_called_after_what_gives_it():
    assert named(Code.__name__, ["code"]) == "验证码"
    assert named(WeChatCode.__name__, ["code"]) == "登录码"


def test_where_live_updates_go_on_is_no_time():
    assert named(LiveQuery.__name__, ["since"]) == "消息序号"


def test_a_region_that_is_none_is_refused_without_the_names_of_fields():
    with pytest.raises(Exception, match="右边界须大于左边界，下边界须大于上边界"):
        _validated(DrawnRegion, b'{"left": 0.9, "top": 0.1, "right": 0.1, "bottom": 0.5}')


async def test_a_sheet_of_cameras_with_its_axes_swapped_says_so():
    sheet = await read_cameras("code,name,longitude,latitude,crs\nc1,路口,23.1,113.2,wgs84\n".encode())
    assert sheet.cameras == []
    assert "经度和纬度可能填反了" in str(sheet.problems)
