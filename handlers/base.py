"""What every handler shares: one request from its first byte to its answer.

The order is fixed: who is it, may they, not too often, is the body in form; then the endpoint's own method, with parsed
models; then its answer model. A refusal found before the body is read is kept until the body has been drained, because
closing a connection with unread bytes would lose the answer on its way.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import structlog
from pydantic import BaseModel, ValidationError
from pymongo.errors import PyMongoError
from tornado.escape import utf8
from tornado.httputil import HTTPFile, HTTPInputError, parse_multipart_form_data
from tornado.web import HTTPError, RequestHandler, stream_request_body

from accounts.admin_scope import check_district_wide
from accounts.api_keys import ApiKey, ApiKeyService
from accounts.models import CitizenSession, StaffSession
from accounts.sessions import SessionService
from core.audit import serving
from core.cache import Allowance
from core.database import unavailable
from core.errors import (
    AppError,
    BadRequest,
    Forbidden,
    NotFound,
    NotSignedIn,
    TooLarge,
    TooManyRequests,
    UnsupportedMedia,
)
from core.idempotency import Once
from core.ids import new_id
from core.services import Services
from handlers.client_address import client_address
from handlers.models import Body, Problem, Query
from handlers.operations import ABOUT, METHODS, LimitName, Operation, operation_of
from handlers.problems import explain

log = structlog.get_logger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{8,64}")
_SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Server": "gongzhi",
}


@stream_request_body
class BaseHandler(RequestHandler):
    """A handler whose methods are declared with :func:`handlers.operations.operation`."""

    media: ClassVar[tuple[str, ...]] = ("application/json",)
    problem: ClassVar[type[BaseModel]] = Problem
    services: Services
    declared: Operation | None
    citizen: CitizenSession
    staff: StaffSession
    key: ApiKey
    address: str
    once: Once | None = None
    expected: bool = False
    """Whether a status of 500 or above is how things go now and then, and no cause for a warning."""

    def initialize(self) -> None:
        """Called by Tornado before anything else."""
        self.services = self.application.settings["services"]
        self._chunks: list[bytes] = []
        self._received = 0
        self._refusal: AppError | None = None

    def set_default_headers(self) -> None:
        """Headers that an error answer carries too."""
        for name, value in _SAFE_HEADERS.items():
            self.set_header(name, value)
        given = self.request.headers.get("X-Request-Id", "")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else new_id()
        self.set_header("X-Request-Id", self.request_id)

    def compute_etag(self) -> None:
        """No entity tags: answers are private and change; hashing each would be wasted work."""

    async def prepare(self) -> None:
        """Find out who asks and whether they may, before the body is read."""
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=self.request_id)
        self.address = client_address(
            self.request.remote_ip or "",
            self.request.headers.get("X-Forwarded-For", ""),
            self.services.settings.server.trusted_proxies,
        )
        serving(self.request_id, self.address)
        self.declared = operation_of(type(self), self.request.method or "")
        if self.declared is None:
            return
        try:
            subject = await self._authenticate(self.declared)
            await self.count(self.declared.limits, subject)
            await self.admit()
        except AppError as refusal:
            self._refusal = refusal
        except PyMongoError as error:
            log.warning("database", error=type(error).__name__)
            self._refusal = unavailable(error)

    async def admit(self) -> None:
        """What else has to hold before the body is read, for who is known by now; raises what refuses them."""

    def data_received(self, chunk: bytes) -> None:
        """Keep the body up to what the endpoint takes; read the rest and forget it."""
        self._received += len(chunk)
        if self._refusal is None and self.declared is not None and self._received <= self.declared.max_body:
            self._chunks.append(chunk)

    async def serve(self, declared: Operation, method: Callable[..., Awaitable[Any]], path: dict[str, str]) -> None:
        """Run the declared ``method`` and write what it returns. Called in place of the method by its declaration."""
        if self._refusal is not None:
            raise self._refusal
        if self._received > declared.max_body:
            raise TooLarge(
                f"提交的内容过大，请控制在 {declared.max_body // 1024} KB 以内。",
                code="BODY_TOO_LARGE",
                details={"max_bytes": declared.max_body},
            )
        arguments: dict[str, Any] = dict(path)
        body = b"".join(self._chunks)
        self._chunks.clear()
        if declared.query is not None:
            arguments["query"] = self._parse_query(declared.query)
        elif self.request.query:
            raise BadRequest("这个接口不接受查询参数。", code="QUERY_NOT_ACCEPTED")
        if declared.form_file is not None:
            arguments["file"], about = self._parse_form(declared.form_file, body, declared.body)
            if about is not None:
                arguments["body"] = about
        elif declared.body is not None:
            arguments["body"] = parsed = self._parse_body(declared, body)
            if declared.idempotent and declared.audience != "anyone":
                person = self.citizen.citizen_id if declared.audience == "citizen" else self.staff.staff_id
                self.once = self.once_by(person, parsed.model_dump_json().encode())
        elif declared.consumes is not None:
            arguments["body"] = body
        answer = await method(self, **arguments)
        self.set_status(declared.status)
        if isinstance(answer, BaseModel):
            self.write_answer(answer)

    def once_by(self, person: str, body: bytes) -> Once | None:
        """The Idempotency-Key of this request by ``person``, None without one. Raises :class:`BadRequest`."""
        key = self.request.headers.get("Idempotency-Key")
        return Once.of(key, person, self.request.method or "", self.request.path, body) if key is not None else None

    def write_answer(self, answer: BaseModel) -> None:
        """Write ``answer`` in the form that these endpoints have."""
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.write(answer.model_dump_json().encode())

    async def _authenticate(self, declared: Operation) -> str:
        """Set ``citizen`` or ``staff``; returns whom limits count."""
        if declared.audience == "anyone":
            return f"ip:{self.address}"
        scheme, _, token = self.request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise NotSignedIn("请先登录。")
        if declared.audience == "partner":
            return await self._authenticate_partner(declared, token.strip())
        if declared.audience == "citizen":
            self.citizen = await self.services[SessionService].citizen(token.strip())
            structlog.contextvars.bind_contextvars(citizen=self.citizen.citizen_id)
            return f"citizen:{self.citizen.citizen_id}"
        self.staff = await self.services[SessionService].staff(token.strip(), unready=declared.unready)
        structlog.contextvars.bind_contextvars(staff=self.staff.staff_id)
        if declared.permission is not None and declared.permission not in self.staff.permissions:
            raise Forbidden(
                "您没有这项操作的权限，请联系管理员。",
                code="NO_PERMISSION",
                details={"permission": declared.permission},
            )
        if declared.reach == "district":
            check_district_wide(self.staff, self.services.settings.reports.division)
        return f"staff:{self.staff.staff_id}"

    async def _authenticate_partner(self, declared: Operation, key: str) -> str:
        try:
            self.key = await self.services[ApiKeyService].check(key, *declared.scopes)
        except Forbidden as refused:
            if refused.code == "API_KEY_SCOPE":
                raise
            raise NotSignedIn("接口密钥不正确或已停用，请核对，或重新申请。", code="API_KEY_INVALID") from refused
        structlog.contextvars.bind_contextvars(partner=self.key.key_id)
        return f"partner:{self.key.key_id}"

    async def count(self, names: tuple[LimitName, ...], subject: str) -> None:
        """Count this request against the limits ``names`` of ``subject``. Raises :class:`TooManyRequests`."""
        limits = self.services.settings.limits
        if not limits.enabled or not names:
            return
        by_name: dict[LimitName, Any] = {
            "read": limits.read,
            "write": limits.write,
            "report": limits.report,
            "photo": limits.photo,
            "sign_in": limits.sign_in,
            "partner": limits.partner,
        }
        allowances = [Allowance(n, by_name[n].count, by_name[n].seconds) for n in names]
        wait = await self.services.cache.take(subject, allowances)
        if wait:
            seconds = -(-wait // 1000)
            raise TooManyRequests(f"操作太频繁，请 {seconds} 秒后再试。", retry_after=seconds)

    def _parse_query(self, model: type[Query]) -> Query:
        given: dict[str, Any] = {}
        for name, values in self.request.query_arguments.items():
            try:
                texts = [v.decode() for v in values]
            except UnicodeDecodeError as error:
                raise BadRequest("查询参数不是合法的 UTF-8 文字。", code="QUERY_ENCODING") from error
            field = model.model_fields.get(name)
            if field is not None and "list[" in str(field.annotation):
                given[name] = texts
            elif len(texts) > 1:
                raise BadRequest(f"参数 {name} 只能给一次。", code="QUERY_REPEATED")
            elif texts[0] == "" and field is not None and "bool" in str(field.annotation):
                given[name] = True  # ?mine says it as well as ?mine=true
            else:
                given[name] = texts[0]
        try:
            return model.model_validate(given)
        except ValidationError as error:
            raise explain(error) from error

    def _parse_body(self, declared: Operation, body: bytes) -> Any:
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise UnsupportedMedia("请以 application/json 提交。", code="NOT_JSON")
        assert declared.body is not None  # noqa: S101 - the caller has looked
        return _validated(declared.body, body)

    def _parse_form(self, name: str, body: bytes, model: type[Body] | None) -> tuple[HTTPFile, Body | None]:
        """The one file of a form, and with ``model`` what its field ``about`` says in JSON."""
        fields, files = self.parse_multipart(name, body)
        expected = {name} if model is None else {name, ABOUT}
        about = fields.get(ABOUT, []) + [f.body for f in files.pop(ABOUT, ())] if model is not None else []
        unknown = sorted({*fields, *files} - expected)
        if unknown or len(files.get(name, ())) != 1 or len(about) != len(expected) - 1:
            asked = f"一个名为 {name} 的文件" + ("和一个名为 about 的 JSON 字段" if model is not None else "")
            raise BadRequest(f"请提交{asked}，不要其他字段。", code="BAD_MULTIPART")
        return files[name][0], None if model is None else _validated(model, about[0])

    def parse_multipart(self, name: str, body: bytes) -> tuple[dict[str, list[bytes]], dict[str, list[HTTPFile]]]:
        """Fields and files of a multipart body, in which files are called ``name``."""
        kind, _, parameters = self.request.headers.get("Content-Type", "").partition(";")
        boundary = re.search(r'boundary="?([^";\s]{1,200})"?', parameters)
        if kind.strip().lower() != "multipart/form-data" or boundary is None:
            raise UnsupportedMedia(f"请以 multipart/form-data 提交，文件字段名为 {name}。", code="NOT_MULTIPART")
        fields: dict[str, list[bytes]] = {}
        files: dict[str, list[HTTPFile]] = {}
        try:
            parse_multipart_form_data(utf8(boundary[1]), body, fields, files)
        except (HTTPInputError, ValueError) as error:
            raise BadRequest("提交的表单不完整，请重试。", code="BAD_MULTIPART") from error
        return fields, files

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer for any exception; a stack trace goes to the log alone."""
        error = kwargs["exc_info"][1]
        if isinstance(error, PyMongoError):
            log.warning("database", error=type(error).__name__)
            error = unavailable(error)
        if isinstance(error, AppError):
            shown = error
            self.set_status(self.shown_status(error.status))
            if isinstance(error, TooManyRequests):
                self.set_header("Retry-After", str(error.retry_after))
            if isinstance(error, NotSignedIn):
                self.set_header("WWW-Authenticate", "Bearer")
        elif isinstance(error, HTTPError) and status_code == 405:
            allowed = [m.upper() for m in METHODS if operation_of(type(self), m) is not None]
            self.set_header("Allow", ", ".join(allowed))
            shown = AppError("这个地址不支持这种请求方法。", code="METHOD_NOT_ALLOWED", details={"allowed": allowed})
        elif isinstance(error, HTTPError) and status_code < 500:
            shown = AppError("请求无法处理，请检查后重试。", code="BAD_REQUEST")
        else:
            shown = AppError("系统出错了，请稍后重试；如仍不行，请把编号告诉我们。")
        self.write_problem(shown)
        self.finish()

    @classmethod
    def shown_status(cls, status: int) -> int:
        """The status that these endpoints give for an error with ``status``."""
        return status

    def write_problem(self, error: AppError) -> None:
        """Write ``{code, message, details, request_id}``, or what stands for it at these endpoints."""
        self.set_header("Content-Type", "application/json; charset=utf-8")
        problem = Problem(code=error.code, message=error.message, details=error.details, request_id=self.request_id)
        self.write(problem.model_dump_json().encode())

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """Log what nobody expected, with its trace; refusals are in the access log already."""
        if not isinstance(value, AppError | HTTPError | PyMongoError):
            log.error("request.failed", route=type(self).__name__, exc_info=(typ, value, tb))


def _validated(model: type[Body], content: bytes) -> Body:
    try:
        # What JSON has a kind for is given as that kind: true is no number, and 5 no text.
        return model.model_validate_json(content, strict=True)
    except ValidationError as error:
        if any(e["type"] == "json_invalid" for e in error.errors(include_input=False)):
            raise BadRequest("提交的内容不是合法的 JSON。", code="BAD_JSON") from error
        raise explain(error) from error


class UnknownAddress(BaseHandler):
    """Answers every address that no route serves."""

    async def _nowhere(self) -> None:
        raise NotFound("没有这个地址，请检查链接。", code="NO_SUCH_ADDRESS")

    get = post = put = patch = delete = head = options = _nowhere
