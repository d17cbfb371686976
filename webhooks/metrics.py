"""Figures of webhooks."""

from prometheus_client import Counter

WEBHOOKS_SENT = Counter("gongzhi_webhooks_total", "Attempts to send webhooks, and those given up", ["outcome"])
