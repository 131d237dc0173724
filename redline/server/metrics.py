"""``/metrics``: the counters in Prometheus text, under Triton's names, with histograms of the times beside them."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from redline.server.dataplane import DataPlane
from redline.server.ensemble import Ensemble
from redline.server.repository import Model
from redline.server.stats import BUCKETS_S, Histogram

DURATIONS = (
    ("nv_inference_request_duration_us", "success", "Cumulative time of answered requests"),
    ("nv_inference_queue_duration_us", "queue", "Cumulative time of requests in the queue"),
    ("nv_inference_compute_input_duration_us", "compute_input", "Cumulative time of gathering inputs"),
    ("nv_inference_compute_infer_duration_us", "compute_infer", "Cumulative time of running models"),
    ("nv_inference_compute_output_duration_us", "compute_output", "Cumulative time of sharing out outputs"),
    ("nv_cache_duration_hit_us", "cache_hit", "Cumulative time of looking up answers that were in the cache"),
    ("nv_cache_duration_miss_us", "cache_miss", "Cumulative time of looking up answers that were not in the cache"),
)
HISTOGRAMS = (
    ("redline_request_duration_seconds", "request", "Time from request to answer"),
    ("redline_queue_duration_seconds", "queue", "Time in the queue"),
    ("redline_compute_duration_seconds", "compute", "Time of one batch in the model"),
)
LABELS = ("model", "version")


class Metrics:
    """Reads the counters when it is asked; keeps none of its own."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane
        self._registry = CollectorRegistry()
        self._registry.register(self)  # type: ignore[arg-type]
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        models = self._plane.repository.serving()
        yield from _counters(models)
        for name, kind, help_text in DURATIONS:
            family = CounterMetricFamily(name, f"{help_text}, in microseconds", labels=LABELS)
            for model in models:
                family.add_metric(_labels(model), model.stats.durations[kind].seconds * 1e6)
            yield _bare(family)
        for name, kind, help_text in HISTOGRAMS:
            histogram = HistogramMetricFamily(name, help_text, labels=LABELS)
            for model in models:
                found: Histogram = getattr(model.stats, kind)
                histogram.add_metric(_labels(model), _buckets(found), found.sum_s)
            yield histogram
        yield from self._gauges(models)

    def _gauges(self, models: Iterable[Model]) -> Iterator[Metric]:
        pending = GaugeMetricFamily("nv_inference_pending_request_count", "Requests in the queue", labels=LABELS)
        for model in models:
            if not isinstance(model, Ensemble):
                pending.add_metric(_labels(model), model.scheduler.waiting)
        yield pending
        yield GaugeMetricFamily("redline_requests_in_flight", "Requests accepted and not yet answered", self._plane.in_flight)
        yield GaugeMetricFamily("redline_cache_bytes", "Bytes in the response cache", self._plane.cache.num_bytes)


def _counters(models: Iterable[Model]) -> Iterator[Metric]:
    success = CounterMetricFamily("nv_inference_request_success", "Answered requests", labels=LABELS)
    failure = CounterMetricFamily("nv_inference_request_failure", "Failed requests", labels=(*LABELS, "reason"))
    count = CounterMetricFamily("nv_inference_count", "Rows inferred", labels=LABELS)
    executions = CounterMetricFamily("nv_inference_exec_count", "Batches run", labels=LABELS)
    hits = CounterMetricFamily("nv_cache_num_hits_per_model", "Answers from the cache", labels=LABELS)
    misses = CounterMetricFamily("nv_cache_num_misses_per_model", "Answers not in the cache", labels=LABELS)
    for model in models:
        labels, stats = _labels(model), model.stats
        success.add_metric(labels, stats.durations["success"].count)
        count.add_metric(labels, stats.inferences)
        executions.add_metric(labels, stats.executions)
        hits.add_metric(labels, stats.durations["cache_hit"].count)
        misses.add_metric(labels, stats.durations["cache_miss"].count)
        for reason in sorted({"OTHER", *stats.failures}):
            failure.add_metric([*labels, reason], stats.failures.get(reason, 0))
    yield from map(_bare, (success, failure, count, executions, hits, misses))


def _bare(family: CounterMetricFamily) -> Metric:
    """A counter under its own name: the library would add ``_total``, which Triton's names lack."""
    metric = Metric(family.name, family.documentation, "gauge")
    metric.type = "counter"
    for sample in family.samples:
        metric.add_sample(family.name, sample.labels, sample.value)
    return metric


def _labels(model: Model) -> list[str]:
    return [model.name, model.version_text]


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    total, rows = 0, []
    for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), histogram.counts, strict=True):
        total += count
        rows.append((bound, float(total)))
    return rows
