"""Figures of live updates."""

from prometheus_client import Counter, Gauge

LIVE_FOLLOWERS = Gauge("gongzhi_live_followers", "Connections that follow changes", multiprocess_mode="livesum")
LIVE_MESSAGES = Counter("gongzhi_live_messages_total", "Messages about changes to who follows them")
LIVE_RESYNCS = Counter("gongzhi_live_resyncs_total", "Followers told to fetch anew because they read too slowly")
