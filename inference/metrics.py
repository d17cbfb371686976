"""Figures of the models."""

from prometheus_client import Counter, Gauge

JUDGEMENTS = Counter("gongzhi_inference_total", "Photos and texts judged, by what was answered", ["task", "label"])
CONFIDENCE = Gauge(
    "gongzhi_inference_confidence",
    "The mean confidence of the last whole day",
    ["task"],
    multiprocess_mode="mostrecent",
)
STABILITY = Gauge(
    "gongzhi_inference_stability_index",
    "How far the answers of the last whole day are from those of the model's first 30 days (PSI)",
    ["task"],
    multiprocess_mode="mostrecent",
)
DISAGREEMENT = Gauge(
    "gongzhi_inference_disagreement",
    "The share of the last whole day's labels in which people say something else than the model had",
    ["task"],
    multiprocess_mode="mostrecent",
)
SHADOW_JUDGEMENTS = Counter(
    "gongzhi_inference_shadow_total",
    "Judgements that a model in shadow gave as well: it agreed, or differed",
    ["task", "outcome"],
)
