"""Audit entries that are owed by the change they tell of: in the same update, written by the worker, once."""

from __future__ import annotations

from typing import Any

from core.audit.entries import Audit, Origin, origin
from core.clock import now
from core.ids import new_id
from core.queue.debts import Document, Payer, Payment, owe


def owe_audit(
    action: str,
    *,
    subject: dict[str, str],
    object_: dict[str, str],
    reason: str | None = None,
    changes: dict[str, dict[str, Any]] | None = None,
    details: dict[str, Any] | None = None,
) -> Document:
    """The debt of an entry as :meth:`Audit.record` writes it, asked for by the request being served."""
    return owe(
        "audit",
        entry=new_id(),
        asked_at=now(),
        action=action,
        subject=subject,
        object=object_,
        reason=reason,
        changes=changes or {},
        details=details or {},
        asked=origin().stored(),
    )


def audit_payer(audit: Audit) -> Payer:
    """Pays what :func:`owe_audit` owes; twice makes one entry."""

    async def pay(_document: Document, debt: Document) -> Payment:
        await audit.record(
            debt["action"],
            subject=debt["subject"],
            object_=debt["object"],
            reason=debt["reason"],
            changes=debt["changes"],
            details=debt["details"],
            entry_id=debt["entry"],
            at=debt["asked_at"],
            asked=Origin(**debt["asked"]),
        )
        return Payment()

    return pay
