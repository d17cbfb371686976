"""Webhooks (事件推送): partners' systems are told of changes to cases by signed HTTP requests. Knows no domain."""
