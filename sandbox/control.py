"""What WeChat and the people with their phones do by themselves, on command; and what was received.

JSON in and out. What cannot be done is answered with HTTP 400 and ``{"error": ...}`` in Chinese.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from tornado.web import RequestHandler

from sandbox.commands import (
    ForAccepts,
    ForClock,
    ForEvent,
    ForFault,
    ForPhone,
    ForReceived,
    ForSettings,
    ForSomeone,
    ForUser,
    ForVerdict,
    Wrong,
)
from sandbox.faults import Fault
from sandbox.people import User
from sandbox.records import Kind
from sandbox.settings import Settings
from sandbox.verdicts import LABEL_OF, Rule, Verdict
from sandbox.world import World

Body = TypeVar("Body", bound=BaseModel)
ABOUT_A_PERSON = ("user_info_modified", "user_authorization_revoke", "user_authorization_cancellation")


class Control(RequestHandler):
    """A handler under ``/control``: reads its body by a model and answers a wrong one in words."""

    def initialize(self, world: World) -> None:
        """Take the world the application was made with."""
        self.world = world

    def read(self, model: type[Body]) -> Body:
        """The body of the call; none is an empty one."""
        return model.model_validate_json(self.request.body or b"{}")

    def read_query(self, model: type[Body]) -> Body:
        """The query of the call, in the form of a body."""
        return model.model_validate({key: self.get_query_argument(key) for key in self.request.query_arguments})

    def say(self, **answer: Any) -> None:
        """Answer with JSON."""
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.finish(json.dumps(answer, ensure_ascii=False))

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """A wrong command is the caller's matter and no line in the log."""
        if not isinstance(value, Wrong | ValidationError):
            super().log_exception(typ, value, tb)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say what was wrong with the command."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, ValidationError):
            self.set_status(400)
            fields = [".".join(map(str, item["loc"])) + ": " + item["msg"] for item in error.errors()]
            self.say(error="参数不对，请按提示修改：" + "；".join(fields))
        elif isinstance(error, Wrong):
            self.set_status(400)
            self.say(error=str(error))
        else:
            super().write_error(status_code, **kwargs)


class LoginCode(Control):
    """``GET ?user=NAME``: the person opens the mini-program; a login code for it, good once, five minutes."""

    def get(self) -> None:
        """Answer {code, openid, user}."""
        person = self.read_query(ForSomeone).person(self.world)
        self.say(code=self.world.people.issue_login_code(person), openid=person.openid, user=person.name)


class PhoneCode(Control):
    """``GET ?user=NAME[&phone=...]``: the person shares the phone number; a phone code, good once, five minutes."""

    def get(self) -> None:
        """Answer {code, openid, phone}."""
        asked = self.read_query(ForPhone)
        person = asked.person(self.world)
        country = asked.country_code if asked.country_code_as == "string" else int(asked.country_code)
        code = self.world.people.issue_phone_code(person, asked.phone, country)
        self.say(code=code, openid=person.openid, phone=asked.phone or person.phone)


class Accepts(Control):
    """The taps on "accept" below a subscribe-message question: each is good for one send."""

    def get(self) -> None:
        """Answer {accepts: [{user, openid, template_id, count}]}, of one person where the query names one."""
        asked = self.read_query(ForSomeone)
        people = [asked.person(self.world)] if asked.user or asked.openid else self.world.people.all()
        self.say(
            accepts=[
                {"user": person.name, "openid": person.openid, "template_id": template, "count": count}
                for person in people
                for template, count in person.accepts.items()
            ]
        )

    def post(self) -> None:
        """Count accepts; answer {openid, template_id, count} with the sends that are left."""
        asked = self.read(ForAccepts)
        person = asked.person(self.world)
        if asked.template_id not in person.accepts and len(person.accepts) >= 100:
            raise Wrong("同一个人最多保留一百个模板的授权，请先重置。")
        left = max(0, person.accepts.get(asked.template_id, 0) + asked.count)
        person.accepts[asked.template_id] = left
        self.say(openid=person.openid, template_id=asked.template_id, count=left)


class Errors(Control):
    """Trouble for the next calls of an interface."""

    def initialize(self, world: World, paths: list[str] | None = None) -> None:
        """Take the world, and the paths at which there can be trouble."""
        super().initialize(world)
        self.paths = paths or []

    def post(self) -> None:
        """Order trouble."""
        asked = self.read(ForFault)
        if asked.path not in self.paths:
            raise Wrong("没有这个接口路径，可选：" + "、".join(self.paths))
        chosen = (asked.errcode is not None) + (asked.http_status is not None) + asked.drop
        if chosen > 1 or not (chosen or asked.delay_s):
            raise Wrong("errcode、http_status、drop 三者选一，或只给 delay_s。")
        if asked.errcode == 0:
            raise Wrong("errcode 0 是成功，不是错误，请换一个。")
        self.world.faults.add(
            asked.path, Fault(asked.times, asked.errcode, asked.http_status, asked.drop, asked.delay_s)
        )
        self.say(ok=True)

    def delete(self) -> None:
        """Withdraw what was ordered, for ``?path=`` or for all."""
        self.world.faults.clear(self.get_query_argument("path", None))
        self.say(ok=True)


class OrderVerdict(Control):
    """The verdicts of the checks to come."""

    def post(self) -> None:
        """Order a verdict."""
        asked = self.read(ForVerdict)
        if asked.sha256 and asked.kind == "text":
            raise Wrong("sha256 只用于图片，文字请用 contains。")
        if asked.contains and asked.kind == "image":
            raise Wrong("contains 只用于文字，图片请用 sha256。")
        openid = None
        if asked.user or asked.openid:
            openid = ForSomeone(user=asked.user, openid=asked.openid).person(self.world).openid
        label = LABEL_OF[asked.suggest] if asked.label is None else asked.label
        named = asked.sha256 or asked.contains or openid
        times = asked.times if asked.times or named else 1
        verdict = Verdict(asked.suggest, label)
        self.world.verdicts.add(Rule(asked.kind, verdict, times, asked.sha256, asked.contains, openid))
        self.say(ok=True)

    def delete(self) -> None:
        """Withdraw every ordered verdict."""
        self.world.verdicts.clear()
        self.say(ok=True)


class EndToken(Control):
    """The access token is withdrawn (calls answer 40001) or comes to its end (42001)."""

    def post(self, how: str) -> None:
        """Do it to every token that was handed out."""
        if how == "invalidate":
            self.world.tokens.invalidate()
        else:
            self.world.tokens.expire()
        self.say(ok=True)


class Users(Control):
    """The people."""

    def get(self) -> None:
        """Answer {users: [...]}, the last used first, at most 1,000."""
        self.say(users=[_describe(person) for person in self.world.people.all()[:1000]])

    def post(self) -> None:
        """Change what is given; answer the person."""
        asked = self.read(ForUser)
        person = asked.person(self.world)
        if asked.blocked is not None:
            person.blocked = asked.blocked
        if asked.risk_rank is not None:
            person.risk_rank = asked.risk_rank
        if asked.unionid is not None:
            person.unionid = asked.unionid or None
        if asked.phone is not None:
            person.phone = asked.phone
        if "last_active_s_ago" in asked.model_fields_set:
            ago = asked.last_active_s_ago
            person.last_active = None if ago is None else self.world.now() - ago
        self.say(**_describe(person))


class PushEvent(Control):
    """Push an event, by default that the person took the phone number back; the delivery is under ``received``."""

    def post(self) -> None:
        """Start the push."""
        asked = self.read(ForEvent)
        person = asked.person(self.world)
        fields = asked.fields
        if asked.event in ABOUT_A_PERSON:
            told = {"OpenID": person.openid, "AppID": self.world.settings.appid}
            if asked.event == "user_authorization_revoke":
                told["RevokeInfo"] = asked.revoke_info
            fields = told | fields
        if self.world.pushes.full:
            raise Wrong("待发送的推送太多，请稍后再试。")
        self.world.pushes.in_background(self.world.pushes.send(asked.event, person.openid, fields))
        self.say(ok=True, openid=person.openid)


class PushCheck(Control):
    """WeChat's verification of the callback URL."""

    async def post(self) -> None:
        """Make it; answer {ok, status?, body?, reason?}."""
        self.say(**await self.world.pushes.verify_url())


class Change(Control):
    """The settings."""

    def get(self) -> None:
        """Answer them, but for the secrets."""
        settings = self.world.settings
        self.say(appid=settings.appid, **{key: getattr(settings, key) for key in ForSettings.model_fields})

    def post(self) -> None:
        """Change what is given."""
        given = self.read(ForSettings).model_dump(exclude_none=True)
        Settings.model_validate(self.world.settings.model_dump() | given)  # all of it or nothing
        for key, value in given.items():
            setattr(self.world.settings, key, value)
        self.get()


class Clock(Control):
    """Time, for what takes long: codes, tokens, activity and quotas go by the sandbox's clock."""

    def post(self) -> None:
        """Move it; answer {now} in unix seconds."""
        self.world.ahead_s += self.read(ForClock).advance_s
        self.say(now=self.world.now())


class Reset(Control):
    """Back to the beginning, but for the settings and the access token."""

    async def post(self) -> None:
        """Do it."""
        await self.world.reset()
        self.say(ok=True)


class Received(Control):
    """What the product sent."""

    def get(self) -> None:
        """Answer {now, calls: {path: {outcome: count}}, and for each kind its records, newest first}."""
        asked = self.read_query(ForReceived)
        openid = asked.person(self.world).openid if asked.user or asked.openid else None
        kinds: tuple[Kind, ...] = (asked.kind,) if asked.kind else get_args(Kind)
        self.say(**self.world.records.read(kinds, openid, asked.since, asked.limit))


def _describe(person: User) -> dict[str, Any]:
    return {
        "user": person.name,
        "openid": person.openid,
        "phone": person.phone,
        "unionid": person.unionid,
        "blocked": person.blocked,
        "risk_rank": person.risk_rank,
        "last_active": person.last_active,
        "accepts": person.accepts,
    }


ROUTES: list[tuple[str, type[Control]]] = [
    ("/control/login-code", LoginCode),
    ("/control/phone-code", PhoneCode),
    ("/control/accepts", Accepts),
    ("/control/verdicts", OrderVerdict),
    (r"/control/token/(invalidate|expire)", EndToken),
    ("/control/users", Users),
    ("/control/push", PushEvent),
    ("/control/push-check", PushCheck),
    ("/control/settings", Change),
    ("/control/clock", Clock),
    ("/control/reset", Reset),
    ("/control/received", Received),
]
