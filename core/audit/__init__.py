"""The audit log (审计日志): who did or saw what, when, from where and why. Only ever added to, and provably so.

Three collections: ``audit`` holds the entries, each with a MAC of its own; ``audit_seals`` holds the chain, whose links
each cover the entries since the one before; ``audit_checkpoints`` says up to where entries have expired. How they fit
together, and what they prove to whom, is in ``docs/audit.md``. Source: GB/T 22239-2019, 8.1.4.3 (time, subject, event,
result; protected from deletion and change) and article 21 of the Cybersecurity Law (kept at least six months).
"""

from core.audit.entries import INDEXES, Audit, AuditFilters, Origin, audit_database, origin, serving
from core.audit.owed import audit_payer, owe_audit
from core.audit.seals import Sealer

__all__ = [
    "INDEXES",
    "Audit",
    "AuditFilters",
    "Origin",
    "Sealer",
    "audit_database",
    "audit_payer",
    "origin",
    "owe_audit",
    "serving",
]
