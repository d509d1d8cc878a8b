"""A hostile or clumsy client at the API: every answer has a stable code and a plain sentence, and none says what is inside."""

from __future__ import annotations

import base64
import json
import secrets
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.platform import Json, Platform

TITLES = "query ($title: String, $after: String) { streams(title: $title, after: $after) { totalCount } }"
OVER_TIME = """query ($id: ID!, $from: DateTime!) { stream(id: $id) {
  viewersOverTime(from: $from, to: "2026-01-01T00:00:00Z", step: 60) { at } } }"""
CREATE = """mutation ($input: CreateStreamInput!) { createStream(input: $input) { __typename
  ... on CreateStreamSuccess { streamKey position stream { id title } } ... on Error { code message }
  ... on ValidationError { field } } }"""


def cursor(kind: str, *key: object) -> str:
    return base64.urlsafe_b64encode(json.dumps([kind, *key]).encode()).decode().rstrip("=")


def ask(platform: Platform, document: str, variables: Json, token: str) -> Json:
    headers = {"Authorization": f"Bearer {token}"}
    answer = platform.http.post(platform.up["graphql"], json={"query": document, "variables": variables}, headers=headers)
    assert answer.status_code == 200
    body: Json = answer.json()
    return body


def code_of(body: Json) -> str:
    (error,) = body["errors"]
    assert "Traceback" not in error["message"]
    return str(error["extensions"]["code"])


@pytest.fixture(scope="module")
def token(platform: Platform) -> str:
    return platform.create_tenant()


@pytest.mark.parametrize(
    ("document", "variables", "code"),
    [
        ("{ " + "a { " * 50 + "b" + " }" * 51, {}, "QUERY_TOO_DEEP"),
        ("{ streams(title: " + "[" * 1900 + "]" * 1900 + ") { totalCount } }", {}, "GRAPHQL_PARSE_FAILED"),
        ("{ " + " ".join(f"a{n}: viewer {{ kind }}" for n in range(31)) + " }", {}, "TOO_MANY_ALIASES"),
        ("{ " + "viewer { kind } " * 1200 + " }", {}, "GRAPHQL_PARSE_FAILED"),
        ("{ " + "streams { nodes { id } } " * 440 + " }", {}, "GRAPHQL_VALIDATION_FAILED"),
        ("{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }", {}, "GRAPHQL_VALIDATION_FAILED"),
        ("{ viewer { kind } }" + " " * 70_000, {}, "QUERY_TOO_LONG"),
        ("{ streams(first: " + "9" * 5000 + ") { totalCount } }", {}, "GRAPHQL_VALIDATION_FAILED"),
        (TITLES, {"title": "a\0b"}, "BAD_USER_INPUT"),
        (TITLES, {"after": "?"}, "BAD_CURSOR"),
        (TITLES, {"after": cursor("sessions", 1, "060e9bab-97f3-58dc-b7e5-ca4c931790bc")}, "BAD_CURSOR"),
        (TITLES, {"after": cursor("streams", 1, "nothing")}, "BAD_CURSOR"),
        (TITLES, {"after": cursor("streams", 1 << 62, "060e9bab-97f3-58dc-b7e5-ca4c931790bc")}, "BAD_CURSOR"),
        (TITLES, {"after": cursor("streams", -(1 << 50), "060e9bab-97f3-58dc-b7e5-ca4c931790bc")}, "BAD_CURSOR"),
        (TITLES, {"after": cursor("streams", 253_402_300_800_000, "060e9bab-97f3-58dc-b7e5-ca4c931790bc")}, "BAD_CURSOR"),
        (OVER_TIME, {"id": "x", "from": "0001-01-01T00:00:00+14:00"}, "BAD_USER_INPUT"),
        ("query ($f: Int) { streams(first: $f) { totalCount } }", {"f": -1}, "BAD_USER_INPUT"),
        ("query ($f: Int) { streams(first: $f) { totalCount } }", {"f": 10**9}, "BAD_USER_INPUT"),
        ("query ($p: Position) { streams(afterPosition: $p) { totalCount } }", {"p": "1-" + "9" * 30}, "BAD_USER_INPUT"),
    ],
)
def test_what_cannot_be_is_refused_with_a_code(platform: Platform, token: str, document: str, variables: Json, code: str) -> None:
    began = time.monotonic()
    assert code_of(ask(platform, document, variables, token)) == code
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    ("method", "query", "content", "kind", "status", "code"),
    [
        ("POST", "", b"x" * 10_000_000, "application/json", 413, "BODY_TOO_LARGE"),
        ("POST", "", b'{"query": "{viewer{kind}}"}', "text/plain", 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("POST", "", b"[" * 100_000, "application/json", 400, "BAD_USER_INPUT"),
        ("POST", "", b'{"query": "\\ud800"}', "application/json", 400, "BAD_USER_INPUT"),
        ("GET", "?" + "&".join(f"a{n}=1" for n in range(30)), b"", "", 400, "BAD_USER_INPUT"),
        ("GET", "?query={viewer{kind}}&variables=x", b"", "", 400, "BAD_USER_INPUT"),
        ("PUT", "", b"", "", 405, "BAD_USER_INPUT"),
    ],
)
def test_what_is_no_request_is_refused_with_a_code(
    platform: Platform, method: str, query: str, content: bytes, kind: str, status: int, code: str
) -> None:
    answer = platform.http.request(method, platform.up["graphql"] + query, content=content, headers={"Content-Type": kind})
    assert (answer.status_code, code_of(answer.json())) == (status, code)


@pytest.mark.parametrize("title", ["", " ", "a\0b", "a\nb", "\u200b", "\ufeff\u200d", "safe\u202egnp.exe", "x" * 201])
def test_a_title_is_something_visible_on_one_line(platform: Platform, token: str, title: str) -> None:
    made = ask(platform, CREATE, {"input": {"title": title}}, token)["data"]["createStream"]
    assert (made["__typename"], made["code"], made["field"]) == ("ValidationError", "TITLE_INVALID", "title")


def test_the_same_client_key_at_the_same_moment_makes_one_stream(platform: Platform, token: str) -> None:
    other, key = platform.create_tenant("Other"), secrets.token_hex(8)
    answers = _at_once(platform, [(token, "same", key)] * 8 + [(other, "same", key)] * 8)
    # where its outcome stands may differ: a command that came again was answered again
    mine, theirs = ({(a["stream"]["id"], a["streamKey"]) for a in half} for half in (answers[:8], answers[8:]))
    assert len(mine) == len(theirs) == 1
    assert mine.isdisjoint(theirs)


def test_the_same_client_key_with_other_contents_never_makes_two_streams(platform: Platform, token: str) -> None:
    key = secrets.token_hex(8)
    answers = _at_once(platform, [(token, f"title {n}", key) for n in range(8)])
    assert len({a["stream"]["id"] for a in answers if a["__typename"] == "CreateStreamSuccess"}) == 1
    assert {a["__typename"] for a in answers} <= {"CreateStreamSuccess", "ConflictError"}


def _at_once(platform: Platform, calls: list[tuple[str, str, str]]) -> list[Json]:
    def call(each: tuple[str, str, str]) -> Json:
        token, title, key = each
        with httpx.Client(timeout=180) as client:
            variables = {"input": {"title": title, "slug": f"s-{key}", "clientMutationId": key}}
            answer = client.post(
                platform.up["graphql"],
                json={"query": CREATE, "variables": variables},
                headers={"Authorization": f"Bearer {token}"},
            )
        made: Json = answer.json()["data"]["createStream"]
        return made

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(call, calls))


@pytest.mark.parametrize(
    ("mutation", "more"), [("renameStream", {"title": "Mine now"}), ("rotateStreamKey", {}), ("deleteStream", {})]
)
def test_a_foreign_stream_does_not_exist(platform: Platform, token: str, mutation: str, more: Json) -> None:
    owner = platform.create_tenant("Owner")
    stream_id, _ = platform.create_stream(owner)
    kind = f"{mutation[0].upper()}{mutation[1:]}Input"
    document = f"mutation ($input: {kind}!) {{ {mutation}(input: $input) {{ __typename ... on Error {{ code }} }} }}"
    asked = {"input": {"streamId": stream_id, **more}}
    assert ask(platform, document, asked, token)["data"][mutation] == {"__typename": "NotFoundError", "code": "STREAM_NOT_FOUND"}
    forbidden = {"__typename": "AuthError", "code": "FORBIDDEN"}
    assert ask(platform, document, asked, platform.up["operator_token"])["data"][mutation] == forbidden
    stream = ask(platform, "query ($id: ID!) { stream(id: $id) { title } }", {"id": stream_id}, owner)["data"]["stream"]
    assert stream == {"title": "Lobby"}
    assert ask(platform, "query ($id: ID!) { stream(id: $id) { id } }", {"id": stream_id}, token)["data"]["stream"] is None


def test_only_the_operator_makes_tenants(platform: Platform, token: str) -> None:
    document = 'mutation { createTenant(input: {name: "x"}) { __typename ... on Error { code } } }'
    assert ask(platform, document, {}, token)["data"]["createTenant"]["code"] == "FORBIDDEN"
    assert ask(platform, document, {}, "fwt_aaaaaaaa_" + "a" * 32)["data"]["createTenant"]["code"] == "UNAUTHENTICATED"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/schemas/ids/99999", 404, 40403),
        ("/schemas/ids/" + "9" * 5000, 404, 40403),
        ("/schemas/ids/%D9%A3", 404, 40403),
        ("/subjects/nope/versions", 404, 40401),
        ("/subjects/fw.facts.IngestStarted/versions/7", 404, 40402),
        ("/subjects/fw.facts.IngestStarted/versions/" + "9" * 5000, 422, 42202),
    ],
)
def test_what_the_schema_registry_does_not_have(platform: Platform, path: str, status: int, code: int) -> None:
    answer = platform.http.get(platform.up["schema_registry"] + path)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code)
