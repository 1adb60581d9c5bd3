"""The page in a browser, by its keyboard: whole sessions, ends of the server, two people."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from orchestrator.contract.labels import RoundManifest
from orchestrator.contract.rounds import settled, write_round
from tests.labels.browser import CHROMIUM, Browser
from tests.labels.made import asked_of_people, drawn, made_round
from tests.labels.served import Served, stored

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
HOSTILE = "</script><img src=x onerror=document.title='caught'> {{ 7 * 7 }}"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path / "browser") as made:
        yield made


@pytest.fixture
def exchange(tmp_path: Path, settings: object) -> Path:
    folder = tmp_path / "exchange"
    folder.mkdir()
    return folder


def begin(browser: Browser, link: str) -> None:
    browser.open(link)
    browser.until("!document.getElementById('task').hidden || !document.getElementById('over').hidden")


def shown(browser: Browser) -> list[str]:
    """Return the ids of the pictures that are on the page, once these are drawn."""
    browser.until("[...document.querySelectorAll('main:not([hidden]) img')].every((one) => one.naturalWidth)")
    sources = browser.value("[...document.querySelectorAll('main:not([hidden]) img')].map((one) => one.src)")
    return [source.rpartition("/")[2] for source in sources]


def press(browser: Browser, key: str, count: str, *, control: bool = False) -> None:
    """Press a key, and wait until so many are done."""
    browser.press(key, control=control)
    browser.until(f"document.getElementById('count').textContent === '{count}' && !document.body.ariaBusy")


def test_a_session_by_keyboard_alone_whose_server_is_killed_loses_nothing(browser: Browser, exchange: Path) -> None:
    manifest = made_round(exchange, count=3)
    given: dict[str, int] = {}
    with Served(exchange) as server:
        browser.open(server.links[""])
        browser.until("document.activeElement.id === 'by'")
        for letter in "ada":
            browser.press(letter)
        browser.press("Enter")
        browser.until("document.getElementById('task') && !document.getElementById('task').hidden")
        for done, key in enumerate("531", 1):
            [sample] = shown(browser)
            given[sample] = int(key)
            press(browser, key, f"{done} of 6")
        server.kill()
    interrupted = shown(browser)
    browser.press("4")  # nobody hears it: it is no label, and the page says so
    browser.until("!document.getElementById('alert').hidden")
    assert "not stored yet" in browser.value("document.getElementById('alert').textContent")
    assert len(stored(exchange)) == 3
    with Served(exchange, "--by", "ada") as server:
        begin(browser, server.links["ada"])
        asked = [one["params"]["type"] for one in browser.events if one.get("method") == "Page.javascriptDialogOpening"]
        assert asked == ["beforeunload"]  # nobody leaves a label behind unasked
        assert shown(browser) == interrupted
        for done, key in enumerate("245", 4):
            [sample] = shown(browser)
            given[sample] = int(key)
            press(browser, key, f"{done} of 6")
        browser.until("!document.getElementById('over').hidden")
        assert "All done" in browser.value("document.activeElement.textContent")
    ratings = settled(exchange, manifest).ratings
    assert {sample: dict(rating.by) for sample, rating in ratings.items()} == {
        sample: {"ada": rating} for sample, rating in given.items()
    }
    assert len(stored(exchange)) == 6
    assert browser.hosts(lambda address: str(urlsplit(address).hostname)) <= {"127.0.0.1", "None"}


def test_undo_takes_back_and_shows_the_same_picture_also_after_a_reload(browser: Browser, exchange: Path) -> None:
    manifest = made_round(exchange)
    with Served(exchange, "--by", "ada") as server:
        begin(browser, server.links["ada"])
        first = shown(browser)
        press(browser, "1", "1 of 6")
        second = shown(browser)
        assert first != second
        press(browser, "u", "0 of 6")
        assert shown(browser) == first
        press(browser, "4", "1 of 6")
        begin(browser, server.links["ada"])
        assert shown(browser) == second
        press(browser, "z", "0 of 6", control=True)
        assert shown(browser) == first
        assert settled(exchange, manifest).ratings == {}
        press(browser, "5", "1 of 6")
    assert settled(exchange, manifest).ratings[first[0]].by == {"ada": 5}


def test_what_is_skipped_is_no_label_and_can_be_shown_again(browser: Browser, exchange: Path) -> None:
    made_round(exchange, count=1)
    with Served(exchange, "--by", "ada") as server:
        begin(browser, server.links["ada"])
        [skipped] = shown(browser)
        browser.press(" ")
        browser.until("document.getElementById('spoken').textContent.startsWith('Image 2 of 2')")
        press(browser, "3", "1 of 2")
        browser.until("!document.getElementById('over').hidden")
        assert browser.value("document.getElementById('over-title').textContent") == "1 skipped"
        browser.press("s")
        browser.until("!document.getElementById('task').hidden")
        assert shown(browser) == [skipped]
        assert len(stored(exchange)) == 1


def test_of_two_pictures_the_arrow_chooses_the_one_it_points_at(browser: Browser, exchange: Path) -> None:
    manifest = made_round(exchange, count=2)
    prompts = {sample.id: sample.prompt for sample in manifest.samples}
    with Served(exchange, "--by", "ada", "--pairs") as server:
        begin(browser, server.links["ada"])
        left, right = shown(browser)
        assert prompts[left] == prompts[right]
        press(browser, "ArrowRight", "1 of 2")
        next_left, next_right = shown(browser)
        press(browser, "1", "2 of 2")
    chosen = [(label.chosen, label.rejected) for label in stored(exchange)]
    assert chosen == [(right, left), (next_left, next_right)]


def test_two_people_label_at_once_in_orders_of_their_own(browser: Browser, exchange: Path, tmp_path: Path) -> None:
    manifest = made_round(exchange)
    seen: dict[str, list[str]] = {"ada": [], "ben": []}
    with Served(exchange, "--by", "ada", "--by", "ben") as server, Browser(tmp_path / "other") as other:
        begin(browser, server.links["ada"])
        begin(other, server.links["ben"])
        for done in range(1, 7):
            for by, page in (("ada", browser), ("ben", other)):
                seen[by] += shown(page)
                rating = 1 + [sample.id for sample in manifest.samples].index(seen[by][-1]) % 5
                press(page, str(rating), f"{done} of 6")
        browser.until("document.getElementById('agreement').textContent === '2 people, agreement 1.00'")
    assert sorted(seen["ada"]) == sorted(seen["ben"])
    assert seen["ada"] != seen["ben"]
    assert settled(exchange, manifest).alpha == 1.0


def test_the_next_round_appears_when_it_is_drawn(browser: Browser, exchange: Path) -> None:
    made_round(exchange, count=1, prompts=["a red bird"])
    with Served(exchange, "--by", "ada") as server:
        begin(browser, server.links["ada"])
        press(browser, "3", "1 of 1")
        browser.until("!document.getElementById('over').hidden")
        following: RoundManifest = write_round(exchange, asked_of_people("job", 1), drawn(2))
        browser.until("document.getElementById('round').textContent === 'round 1'")
        [sample] = shown(browser)
        assert following.sample(sample)
        press(browser, "2", "1 of 4")
    assert [label.sample for label in stored(exchange, 1)] == [sample]


def test_a_held_key_is_one_label_and_buttons_work_by_tab_and_enter(browser: Browser, exchange: Path) -> None:
    made_round(exchange)
    with Served(exchange, "--by", "ada") as server:
        begin(browser, server.links["ada"])
        for _ in range(5):
            browser.call("Input.dispatchKeyEvent", type="keyDown", key="2", text="2", autoRepeat=True)
        press(browser, "2", "1 of 6")
        for _ in range(10):
            browser.press("Tab")
            if browser.value("document.activeElement.dataset.key") == "4":
                break
        assert browser.value("document.activeElement.getAttribute('aria-label')") == "4, good"
        press(browser, "Enter", "2 of 6")
    assert [label.rating for label in stored(exchange)] == [2, 4]


def test_words_of_a_prompt_are_words_and_the_page_fits_a_phone_in_the_dark(
    browser: Browser, exchange: Path, tmp_path: Path
) -> None:
    made_round(exchange, prompts=[HOSTILE + 80 * "x"])
    with Served(exchange, "--by", HOSTILE[:40]) as server:
        browser.show(width=360, height=740, scheme="dark")
        begin(browser, server.links[HOSTILE[:40]])
        shown(browser)
        assert browser.value("document.getElementById('prompt').textContent").startswith(HOSTILE)
        assert browser.value("document.title") == "Labels - job"
        assert browser.value("document.documentElement.scrollWidth") <= 360
        bottom = browser.value("document.getElementById('skip').getBoundingClientRect().bottom")
        assert bottom <= 740  # everything is on the screen without scrolling
        browser.picture(tmp_path / "page.png")
    errors = [one for one in browser.events if one.get("method") == "Log.entryAdded"]
    assert errors == []
    with Image.open(tmp_path / "page.png") as image:
        assert image.convert("RGB").getpixel((1, 1)) == (20, 22, 26)
