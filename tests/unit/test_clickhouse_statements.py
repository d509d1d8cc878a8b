"""What the HTTP door understands of statements and bodies."""

from __future__ import annotations

import lz4.frame
import pytest

from infra.embedded.clickhouse_statements import identifier, literal, lz4_decompress, multipart, split_insert


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (b"INSERT INTO t FORMAT Native\n\x01\x02", ("INSERT INTO t ", "", "Native", b"\x01\x02")),
        (
            b"INSERT INTO t (a, `b c`) SETTINGS x = 'FORMAT' FORMAT CSV\n1,2",
            ("INSERT INTO t (a, `b c`) ", "SETTINGS x = 'FORMAT' ", "CSV", b"1,2"),
        ),
        (
            b"/* INSERT */ insert into t -- FORMAT x\n format Avro\nObj",
            ("/* INSERT */ insert into t -- FORMAT x\n ", "", "Avro", b"Obj"),
        ),
    ],
)
def test_an_insert_is_split_from_its_data(sql: bytes, expected: tuple[str, str, str, bytes]) -> None:
    found = split_insert(sql)
    assert found is not None
    head, settings, data_format, offset = found
    assert (head, settings, data_format, sql[offset:]) == expected


@pytest.mark.parametrize(
    "sql",
    [
        b"SELECT 1 FORMAT JSON",
        b"INSERT INTO t VALUES (1)",
        b"INSERT INTO t SELECT 'FORMAT Native'",
        b"INSERT INTO t FORMAT VALUES (1)",
        b"",
    ],
)
def test_everything_else_is_for_the_engine(sql: bytes) -> None:
    assert split_insert(sql) is None


def test_every_lz4_frame_is_read() -> None:
    assert lz4_decompress(lz4.frame.compress(b"one") + lz4.frame.compress(b"two")) == b"onetwo"
    with pytest.raises(ValueError, match="cut short"):
        lz4_decompress(lz4.frame.compress(b"one" * 1000)[:-5])


def test_parts_of_a_form_keep_their_bytes() -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="'
    body = head + b'query"\r\n\r\nSELECT 1\r\n' + head + b't"; filename="t"\r\n\r\n1\t\xff\r\n--x--\r\n'
    assert multipart("multipart/form-data; boundary=x", body) == [("query", b"SELECT 1"), ("t", b"1\t\xff")]


def test_quoting() -> None:
    assert literal("a'b\\") == "'a\\'b\\\\'"
    assert identifier("a`b") == "`a\\`b`"
