"""The calls to WeChat, made over sockets to the sandbox."""

import asyncio
import io

import httpx
import pytest
import pytest_asyncio
from PIL import Image
from redis.asyncio import Redis
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from core.wechat import (
    CodeInvalid,
    MessageRefused,
    Misconfigured,
    NotRecentlyActive,
    PushReceiver,
    Scene,
    SubscriptionUsedUp,
    UserBlocked,
    WeChat,
    WeChatBusy,
    WeChatError,
    dedup_key,
    fit,
    picture_verdict,
    transport,
)
from core.wechat.errors import NO_ANSWER, error_for
from tests.core.wechat_support import SECRET, SETTINGS, TEXT_CHECK, calls_of, client_of, forget_tokens, openid_of
from tests.timing import PATIENCE

TEMPLATE = "tmpl-report-filed-0000000000000000000000001"
SEND = "/cgi-bin/message/subscribe/send"
STRANGER = "o" + "x" * 27


@pytest_asyncio.fixture
async def redis(redis_url):
    async with Redis.from_url(redis_url) as redis:
        await forget_tokens(redis)
        yield redis


@pytest_asyncio.fixture
async def wechat(sandbox, redis):
    await sandbox.control("POST", "/control/reset")
    async with client_of(sandbox, redis) as wechat:
        yield wechat


async def inject(sandbox, path: str, **fault) -> None:
    await sandbox.control("POST", "/control/errors", {"path": path, **fault})


async def test_a_login_code_tells_who_holds_the_phone(sandbox, wechat):
    given = await sandbox.control("GET", "/control/login-code?user=li")
    session = await wechat.code2session(given["code"])
    assert (session.openid, session.unionid) == (given["openid"], None)


async def test_a_login_tells_the_unionid_where_there_is_one(sandbox, wechat):
    await sandbox.control("POST", "/control/users", {"user": "li", "unionid": "union-1"})
    given = await sandbox.control("GET", "/control/login-code?user=li")
    assert (await wechat.code2session(given["code"])).unionid == "union-1"


async def test_a_login_leaves_the_session_key_behind(sandbox, wechat):
    given = await sandbox.control("GET", "/control/login-code?user=li")
    assert "session_key" not in repr(vars(await wechat.code2session(given["code"])))


async def test_a_login_needs_no_access_token(sandbox, wechat):
    await inject(sandbox, "/cgi-bin/stable_token", http_status=503)
    given = await sandbox.control("GET", "/control/login-code?user=li")
    assert (await wechat.code2session(given["code"])).openid == given["openid"]
    await sandbox.control("DELETE", "/control/errors")


async def test_a_login_code_works_once(sandbox, wechat):
    given = await sandbox.control("GET", "/control/login-code?user=li")
    await wechat.code2session(given["code"])
    with pytest.raises(CodeInvalid) as refusal:
        await wechat.code2session(given["code"])
    assert not refusal.value.transient


async def test_a_blocked_user_cannot_log_in(sandbox, wechat):
    await sandbox.control("POST", "/control/users", {"user": "li", "blocked": True})
    given = await sandbox.control("GET", "/control/login-code?user=li")
    with pytest.raises(UserBlocked):
        await wechat.code2session(given["code"])


async def test_a_wrong_secret_is_the_operators_matter_and_is_not_repeated_in_the_error(sandbox, redis):
    async with client_of(sandbox, redis, secret="not-the-secret") as wechat:
        with pytest.raises(Misconfigured) as login:
            await wechat.code2session("0123456789")
        with pytest.raises(Misconfigured) as token:
            await wechat.phone_number("0123456789")
    for refusal in (login, token):
        assert refusal.value.errcode == 40125
        assert "not-the-secret" not in str(refusal.value)


@pytest.mark.parametrize("form", ["string", "number"])
async def test_a_phone_code_gives_the_number_with_its_country(sandbox, wechat, form):
    query = f"user=li&phone=13800138000&country_code_as={form}"
    given = await sandbox.control("GET", f"/control/phone-code?{query}")
    assert await wechat.phone_number(given["code"]) == "+8613800138000"


async def test_a_number_from_elsewhere_keeps_its_own_country(sandbox, wechat):
    given = await sandbox.control("GET", "/control/phone-code?user=li&phone=91234567&country_code=852")
    assert await wechat.phone_number(given["code"]) == "+85291234567"


async def test_a_login_code_is_no_phone_code(sandbox, wechat):
    given = await sandbox.control("GET", "/control/login-code?user=li")
    with pytest.raises(CodeInvalid):
        await wechat.phone_number(given["code"])


async def test_each_accept_sends_one_message_and_no_more(sandbox, wechat):
    openid = await openid_of(sandbox, "li")
    await sandbox.control("POST", "/control/accepts", {"user": "li", "template_id": TEMPLATE, "count": 1})
    values = {"thing1": fit("thing1", "井盖缺失，" * 6), "character_string2": fit("character_string2", "110105-1")}
    msgid = await wechat.send_subscribe_message(openid, TEMPLATE, "pages/report?id=1", values, "trial")
    with pytest.raises(SubscriptionUsedUp) as refusal:
        await wechat.send_subscribe_message(openid, TEMPLATE, "pages/report?id=1", values)
    assert not refusal.value.transient
    assert openid not in str(refusal.value)
    (message,) = (await sandbox.control("GET", "/control/received?kind=messages"))["messages"]
    assert (str(message["msgid"]), message["openid"]) == (msgid, openid)
    assert message["page"] == "pages/report?id=1"
    assert [v.get("value", v) if isinstance(v, dict) else v for v in message["data"].values()] == [
        "井盖缺失，井盖缺失，井盖缺失，井盖缺失…",
        "110105-1",
    ]


async def test_a_message_out_of_form_is_refused_for_good(sandbox, wechat):
    openid = await openid_of(sandbox, "li")
    await sandbox.control("POST", "/control/accepts", {"user": "li", "template_id": TEMPLATE, "count": 1})
    with pytest.raises(MessageRefused, match=r"thing1") as refusal:
        await wechat.send_subscribe_message(openid, TEMPLATE, "", {"thing1": "长" * 21})
    assert (refusal.value.errcode, refusal.value.transient) == (47003, False)
    with pytest.raises(MessageRefused, match="40003"):
        await wechat.send_subscribe_message(STRANGER, TEMPLATE, "", {"thing1": "好"})


async def test_a_text_can_be_risky_although_the_check_succeeded(sandbox, wechat):
    openid = await openid_of(sandbox, "li")
    fine = await wechat.check_text(openid, Scene.FORUM, "路口的井盖缺失，请处理")
    assert (fine.suggest, fine.label) == ("pass", 100)
    await sandbox.control("POST", "/control/verdicts", {"kind": "text", "suggest": "risky", "label": 20001})
    risky = await wechat.check_text(openid, Scene.FORUM, "路口的井盖缺失，请处理", title="井盖", nickname="老李")
    assert (risky.suggest, risky.label) == ("risky", 20001)
    assert risky.trace_id != fine.trace_id


@pytest.mark.parametrize("text", ["", "长" * 2501])
async def test_a_text_that_wechat_does_not_take_is_never_sent(wechat, text):
    with pytest.raises(ValueError, match="2500"):
        await wechat.check_text(STRANGER, Scene.FORUM, text)


async def test_checks_need_a_user_who_was_here_within_two_hours(sandbox, wechat):
    openid = await openid_of(sandbox, "li")
    await sandbox.control("POST", "/control/users", {"user": "li", "last_active_s_ago": 7201})
    with pytest.raises(NotRecentlyActive):
        await wechat.check_text(openid, Scene.COMMENT, "好")
    with pytest.raises(NotRecentlyActive):
        await wechat.check_picture(openid, Scene.FORUM, "https://example.com/1.jpg")
    with pytest.raises(NotRecentlyActive):
        await wechat.risk_rank(openid, 0, "127.0.0.1")


async def test_a_risk_rank_is_told(sandbox, wechat):
    openid = await openid_of(sandbox, "li")
    await sandbox.control("POST", "/control/users", {"user": "li", "risk_rank": 3})
    assert await wechat.risk_rank(openid, 0, "127.0.0.1") == 3


async def test_a_mini_program_code_is_a_picture_of_the_width_asked_for(wechat):
    picture = Image.open(io.BytesIO(await wechat.code_unlimited("g=1:2.3~4", "pages/scan", width=300)))
    assert picture.size[0] == 300


async def test_a_code_that_wechat_refuses_is_an_error_and_no_picture(sandbox, wechat):
    await inject(sandbox, "/wxa/getwxacodeunlimit", errcode=41030)
    with pytest.raises(WeChatError, match="41030"):
        await wechat.code_unlimited("a", "pages/nowhere")


@pytest.mark.parametrize(
    ("scene", "page", "width"),
    [("a" * 33, "p", 430), ("", "p", 430), ("汉", "p", 430), ("a%b", "p", 430), ("a", "/p", 430), ("a", "p", 279)],
)
async def test_a_code_out_of_form_is_never_asked_for(wechat, scene, page, width):
    with pytest.raises(ValueError, match=r"scene|page|wide"):
        await wechat.code_unlimited(scene, page, width=width)


@pytest.mark.parametrize("push_format", ["json", "xml"])
async def test_a_picture_is_fetched_by_wechat_and_its_verdict_comes_as_a_push(sandbox, wechat, push_format):
    picture = io.BytesIO()
    Image.new("RGB", (16, 16), "green").save(picture, "JPEG")
    receiver = PushReceiver(
        SETTINGS.push_token.get_secret_value(), SETTINGS.push_aes_key.get_secret_value(), SETTINGS.appid
    )
    events: list[dict] = []
    both = asyncio.Event()

    class Photo(RequestHandler):
        def get(self):
            self.finish(picture.getvalue())

    class Push(RequestHandler):
        def get(self):
            self.finish(
                receiver.verify_url(
                    *(self.get_query_argument(n) for n in ("signature", "timestamp", "nonce", "echostr"))
                )
            )

        def post(self):
            query = {name: self.get_query_argument(name) for name in self.request.query_arguments}
            events.append(receiver.open(query, self.request.body))
            # The first delivery is not acknowledged, so WeChat makes a second.
            self.finish("success" if len(events) > 1 else "not yet")
            if len(events) > 1:
                both.set()

    socket, port = bind_unused_port()
    server = HTTPServer(Application([("/photo", Photo), ("/push", Push)]))
    server.add_socket(socket)
    here = f"http://127.0.0.1:{port}"
    settings = {"push_url": f"{here}/push", "push_format": push_format, "verdict_delay_s": 0}
    await sandbox.control("POST", "/control/settings", settings)
    try:
        assert (await sandbox.control("POST", "/control/push-check"))["ok"]
        await sandbox.control("POST", "/control/verdicts", {"kind": "image", "suggest": "review", "label": "20002"})
        trace_id = await wechat.check_picture(await openid_of(sandbox, "li"), Scene.FORUM, f"{here}/photo")
        async with asyncio.timeout(PATIENCE):
            await both.wait()
        verdict = picture_verdict(events[0])
        assert (verdict.suggest, verdict.label, verdict.trace_id) == ("review", 20002, trace_id)
        assert dedup_key(events[0]) == dedup_key(events[1])
    finally:
        await sandbox.control(
            "POST", "/control/settings", {"push_url": "", "push_format": "json", "verdict_delay_s": 0.2}
        )
        server.stop()
        await server.close_all_connections()


@pytest.mark.parametrize(
    ("fault", "errcode"),
    [
        ({"errcode": -1}, -1),
        ({"errcode": 45009}, 45009),
        ({"errcode": 45011}, 45011),
        ({"http_status": 502}, 502),
        ({"drop": True}, NO_ANSWER),
    ],
)
async def test_what_passes_by_itself_is_transient_and_leaves_the_next_call_working(sandbox, wechat, fault, errcode):
    openid = await openid_of(sandbox, "li")
    await inject(sandbox, TEXT_CHECK, **fault)
    with pytest.raises(WeChatBusy) as failure:
        await wechat.check_text(openid, Scene.FORUM, "好")
    assert (failure.value.errcode, failure.value.transient) == (errcode, True)
    assert (await wechat.check_text(openid, Scene.FORUM, "好")).suggest == "pass"


async def test_a_call_ends_when_its_time_is_over(sandbox, wechat, monkeypatch):
    openid = await openid_of(sandbox, "li")
    await wechat.check_text(openid, Scene.FORUM, "好")
    monkeypatch.setattr(transport, "TOTAL_SECONDS", 0.3)
    await inject(sandbox, TEXT_CHECK, delay_s=1.5)
    began = asyncio.get_running_loop().time()
    with pytest.raises(WeChatBusy):
        await wechat.check_text(openid, Scene.FORUM, "好")
    assert asyncio.get_running_loop().time() - began < 1.2
    # The sandbox still works on the late call; the next test's counts must not find it.
    async with asyncio.timeout(PATIENCE):
        while (await calls_of(sandbox, TEXT_CHECK))["0"] < 2:  # noqa: ASYNC110 - it is another program
            await asyncio.sleep(0.05)


async def test_nobody_listening_is_transient(redis):
    wechat = WeChat("http://127.0.0.1:9", SETTINGS.appid, SECRET, redis)
    with pytest.raises(WeChatBusy) as failure:
        await wechat.code2session("code-0123456789")
    await wechat.close()
    assert SECRET not in str(failure.value)
    assert "code-0123456789" not in str(failure.value)


async def answering(body: bytes, status: int = 200) -> tuple[HTTPServer, str]:
    class Odd(RequestHandler):
        def get(self):
            self.set_status(status)
            self.finish(body)

    socket, port = bind_unused_port()
    server = HTTPServer(Application([("/.*", Odd)]))
    server.add_socket(socket)
    return server, f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("body", "status", "transient"),
    [
        (b"<html>gateway</html>", 200, True),
        (b"[]", 200, True),
        (b"", 200, True),
        (b'{"errcode": "many"}', 200, True),
        (b'{"session_key": "c2VjcmV0LXNlc3Npb24="}', 200, False),
        (b'{"openid": "", "session_key": "c2VjcmV0LXNlc3Npb24="}', 200, False),
        (b"\xff\xd8 a picture", 200, False),
        (b"{}", 404, False),
        (b"{}", 429, True),
        (b"{}", 302, False),
    ],
)
async def test_an_answer_that_wechat_never_gives_is_an_error_that_quotes_nothing(redis, body, status, transient):
    server, url = await answering(body, status)
    async with WeChat(url, SETTINGS.appid, SECRET, redis) as wechat:
        with pytest.raises(WeChatError) as failure:
            await wechat.code2session("code-0123456789")
    server.stop()
    await server.close_all_connections()
    assert failure.value.transient is transient
    assert "c2VjcmV0" not in str(failure.value)


def test_whatever_was_sent_is_masked_in_an_error():
    error = error_for(
        40003, f"invalid openid {STRANGER}, token 71_abcdef rid: 1", ["71_abcdef", STRANGER, STRANGER[:8]]
    )
    assert str(error) == "40003: invalid openid ***, token *** rid: 1"


async def test_every_call_is_observed_with_its_outcome(sandbox, redis):
    seen: list[tuple[str, int, float]] = []
    await sandbox.control("POST", "/control/reset")
    async with client_of(sandbox, redis, observe=lambda *call: seen.append(call)) as wechat:
        openid = await openid_of(sandbox, "li")
        await wechat.check_text(openid, Scene.FORUM, "好")
        await inject(sandbox, TEXT_CHECK, errcode=-1)
        await inject(sandbox, TEXT_CHECK, drop=True)
        for _ in range(2):
            with pytest.raises(WeChatBusy):
                await wechat.check_text(openid, Scene.FORUM, "好")
    assert [call[:2] for call in seen] == [
        ("/cgi-bin/stable_token", 0),
        (TEXT_CHECK, 0),
        (TEXT_CHECK, -1),
        (TEXT_CHECK, NO_ANSWER),
    ]
    assert all(0 < seconds < 5 for _, _, seconds in seen)


async def test_a_proxy_for_the_way_out_is_not_asked_for_this_machine(sandbox, redis, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with client_of(sandbox, redis) as wechat:
        with pytest.raises(CodeInvalid):
            await wechat.code2session("0123456789")


async def test_an_http_client_that_was_given_stays_open(sandbox, redis):
    async with httpx.AsyncClient() as http:
        async with client_of(sandbox, redis, http=http):
            pass
        assert not http.is_closed
