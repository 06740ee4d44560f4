"""Values to bytes and back: the same as a redis-py service that follows the rules of the shared keys."""

from __future__ import annotations

import json
import math
import sys
from collections import OrderedDict
from datetime import datetime, timezone
from decimal import Decimal
from enum import Enum, IntEnum

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import mtcache


def redis_py_writes(value) -> bytes:
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else json.dumps(value, default=str)).encode()


def redis_py_reads(stored: bytes):
    text = stored.decode()
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


texts = st.text(alphabet=st.characters(codec="utf-8"))
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**300), max_value=2**300)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=20)


def same(a, b) -> bool:
    """Equal, of equal types, floats to the bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return a.hex() == b.hex() or (math.isnan(a) and math.isnan(b))
    return a == b


@given(values)
@example(5e-324)
@example(1.7976931348623157e308)
@example(-0.0)
@example(2**63)
@example(-(2**63) - 1)
@example("\x00\x1f\"\\/\u2028\U0001f600")
@settings(max_examples=500, deadline=None)
def test_what_we_write_redis_py_reads_and_so_do_we(value):
    stored = mtcache.encode(value)
    read = redis_py_reads(stored)
    assert same(read, redis_py_reads(redis_py_writes(value)))
    assert same(mtcache.decode(stored), read)


@given(values)
@settings(max_examples=500, deadline=None)
def test_what_redis_py_writes_we_read(value):
    stored = redis_py_writes(value)
    assert same(mtcache.decode(stored), redis_py_reads(stored))


json_like = st.lists(
    st.sampled_from(list('{}[]",:\\ \t\n') + ["null", "true", "NaN", "-", "Infinity", "0", "1", ".", "e", "+", "u00e9", "ud800", "udc00"])
).map("".join)


@given(texts | json_like | values.map(json.dumps))
@example("01")
@example("-0")
@example("1e400")
@example("[1,]")
@example('{"a":1,"a":2}')
@example('"\\ud83d\\ude00"')
@example('"\\ud800"')
@example('"\\ud800\\u0041"')
@example('"\\u12"')
@example("-Infinity")
@example("\ufeff1")
@example("1 2")
@example('"a\nb"')
@settings(max_examples=2000, deadline=None)
def test_any_text_is_read_as_json_loads_reads_it(text):
    assert same(mtcache.decode(text.encode()), redis_py_reads(text.encode()))


@given(st.binary())
def test_any_bytes_are_read_and_bytes_come_back(data):
    assert mtcache.encode(data) == data
    try:
        expected = redis_py_reads(data)
    except UnicodeDecodeError:
        expected = data
    assert same(mtcache.decode(data), expected)


class Side(Enum):
    BUY = "buy"


class Level(IntEnum):
    HIGH = 3


class Name(str):
    pass


@pytest.mark.parametrize(
    "value",
    [
        Decimal("1.10"),
        {"at": datetime(2026, 1, 2, tzinfo=timezone.utc), "price": Decimal("0.1"), "side": Side.BUY, "level": Level.HIGH},
        {1: "int", 1.5: "float", True: "bool", None: "none", Level.HIGH: "enum"},
        (1, (2, [3])),
        OrderedDict(b=1, a=2),
        Name("text"),
        [Name("text")],
        True,
        {"nested": b"bytes"},
        ["half \ud800 a pair"],
        {"\udfff": 1},
    ],
)
def test_what_json_has_no_form_for_is_written_as_str_as_redis_py_services_do(value):
    assert same(redis_py_reads(mtcache.encode(value)), redis_py_reads(redis_py_writes(value)))


@pytest.mark.parametrize("hidden", [lambda x: x, lambda x: [x], lambda x: {"a": [1, {"b": x}]}, lambda x: {x: 1}])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_nan_and_infinities_are_refused_with_a_clear_error(hidden, number):
    with pytest.raises(mtcache.UnencodableError, match="finite"):
        mtcache.encode(hidden(number))


def test_what_contains_itself_or_has_no_names_is_refused():
    loop = []
    loop.append(loop)
    for value in (loop, {(1, 2): 3}, "half \ud800"):
        with pytest.raises(mtcache.UnencodableError):
            mtcache.encode(value)


def test_deep_values_come_back_and_deeper_ones_are_refused():
    deep = []
    for _ in range(900):
        deep = [deep]
    assert mtcache.decode(mtcache.encode(deep)) == deep
    with pytest.raises(mtcache.UndecodableError, match="nests"):
        mtcache.decode(b"[" * 5000 + b"]" * 5000)


def test_a_big_integer_is_exact_up_to_what_python_reads():
    number = 7 ** 4000
    assert mtcache.decode(mtcache.encode(number)) == number
    if hasattr(sys, "get_int_max_str_digits"):
        with pytest.raises(mtcache.UnencodableError):
            mtcache.encode(10 ** 5000)


def test_every_read_gives_an_object_of_its_own():
    stored = mtcache.encode({"a": [1]})
    one, other = mtcache.decode(stored), mtcache.decode(stored)
    assert one == other and one is not other and one["a"] is not other["a"]
