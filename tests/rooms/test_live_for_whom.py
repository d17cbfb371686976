"""Live updates are for whoever may see something of what they show, and for nobody else."""

from __future__ import annotations

import pytest
from tornado.httpclient import HTTPClientError

from accounts.models import NewStaff, Role
from accounts.staff import StaffService
from tests.api.live_support import connect
from tests.district import Client
from tests.seeding import PASSWORD


@pytest.mark.parametrize(("permissions", "refused"), [(["staff.view"], True), (["report.view"], False)])
async def test_whoever_may_see_no_kind_is_refused_the_connection(district, permissions, refused):
    staff, key = district.services[StaffService], "looks_" + permissions[0].partition(".")[0]
    await staff.put_role(Role(key=key, name="某角色", permissions=permissions))
    person = NewStaff(username=key.replace("_", "."), name="某人", roles=[key], areas=["990101"])
    await staff.create(person, PASSWORD)
    opened = await district.nobody("/admin/api/v1").post(
        "/session", {"username": person.username, "password": PASSWORD}
    )
    somebody = Client(district.http, "/admin/api/v1", opened["token"])
    if refused:
        with pytest.raises(HTTPClientError) as error:
            await connect(district, somebody.token)
        assert error.value.code == 403
    else:
        (await connect(district, somebody.token)).close()
