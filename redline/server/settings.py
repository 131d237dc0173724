"""Settings that clients may change while the server runs: those of the trace extension and of the logging extension."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from redline.base.errors import closest
from redline.base.log import logger
from redline.server.errors import ServeError, invalid

TRACE_DEFAULTS: dict[str, list[str]] = {
    "trace_file": [""], "trace_level": ["OFF"], "trace_rate": ["1000"], "trace_count": ["-1"], "log_frequency": ["0"],
    "trace_mode": ["triton"],
}  # fmt: skip
LEVELS = ("OFF", "TIMESTAMPS", "TENSORS")
FIXED = ("trace_file", "trace_mode")
LOG_FORMATS = ("default", "ISO8601")
LOG_DEFAULTS: dict[str, Any] = {
    "log_file": "", "log_info": True, "log_warning": True, "log_error": True, "log_verbose_level": 0, "log_format": "default",
}  # fmt: skip


class TraceSettings:
    """The settings of the server, and those that differ for a model. ``version`` grows with every change."""

    def __init__(self, **start: str) -> None:
        self._global = {key: list(values) for key, values in TRACE_DEFAULTS.items()}
        for key, value in start.items():
            self._global[key] = [value]
        self._models: dict[str, dict[str, list[str]]] = {}
        self.version = 0

    def of(self, model: str = "") -> dict[str, list[str]]:
        return {**self._global, **self._models.get(model, {})}

    def any_on(self) -> bool:
        """Whether some request may be traced."""
        return any("OFF" not in self.of(model)["trace_level"] for model in ["", *self._models])

    def change(self, model: str, changes: Mapping[str, Sequence[str] | None]) -> dict[str, list[str]]:
        """Sets what is named; None takes a setting back. Nothing changes when one value is wrong."""
        checked = {key: self._check(key, values) for key, values in changes.items()}
        target = self._models.setdefault(model, {}) if model else self._global
        for key, values in checked.items():
            if values:
                target[key] = values
            elif model:
                target.pop(key, None)
            else:
                target[key] = list(TRACE_DEFAULTS[key])
        self.version += 1
        return self.of(model)

    @staticmethod
    def _check(key: str, values: Sequence[str] | None) -> list[str]:
        if key not in TRACE_DEFAULTS:
            raise invalid("trace settings", f"there is no setting {key[:80]!r}", closest(key[:80], TRACE_DEFAULTS))
        if key in FIXED:
            raise invalid(
                "trace settings", f"{key} cannot be changed through the protocol", "", "set it when the server starts"
            )
        if not values:
            return []
        if key == "trace_level":
            bad = next((v for v in values if v not in LEVELS), None)
            if bad is not None:
                raise invalid("trace settings", f"trace_level {bad[:40]!r}", f"allowed: {', '.join(LEVELS)}")
            return list(values)
        lowest = {"trace_rate": 1, "trace_count": -1, "log_frequency": 0}[key]
        if len(values) != 1 or not _is_integer(values[0]) or int(values[0]) < lowest:
            raise invalid(
                "trace settings", f"{key} is {', '.join(values)[:40]!r}", f"allowed: one whole number from {lowest} on"
            )
        return list(values)


def _is_integer(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and text.isascii() and len(text) < 19


class LogSettings:
    """What of the package's logger is printed."""

    def __init__(self) -> None:
        self.values = dict(LOG_DEFAULTS)
        self._apply()

    def change(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Sets what is named, all of it or nothing; the settings that hold now."""
        for key, value in changes.items():
            self._check(key, value)
        self.values.update(changes)
        self._apply()
        return dict(self.values)

    @staticmethod
    def _check(key: str, value: Any) -> None:
        if key not in LOG_DEFAULTS:
            raise invalid("log settings", f"there is no setting {key[:80]!r}", closest(key[:80], LOG_DEFAULTS))
        if key == "log_file":
            raise _refuse(key, "changed through the protocol; set it when the server starts")
        wanted = type(LOG_DEFAULTS[key])
        if type(value) is not wanted:
            raise invalid("log settings", f"{key} is {str(value)[:40]!r}", f"expected {wanted.__name__}")
        if key == "log_format" and value not in LOG_FORMATS:
            raise invalid("log settings", f"log_format {value[:40]!r}", f"allowed: {', '.join(LOG_FORMATS)}")
        if key == "log_verbose_level" and not 0 <= value <= 100:
            raise invalid("log settings", f"log_verbose_level {value}", "allowed: 0..100")

    def _apply(self) -> None:
        wanted = {logging.INFO: self.values["log_info"], logging.WARNING: self.values["log_warning"]}
        wanted |= {logging.ERROR: self.values["log_error"], logging.DEBUG: self.values["log_verbose_level"] > 0}
        for old in [f for f in logger.filters if isinstance(f, _Only)]:
            logger.removeFilter(old)
        logger.addFilter(_Only(wanted))
        logger.setLevel(logging.DEBUG if wanted[logging.DEBUG] else logging.INFO)


class _Only(logging.Filter):
    """Lets the levels through that are wanted."""

    def __init__(self, wanted: Mapping[int, bool]) -> None:
        super().__init__()
        self._wanted = dict(wanted)

    def filter(self, record: logging.LogRecord) -> bool:
        return self._wanted.get(record.levelno, True)


def _refuse(key: str, why: str) -> ServeError:
    return invalid("log settings", f"{key} cannot be {why}")
