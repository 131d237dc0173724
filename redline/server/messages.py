"""A protocol message as plain JSON values under its own field names: 64-bit integers as numbers, enumerations by name."""

from typing import Any


def to_plain(message: Any) -> dict[str, Any]:
    """Every field of ``message``, those at their default too, except absent sub-messages and unset members of a oneof."""
    values: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        optional = field.containing_oneof is not None or (field.message_type and not field.is_repeated)
        if optional and not message.HasField(field.name):
            continue
        values[field.name] = _field(field, getattr(message, field.name))
    return values


def _field(field: Any, value: Any) -> Any:
    if not field.is_repeated:
        return _plain(field, value)
    if field.message_type and field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name["value"]
        return {str(key): _plain(entry, item) for key, item in value.items()}
    return [_plain(field, item) for item in value]


def _plain(field: Any, value: Any) -> Any:
    if field.message_type:
        return to_plain(value)
    if field.enum_type:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
