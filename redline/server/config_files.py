"""Reads ``config.pbtxt``, ``redline.toml`` and the JSON of a load request into a ModelConfig, or a message.

``redline.toml`` is the short form:

    max_batch_size = 8
    versions = "all"                 # or a number of latest ones, or a list of versions
    cache = true
    [batching]                       # dynamic batching
    max_delay_us = 500
    preferred = [4, 8]
    [instances]
    count = 2
    threads = 1
    isolated = false
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import json_format, text_format

from redline.base.errors import closest
from redline.server import proto
from redline.server.config import Batching, Instances, ModelConfig, QueuePolicy, Step, Versions, Warmup, WarmupInput
from redline.server.errors import invalid
from redline.server.types import TensorSpec

MAX_CONFIG_BYTES = 1 << 20
TOML_KEYS = {"max_batch_size", "versions", "cache", "batching", "instances", "backend", "parameters"}


def read_folder(folder: Path) -> Any:
    """The configuration message of a model's folder; an empty one with the folder's name where there is no file.

    Raises ServeError naming the file and the line.
    """
    for file, parse in (("config.pbtxt", parse_text), ("redline.toml", parse_toml)):
        path = folder / file
        if path.is_file():
            if path.stat().st_size > MAX_CONFIG_BYTES:
                raise invalid(str(path), "it is too large", f"allowed: {MAX_CONFIG_BYTES} bytes")
            try:
                return _named(parse(path.read_text(), str(path)), folder.name, str(path))
            except UnicodeDecodeError as error:
                raise invalid(str(path), "it is not UTF-8 text") from error
    return proto.ModelConfig(name=folder.name)


def _named(message: Any, name: str, where: str) -> Any:
    if message.name and message.name != name:
        raise invalid(where, f"it names the model {message.name!r}", f"expected {name!r}, the name of the folder")
    message.name = name
    return message


def parse_text(text: str, where: str) -> Any:
    """A message from the text form of config.pbtxt."""
    try:
        return text_format.Parse(text, proto.ModelConfig(), descriptor_pool=proto.POOL)
    except text_format.ParseError as error:
        raise invalid(where, f"it cannot be read: {error}", "", "write it as Triton's ModelConfig message") from error


def parse_json(text: str, name: str, where: str) -> Any:
    """A message from the JSON form that a load request may carry."""
    try:
        message = json_format.Parse(text, proto.ModelConfig(), descriptor_pool=proto.POOL)
    except (json_format.ParseError, RecursionError) as error:
        raise invalid(where, f"the configuration cannot be read: {error}") from error
    return _named(message, name, where)


def parse_toml(text: str, where: str) -> Any:
    """A message from the short form."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise invalid(where, f"it cannot be read: {error}") from error
    for key in values:
        if key not in TOML_KEYS:
            raise invalid(where, f"there is no setting {key!r}", closest(key, TOML_KEYS))
    try:
        return _from_toml(values)
    except (TypeError, ValueError, AttributeError) as error:
        raise invalid(where, f"a value has the wrong type: {error}", "", "see docs/server.md for the settings") from error


def _from_toml(values: Mapping[str, Any]) -> Any:
    message = proto.ModelConfig(max_batch_size=values.get("max_batch_size", 0), backend=values.get("backend", ""))
    message.response_cache.enable = values.get("cache", False)
    versions = values.get("versions", 1)
    if versions == "all":
        message.version_policy.all.SetInParent()
    elif isinstance(versions, list):
        message.version_policy.specific.versions.extend(versions)
    else:
        message.version_policy.latest.num_versions = versions
    if "batching" in values:
        batching = dict(values["batching"])
        target = message.dynamic_batching
        target.SetInParent()
        target.max_queue_delay_microseconds = batching.pop("max_delay_us", 0)
        target.preferred_batch_size.extend(batching.pop("preferred", ()))
        target.preserve_ordering = batching.pop("preserve_ordering", False)
        for key, default in (("adaptive", True), ("auto_delay", True)):
            message.parameters[f"redline.{key}"].string_value = str(bool(batching.pop(key, default))).lower()
        _all_known("batching", batching)
    if "instances" in values:
        instances = dict(values["instances"])
        message.instance_group.add(count=instances.pop("count", 1), kind="KIND_CPU")
        message.parameters["redline.threads"].string_value = str(int(instances.pop("threads", 0)))
        message.parameters["redline.isolated"].string_value = str(bool(instances.pop("isolated", False))).lower()
        _all_known("instances", instances)
    for key, value in values.get("parameters", {}).items():
        message.parameters[key].string_value = str(value)
    return message


def _all_known(table: str, rest: Mapping[str, Any]) -> None:
    if rest:
        raise ValueError(f"[{table}] has no setting {next(iter(rest))!r}")


def to_config(m: Any) -> ModelConfig:
    """What the server does with a message; raises ServeError for what it cannot do."""
    where = f"model {m.name!r}"
    if m.max_batch_size < 0:
        raise invalid(where, f"max_batch_size is {m.max_batch_size}", "allowed: 0 or more")
    if m.HasField("sequence_batching"):
        raise invalid(where, "sequence_batching is not served", "allowed: dynamic_batching, or none", "remove it")
    if m.model_transaction_policy.decoupled:
        raise invalid(where, "decoupled models are not served", "", "remove model_transaction_policy")
    parameters = {key: value.string_value for key, value in m.parameters.items()}
    return ModelConfig(
        name=m.name,
        backend=m.backend or ("ensemble" if m.platform == "ensemble" or m.HasField("ensemble_scheduling") else ""),
        max_batch_size=m.max_batch_size,
        inputs=tuple(_spec(io, where) for io in m.input),
        outputs=tuple(_spec(io, where) for io in m.output),
        batching=_batching(m, parameters, where) if m.HasField("dynamic_batching") and m.max_batch_size > 0 else None,
        instances=_instances(m, parameters, where),
        versions=_versions(m.version_policy, where),
        warmups=tuple(_warmup(w, where) for w in m.model_warmup),
        steps=tuple(
            Step(s.model_name, s.model_version, dict(s.input_map), dict(s.output_map)) for s in m.ensemble_scheduling.step
        ),
        cache=m.response_cache.enable,
        default_file=m.default_model_filename,
        labels={io.name: io.label_filename for io in m.output if io.label_filename},
        parameters=parameters,
        metric_tags=dict(m.metric_tags),
    )


def datatype_name(number: int) -> str:
    """``TYPE_FP32`` as ``FP32``, TYPE_STRING as BYTES; "" for TYPE_INVALID."""
    name = proto.POOL.FindEnumTypeByName("inference.DataType").values_by_number[number].name.removeprefix("TYPE_")
    return {"STRING": "BYTES", "INVALID": ""}.get(name, name)


def datatype_number(name: str) -> int:
    text = "TYPE_" + {"BYTES": "STRING"}.get(name, name)
    return int(proto.POOL.FindEnumTypeByName("inference.DataType").values_by_name[text].number)


def _spec(io: Any, where: str) -> TensorSpec:
    datatype = datatype_name(io.data_type)
    if not io.name or not datatype:
        raise invalid(where, f"tensor {io.name!r} lacks a name or a data_type")
    if any(d < -1 for d in io.dims):
        raise invalid(where, f"tensor {io.name!r} has dims {list(io.dims)}", "allowed: -1 or more")
    return TensorSpec(io.name, datatype, tuple(io.dims), getattr(io, "optional", False))


def _policy(q: Any) -> QueuePolicy:
    return QueuePolicy(q.max_queue_size, q.default_timeout_microseconds, q.allow_timeout_override, q.timeout_action == 1)


def _batching(m: Any, parameters: Mapping[str, str], where: str) -> Batching:
    b = m.dynamic_batching
    for size in b.preferred_batch_size:
        if not 0 < size <= m.max_batch_size:
            raise invalid(where, f"preferred_batch_size {size}", f"allowed: 1..{m.max_batch_size}, max_batch_size")
    if b.default_priority_level > b.priority_levels or (b.priority_levels and not b.default_priority_level):
        raise invalid(where, f"default_priority_level {b.default_priority_level}", f"allowed: 1..{b.priority_levels}")
    return Batching(
        preferred=tuple(sorted(b.preferred_batch_size)),
        max_delay_us=b.max_queue_delay_microseconds,
        preserve_ordering=b.preserve_ordering,
        priority_levels=b.priority_levels,
        default_priority=b.default_priority_level,
        policy=_policy(b.default_queue_policy),
        policies={level: _policy(q) for level, q in b.priority_queue_policy.items()},
        adaptive=parameters.get("redline.adaptive", "true") != "false",
        auto_delay=parameters.get("redline.auto_delay", "true") != "false",
    )


def _instances(m: Any, parameters: Mapping[str, str], where: str) -> Instances:
    if any(group.kind == 1 for group in m.instance_group):
        raise invalid(
            where, "instance_group asks for KIND_GPU", "allowed: KIND_CPU, KIND_AUTO", "this server runs on processors"
        )
    count = sum(max(1, group.count) for group in m.instance_group) or 1
    threads = parameters.get("redline.threads", "0") or "0"
    if not threads.isdecimal() or not count <= 1024:
        raise invalid(where, f"{count} instances of {threads!r} threads", "allowed: whole numbers, at most 1024 instances")
    return Instances(count, int(threads), parameters.get("redline.isolated", "false") == "true")


def _versions(policy: Any, where: str) -> Versions:
    kind = policy.WhichOneof("policy_choice")
    if kind == "all":
        return Versions(all=True)
    if kind == "specific":
        return Versions(specific=tuple(policy.specific.versions))
    latest = policy.latest.num_versions if kind == "latest" else 1
    if not 1 <= latest <= 1 << 20:
        raise invalid(where, f"version_policy latest {latest}", "allowed: 1 or more")
    return Versions(latest=latest)


def _warmup(w: Any, where: str) -> Warmup:
    inputs = []
    for name, data in w.inputs.items():
        kind = data.WhichOneof("input_data_type")
        source = {"zero_data": "zero", "random_data": "random"}.get(kind or "", data.input_data_file)
        if not source:
            raise invalid(where, f"warm-up input {name!r} has no data", "give zero_data, random_data or input_data_file")
        inputs.append(WarmupInput(name, datatype_name(data.data_type), tuple(data.dims), source))
    return Warmup(w.name, max(1, w.batch_size), max(1, w.count), tuple(inputs))
