"""The main job, over HTTP: a citizen reports, staff dispatch, a unit puts it right, the citizen rates."""

from __future__ import annotations

from tests.district import location
from tests.timing import until


async def test_a_report_goes_from_the_citizens_phone_to_the_unit_and_back(district):
    citizen = await district.citizen()
    templates = (await citizen.get("/me"))["templates"]
    await citizen.post("/subscriptions", {"template_ids": list(templates.values())})
    for template in templates.values():
        await district.control(
            "POST", "/accepts", {"openid": citizen.facts["openid"], "template_id": template, "count": 1}
        )
    number = await district.submit(
        citizen, category="exposed_garbage", description="垃圾堆在路口三天了，味道很大", location=location(crs="gcj02")
    )
    report = await district.settled(number)
    assert report["state"] == "dispatched"
    assert report["unit_id"] == "sanitation"
    await district.action("unit-sanitation", number, "accept")
    photo = await (await district.staff("unit-sanitation")).photo()
    await district.action("unit-sanitation", number, "handle", note="已清运", photo_ids=[photo])
    await district.action("verifier", number, "close", note="现场核实")
    rated = await citizen.post(f"/reports/{number}/rating", {"resolved": "yes", "score": 5, "comment": "很快"})
    assert rated["state"] == "rated"
    report = await district.settled(number)
    shown = await citizen.get(f"/reports/{number}")
    assert [s["action"] for s in shown["timeline"]] == [
        "submit", "file", "dispatch", "accept", "handle", "close", "rate",
    ]  # fmt: skip
    assert shown["unit"] == "sanitation所"
    assert shown["due"]["due_at"]
    assert shown["rating"] == {"resolved": "yes", "score": 5, "comment": "很快"}
    told = {n["event"]: n["result"] for n in report["notices"]}
    assert told == {"filed": "sent", "dispatched": "sent", "closed": "sent"}
    received = await district.control("GET", "/received", kind="messages", openid=citizen.facts["openid"])
    assert len(received["messages"]) == 3
    assert report["public"]
    # WeChat's verdict on the photo comes when it comes.
    passed = {f"photo_verdicts.{report['photos'][0]}": "pass"}
    await until(lambda: district.services.database["reports"].find_one({"_id": number, **passed}))
