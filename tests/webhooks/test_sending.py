"""Webhooks are signed, and go only where they may go."""

from __future__ import annotations

import pytest

from core.config_sections import Webhooks as WebhookSettings
from core.errors import Invalid
from tests.webhooks.receiver import receiving, verify
from webhooks.models import pause_after
from webhooks.sending import Rules, Sender, is_public, signature
from webhooks.service import new_secret

STRICT = Rules(strict=True, allowed=frozenset({"hooks.internal", "10.0.0.7"}))
LAX = Rules(strict=False, allowed=frozenset())


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.9.9", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "64:ff9b::7f00:1", "2002:7f00:1::", "ff02::1", "198.18.0.1", "192.0.2.1",
    ],
)  # fmt: skip
def test_addresses_inside_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "114.114.114.114", "2400:3200::1", "::ffff:1.1.1.1"])
def test_addresses_outside_are(address):
    assert is_public(address)


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://partner.example/hook", "WEBHOOK_URL_NOT_HTTPS"),
        ("https://127.0.0.1/hook", "WEBHOOK_URL_PRIVATE"),
        ("https://[::1]/hook", "WEBHOOK_URL_PRIVATE"),
        ("https://169.254.169.254/latest/meta-data", "WEBHOOK_URL_PRIVATE"),
        ("https://user:pass@partner.example/", "BAD_WEBHOOK_URL"),
        ("https://partner.example/#x", "BAD_WEBHOOK_URL"),
        ("https://partner.example:99999/", "BAD_WEBHOOK_URL"),
        ("ftp://partner.example/", "BAD_WEBHOOK_URL"),
        ("https:///hook", "BAD_WEBHOOK_URL"),
    ],
)
def test_production_refuses_what_is_not_a_public_https_address(url, code):
    with pytest.raises(Invalid) as caught:
        STRICT.check_url(url)
    assert caught.value.code == code


def test_what_is_allowed_by_name_may_be_inside():
    STRICT.check_url("https://partner.example/hook")
    STRICT.check_url("http://hooks.internal/hook")
    STRICT.check_url("http://10.0.0.7:8080/hook")
    LAX.check_url("http://127.0.0.1:9000/hook")
    assert STRICT.permits("hooks.internal", "10.9.9.9")
    assert not STRICT.permits("partner.example", "10.9.9.9")


@pytest.mark.http
async def test_a_name_that_stands_for_this_machine_is_not_connected_to():
    """``localhost`` passes the look at the address itself; what it resolves to does not."""
    async with receiving() as receiver:
        url = receiver.url.replace("127.0.0.1", "localhost").replace("http:", "https:")
        sender = Sender(WebhookSettings(), strict=True)
        outcome = await sender.send(url, [new_secret()], "m-1", b"{}")
        sender.close()
        assert (outcome.accepted, outcome.status, outcome.problem) == (False, None, "address refused")
        assert receiver.requests == 0
        # The control: where it is allowed by name, the same address is reached.
        allowed = Sender(WebhookSettings(allowed_hosts=["localhost"]), strict=True)
        outcome = await allowed.send(url.replace("https:", "http:"), [new_secret()], "m-1", b"{}")
        allowed.close()
        assert outcome.accepted, outcome
        assert receiver.requests == 1


@pytest.fixture
def sender():
    made = Sender(WebhookSettings(timeout_seconds=2.0), strict=False)
    yield made
    made.close()


async def test_a_redirect_is_not_followed(sender):
    async with receiving() as inside, receiving(redirect_to=inside.url) as receiver:
        outcome = await sender.send(receiver.url, [new_secret()], "m-1", b"{}")
        assert (outcome.accepted, outcome.status) == (False, 307)
        assert inside.requests == 0


async def test_an_endless_answer_a_closed_port_and_a_strange_name_are_failures(sender):
    async with receiving(endless=True) as receiver:
        assert not (await sender.send(receiver.url, [new_secret()], "m-1", b"{}")).accepted
        url = receiver.url
    assert not (await sender.send(url, [new_secret()], "m-1", b"{}")).accepted
    assert not (await sender.send("http://no-such-name.invalid/", [new_secret()], "m-1", b"{}")).accepted


async def test_what_is_sent_is_verified_by_the_documented_example(sender):
    secret, other = new_secret(), new_secret()
    async with receiving(secrets=[secret, other]) as receiver:
        outcome = await sender.send(receiver.url, [secret, other], "m-1", b'{"id":"m-1"}')
        assert outcome.accepted
        assert receiver.bad == []
        await sender.send(receiver.url, [new_secret()], "m-2", b'{"id":"m-2"}')
        assert len(receiver.bad) == 2


def test_a_changed_body_or_moment_does_not_verify():
    secret = new_secret()
    headers = {"webhook-id": "m", "webhook-timestamp": "1", "webhook-signature": signature(secret, "m", 1, b"{}")}
    assert verify(secret, headers, b"{}", tolerance=10**10) == {}
    for changed, body in ((headers, b"[]"), ({**headers, "webhook-timestamp": "2"}, b"{}")):
        with pytest.raises(ValueError, match="signature"):
            verify(secret, changed, body, tolerance=10**10)
    with pytest.raises(ValueError, match="old"):
        verify(secret, headers, b"{}")


def test_the_signature_is_that_of_the_standard():
    """The example of the Standard Webhooks specification's reference libraries."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    assert (
        signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
        == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


def test_pauses_grow_and_fill_three_days():
    pauses = [pause_after(n).total_seconds() for n in range(1, 30)]
    assert pauses[:4] == [10, 20, 40, 80]
    assert max(pauses) == 4 * 3600
    assert (
        20 < next(n for n in range(1, 60) if sum(pause_after(i).total_seconds() for i in range(1, n)) > 72 * 3600) < 35
    )
