"""The live page in its languages, and for everybody: what axe-core has to say of it."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.live import (
    Open,
    Start,
    looks,
    photograph,
    row,
    start_replica,
    wait_for_marks,
    wait_for_steps,
)
from tests.support.driven import driven
from tests.support.valkey import Valkey


def test_a_reader_of_chinese_finds_no_english(
    valkey: Valkey, program: Start, open_page: Open
) -> None:
    flags = (f"--redis-url={valkey.url}", "--labels=zone=eu,node=n7")
    servers = [start_replica(program, f"web-{one}", *flags, version=f"1.{one}") for one in (1, 2)]
    for server in servers:
        server.visits()
    page = open_page(servers[0].url, locale="zh-CN").page
    expect(page.get_by_role("status")).to_have_text("实时")
    assert page.evaluate("() => document.documentElement.lang") == "zh-CN"
    expect(page).to_have_title("friendlyhello 实时页面")
    expect(page.get_by_role("columnheader", name="主机名")).to_be_visible()
    wait_for_marks(page, "web-2 上线", "1.2 首次出现")
    wait_for_steps(page, 2)
    expect(row(page, "web-1").locator(".labels")).to_have_text("zone=eu、node=n7")
    expect(row(page, "web-1").locator(".seen")).to_have_text(re.compile("现在|前"))
    page.locator("#send").focus()
    page.keyboard.down(" ")
    expect(page.locator("#sent")).to_contain_text("web-1 ×")
    page.keyboard.up(" ")
    servers[1].process.kill()
    with driven(servers[0], rate=10, concurrency=1):
        expect(page.get_by_role("status")).to_have_text("实时；web-2 已失联")
        wait_for_marks(page, "web-2 失联")
    valkey.kill()
    expect(page.get_by_role("status")).to_contain_text(
        "Redis 不可用，计数停用。以下是此前的数据。（"
    )
    text = page.locator("main").inner_text()
    names = {"friendlyhello", "web", "Redis", "redis", "zone", "eu", "node"}
    said = page.get_by_role("status").inner_text().partition("（")[2]  # in the words of the system
    words = set(re.findall("[A-Za-z]{2,}", text.replace(said, ""))) - names
    assert not words
    photograph(page, "chinese")


def test_numbers_and_times_are_those_of_the_browsers_language(
    valkey: Valkey, counting: Start, open_page: Open
) -> None:
    server = start_replica(counting, "web-1", f"--redis-url={valkey.url}")
    valkey.client.set("counter", 12_344)
    server.visits()
    page = open_page(server.url, locale="de-DE").page
    expect(page.locator("#total")).to_have_text("12.345")
    assert page.evaluate("() => document.documentElement.lang") == "en"
    wait_for_marks(page, "web-1 came")
    expect(page.get_by_role("log").locator("time").first).to_have_text(
        re.compile(r"^\d\d:\d\d:\d\d$")
    )


def test_light_and_dark_change_at_once(valkey: Valkey, program: Start, open_page: Open) -> None:
    """Text that fades from one to the other cannot be read meanwhile."""
    server = start_replica(program, "web-1", f"--redis-url={valkey.url}")
    server.visits()
    page = open_page(server.url).page
    expect(page.locator("#total")).to_have_text("1")
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        assert page.evaluate(
            "(dark) => matchMedia('(prefers-color-scheme: dark)').matches === dark",
            scheme == "dark",
        )
        fading = page.evaluate(
            "() => document.getAnimations().map((one) => one.transitionProperty)"
            ".filter((name) => !['width', 'filter'].includes(name))"
        )
        assert not fading


@pytest.mark.parametrize("language", ["en-US", "zh-CN"])
def test_axe_finds_nothing(language: str, valkey: Valkey, program: Start, open_page: Open) -> None:
    flags = (f"--redis-url={valkey.url}", "--faults", "--labels=zone=eu-1")
    servers = [start_replica(program, f"web-{one}", *flags, version=f"1.{one}") for one in (1, 2)]
    for server in servers:
        server.visits()
    page = open_page(servers[0].url, locale=language).page
    wait_for_steps(page, 2)
    page.locator("#send").focus()
    page.keyboard.down(" ")
    expect(page.locator("#squares > svg").nth(2)).to_be_visible()
    page.keyboard.up(" ")
    servers[1].process.kill()
    with driven(servers[0], rate=10, concurrency=1), looks(page) as each:
        expect(row(page, "web-2")).to_have_class("silent")
        for look in each:
            found = Axe().run(page)
            assert found.violations_count == 0, f"{look}: {found.generate_report()}"
    valkey.kill()
    expect(page.get_by_role("status")).to_have_attribute("data-state", "away")
    page.emulate_media(reduced_motion="reduce")  # the grey comes at once
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
