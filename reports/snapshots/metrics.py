"""Figures of snapshots."""

from prometheus_client import Counter, Gauge

SNAPSHOTS = Counter(
    "gongzhi_snapshots_total",
    "Snapshots of cameras: received, and what became of them",
    ["outcome"],
)
SNAPSHOTS_STANDING = Gauge(
    "gongzhi_snapshots_standing",
    "Snapshots that wait to be looked at (received) or for a reviewer (waiting)",
    ["state"],
    multiprocess_mode="mostrecent",
)
