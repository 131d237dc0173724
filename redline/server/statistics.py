"""The statistics extension: a model's counters as the plain values that both protocols send."""

from typing import Any

from redline.server.repository import Model
from redline.server.stats import KINDS, Duration


def of(model: Model) -> dict[str, Any]:
    """One ``model_stat`` of the protocol."""
    stats = model.stats
    return {
        "name": model.name,
        "version": model.version_text,
        "last_inference": stats.last_ms,
        "inference_count": stats.inferences,
        "execution_count": stats.executions,
        "inference_stats": {kind: _duration(stats.durations[kind]) for kind in KINDS},
        "batch_stats": [
            {
                "batch_size": rows,
                "compute_input": _duration(batch.compute_input),
                "compute_infer": _duration(batch.compute_infer),
                "compute_output": _duration(batch.compute_output),
            }
            for rows, batch in stats.batch_table()
        ],
        "memory_usage": [],
    }


def _duration(duration: Duration) -> dict[str, int]:
    return {"count": duration.count, "ns": duration.ns}
