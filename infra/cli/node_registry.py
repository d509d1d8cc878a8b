"""`fw node register|token|list|mode|revoke`: the registry of nodes, through the API. With the operator's token, or a tenant's."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

Name = Annotated[str, typer.Argument(help="The node, such as fra-1.", show_default=False)]
Platform = Annotated[
    str, typer.Option("--platform", envvar="FW_PLATFORM", help="The platform's URL; left out: the running `fw up`.")
]
ApiToken = Annotated[
    str, typer.Option("--api-token", envvar="FW_API_TOKEN", help="The operator's or a tenant's; left out: the running `fw up`'s.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Region = Annotated[str | None, typer.Option(help="Where it stands, as you call it.")]
Latitude = Annotated[float | None, typer.Option(help="Degrees north.")]
Longitude = Annotated[float | None, typer.Option(help="Degrees east.")]
BaseUrl = Annotated[str | None, typer.Option(help="What viewers' URLs on it begin with.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="For rules about which node serves whom; repeat for more.")]
Tenants = Annotated[list[str] | None, typer.Option("--tenant", metavar="UUID", help="Whom it serves; left out: everybody.")]

Answer = Mapping[str, object]
SECONDS: Final = 30.0
_ERRORS: Final = "... on Error { code message }"
_REGISTER: Final = f"""mutation ($input: RegisterNodeInput!) {{ done: registerNode(input: $input) {{
  __typename ... on RegisterNodeSuccess {{ nodeId }} {_ERRORS} }} }}"""
_TOKEN: Final = f"""mutation ($input: IssueEnrolmentTokenInput!) {{ done: issueEnrolmentToken(input: $input) {{
  __typename ... on IssueEnrolmentTokenSuccess {{ nodeId token }} {_ERRORS} }} }}"""
_MODE: Final = f"""mutation ($input: SetNodeModeInput!) {{ done: setNodeMode(input: $input) {{
  __typename ... on SetNodeModeSuccess {{ nodeId mode }} {_ERRORS} }} }}"""
_REVOKE: Final = f"""mutation ($input: RevokeNodeInput!) {{ done: revokeNode(input: $input) {{
  __typename ... on RevokeNodeSuccess {{ nodeId }} {_ERRORS} }} }}"""
_LIST: Final = """query ($after: String) { nodes(first: 100, after: $after) { pageInfo { hasNextPage endCursor } nodes {
  id region mode enrolment certificateUntil tokenUntil tags tenants baseUrl } } }"""


def register(
    name: Name,
    region: Region = None,
    latitude: Latitude = None,
    longitude: Longitude = None,
    base_url: BaseUrl = None,
    tag: Tags = None,
    tenant: Tenants = None,
    platform: Platform = "",
    api_token: ApiToken = "",
    as_json: AsJson = False,
) -> None:
    """Make a node known to the platform. Then `fw node token`, and `fw edge enroll` on the machine.

    Examples:

    \b
      fw node register fra-1 --region eu-west --latitude 50.1 --longitude 8.7 --base-url https://fra-1.example.org
      fw node register studio --tenant 0190f3a2-5c1e-7d2a-8a55-2f6f0e1a7c11 --tag gpu
    """
    described = {"region": region, "latitude": latitude, "longitude": longitude, "baseUrl": base_url, "tags": tag or []}
    done = _decided(platform, api_token, _REGISTER, {"name": name, "tenants": tenant or None, **described}, as_json)
    _say(as_json, {"nodeId": done["nodeId"]}, f"registered {done['nodeId']}; next: fw node token {done['nodeId']}")


def token(
    name: Name,
    valid_seconds: Annotated[int, typer.Option(help="How long it is good, 60 to 604800.")] = 3600,
    platform: Platform = "",
    api_token: ApiToken = "",
    as_json: AsJson = False,
) -> None:
    """Issue a token with which the node is enrolled once. It is shown here and never again; the one before ends.

    Examples:

    \b
      fw node token fra-1
      ssh fra-1 sudo fw edge enroll --platform https://platform.example.org --token "$(fw node token fra-1)"
    """
    done = _decided(platform, api_token, _TOKEN, {"nodeId": name, "validSeconds": valid_seconds}, as_json)
    _say(as_json, {"nodeId": done["nodeId"], "token": done["token"]}, str(done["token"]))


def mode(
    name: Name,
    wanted: Annotated[str, typer.Argument(help="active, draining or maintenance.", show_default=False)],
    platform: Platform = "",
    api_token: ApiToken = "",
    as_json: AsJson = False,
) -> None:
    """Say what a node is for: active; draining, nobody new comes; maintenance, nobody stays.

    Examples:

    \b
      fw node mode fra-1 draining
    """
    if wanted.upper() not in ("ACTIVE", "DRAINING", "MAINTENANCE"):
        raise typer.BadParameter("a node is active, draining or in maintenance")
    done = _decided(platform, api_token, _MODE, {"nodeId": name, "mode": wanted.upper()}, as_json)
    _say(as_json, {"nodeId": done["nodeId"], "mode": done["mode"]}, f"{done['nodeId']} is {str(done['mode']).lower()}")


def revoke(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why, for people: it stands in the log.")],
    platform: Platform = "",
    api_token: ApiToken = "",
    as_json: AsJson = False,
) -> None:
    """Cut a node off within a second. It comes back by being enrolled anew.

    Examples:

    \b
      fw node revoke fra-1 --reason "the machine was stolen"
    """
    done = _decided(platform, api_token, _REVOKE, {"nodeId": name, "reason": reason}, as_json)
    _say(as_json, {"nodeId": done["nodeId"]}, f"revoked {done['nodeId']}")


def listed(platform: Platform = "", api_token: ApiToken = "", as_json: AsJson = False) -> None:
    """Show your nodes: what each is for, and until when its certificate is good.

    Examples:

    \b
      fw node list
      fw node list --json | jq -r '.[] | select(.enrolment != "ENROLLED") | .id'
    """
    found: list[Answer] = []
    after: object = None
    while True:
        page = _asked(platform, api_token, _LIST, {"after": after}, as_json)["nodes"]
        assert isinstance(page, dict)
        found += page["nodes"]
        if not page["pageInfo"]["hasNextPage"]:
            break
        after = page["pageInfo"]["endCursor"]
    if as_json:
        typer.echo(json.dumps(found))
        return
    typer.echo(f"{'NODE':<24}{'MODE':<13}{'ENROLMENT':<11}{'CERTIFICATE UNTIL':<22}REGION")
    for node in found:
        until = str(node["certificateUntil"] or "")[:19]
        typer.echo(f"{node['id']:<24}{node['mode']:<13}{node['enrolment']:<11}{until:<22}{node['region'] or ''}")


def _decided(platform: str, api_token: str, mutation: str, given: Answer, as_json: bool) -> Answer:
    done = _asked(platform, api_token, mutation, {"input": given}, as_json)["done"]
    assert isinstance(done, dict)
    if done["__typename"] == "PendingResult":
        _end("PENDING", "the platform has not decided in time: look with `fw node list`, and try again", as_json, 3)
    if "code" in done:
        _end(done["code"], done["message"], as_json, 1)
    return done


def _asked(platform: str, api_token: str, query: str, variables: Answer, as_json: bool) -> Answer:
    """`data` of an answer; anything else ends the command with a sentence."""
    import httpx

    from streams.settings import SettingsError, stack_file

    try:
        stack = stack_file(Path(os.environ.get("FW_DATA_DIR", "data"))) if not (platform and api_token) else {}
    except SettingsError as error:
        _end("NO_PLATFORM", str(error), as_json, 1)
    url = f"{platform.rstrip('/')}/graphql" if platform else str(stack.get("graphql", ""))
    credential = api_token or str(stack.get("operator_token", ""))
    if not url or not credential:
        _end(
            "NO_PLATFORM",
            "which platform? Say --platform and --api-token, or start `fw up`",
            as_json,
            1,
        )
    try:
        headers = {"Authorization": f"Bearer {credential}"}
        answer = httpx.post(url, json={"query": query, "variables": variables}, headers=headers, timeout=SECONDS).json()
        if errors := answer.get("errors"):
            _end(errors[0].get("extensions", {}).get("code", "ERROR"), errors[0]["message"], as_json, 1)
        data: Answer = answer["data"]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, AttributeError) as error:
        _end("UNAVAILABLE", f"{url} does not answer as a platform does: {error!r}", as_json, 3)
    return data


def _say(as_json: bool, data: Answer, sentence: str) -> None:
    typer.echo(json.dumps(data) if as_json else sentence)


def _end(code: object, message: object, as_json: bool, exit_code: int) -> NoReturn:
    typer.echo(json.dumps({"error": code, "message": message}) if as_json else f"fw: {message}", err=not as_json)
    raise typer.Exit(exit_code)
