"""What the sandbox is told when it starts, by flags (``--push-url``) or environment (``SANDBOX_PUSH_URL``)."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

# Known to everybody, and only ever valid here: the sandbox has to run with nothing configured.
DEMO_APPID = "wx5a4db0c0ffee0001"
DEMO_SECRET = "0123456789abcdef0123456789abcdef"  # noqa: S105
DEMO_PUSH_TOKEN = "sandbox-push-token"  # noqa: S105
DEMO_AES_KEY = base64.b64encode(b"gongzhi-sandbox-encoding-aes-key").decode().rstrip("=")


class Settings(BaseSettings):
    """The sandbox's settings. ``push_url``, the delay, the format and the quotas can be changed while it runs."""

    model_config = SettingsConfigDict(
        env_prefix="SANDBOX_",
        cli_prog_name="sandbox",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        validate_assignment=True,
        extra="ignore",
    )

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(0, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    shared_port: bool = Field(False, description="whoever started this holds the port: listen on it with SO_REUSEPORT")
    appid: str = Field(DEMO_APPID, min_length=1, description="the mini-program's appid")
    appsecret: str = Field(DEMO_SECRET, min_length=1, description="the mini-program's secret")
    original_id: str = Field("gh_5a4db0c0ffee", description="the account's original id, ToUserName of every push")
    push_url: str = Field("", description="the product's callback for message pushes; empty: none is sent")
    push_token: str = Field(DEMO_PUSH_TOKEN, min_length=3, description="token that signs the pushes")
    encoding_aes_key: str = Field(DEMO_AES_KEY, description="43 characters; empty: pushes go in plain text")
    push_format: Literal["json", "xml"] = Field("json", description="data format of the pushes")
    verdict_delay_s: float = Field(0.2, ge=0, le=1800, description="seconds from an image check to its verdict")
    templates: Annotated[list[str], NoDecode] = Field([], description="template ids known, by commas; empty: any")
    pages: Annotated[list[str], NoDecode] = Field([], description="pages published, by commas; empty: any")
    minute_quotas: bool = Field(False, description="hold WeChat's calls-per-minute limits of each interface")

    @field_validator("templates", "pages", mode="before")
    @classmethod
    def _split_by_commas(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("encoding_aes_key")
    @classmethod
    def _is_a_key(cls, value: str) -> str:
        if value:
            try:
                key = base64.b64decode(value + "=", validate=True)
            except binascii.Error as error:
                raise ValueError("an EncodingAESKey is base64") from error
            if len(value) != 43 or len(key) != 32:
                raise ValueError("an EncodingAESKey has 43 characters and stands for 32 bytes")
        return value

    @field_validator("push_url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("the push URL starts with http:// or https://")
        return value
