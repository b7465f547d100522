"""The one place that names the message classes of sui.rpc.v2.

They come with pysui, which ships them generated but without types a checker can follow, so they are ``Any``
to the type checker everywhere in this package.
"""

from __future__ import annotations

from typing import Any

import pysui.sui.sui_grpc.suimsgs.google.protobuf as _protobuf
import pysui.sui.sui_grpc.suimsgs.google.rpc as _rpc
import pysui.sui.sui_grpc.suimsgs.sui.rpc.v2 as _v2

v2: Any = _v2
protobuf: Any = _protobuf
rpc: Any = _rpc

Message = Any


def value(json: Any) -> Message:
    """A JSON value as ``google.protobuf.Value``."""
    match json:
        case None:
            return protobuf.Value(null_value=protobuf.NullValue(0))
        case bool():
            return protobuf.Value(bool_value=json)
        case int() | float():
            return protobuf.Value(number_value=float(json))
        case str():
            return protobuf.Value(string_value=json)
        case list() | tuple():
            items = [value(item) for item in json]
            return protobuf.Value(list_value=protobuf.ListValue(values=items))
        case dict():
            fields = {key: value(item) for key, item in json.items()}
            return protobuf.Value(struct_value=protobuf.Struct(fields=fields))
    raise TypeError(f"no JSON value: {type(json).__name__}")
