"""The explorer in a real browser: it loads from the gateway alone, knows the schema, and its examples run.

Needs a Chromium on the PATH (Debian's `chromium`); `.ci/run` installs it. Without one the test says so and is skipped.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.platform import Platform

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH: apt-get install chromium")


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(180_000)
        yield page
        browser.close()


def test_the_explorer_knows_the_schema_and_runs_its_examples(platform: Platform, page: Page) -> None:
    asked, problems = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(platform.up["graphql"])
    # introspection worked: the documentation lists our query root
    page.get_by_role("button", name=re.compile("Documentation Explorer")).click()
    page.get_by_text("Mutation", exact=True).first.wait_for()
    # the first example, with the operator's token where "Headers" has a place for it
    headers = page.locator(".graphiql-editor-tool .CodeMirror:visible")
    headers.get_by_text("Bearer PASTE_THE_TOKEN_HERE").click()
    page.keyboard.press("ControlOrMeta+A")
    page.keyboard.insert_text(json.dumps({"Authorization": f"Bearer {platform.up['operator_token']}"}))
    page.get_by_role("button", name=re.compile("Execute query")).click()
    choice = page.get_by_role("menuitem", name="Me")
    choice.click()
    page.locator(".graphiql-response").get_by_text('"OPERATOR"').wait_for()
    assert problems == []
    foreign = [url for url in asked if urlsplit(url).netloc not in ("", urlsplit(platform.up["graphql"]).netloc)]
    assert foreign == [], "nothing may come from the internet"
