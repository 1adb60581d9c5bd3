"""Who may talk to the page's server, and what it says of itself."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.contract.labels import RoundManifest
from tests.labels.made import made_round
from tests.labels.served import Served, stored


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exchange")


@pytest.fixture(scope="module")
def manifest(exchange: Path) -> RoundManifest:
    return made_round(exchange)


@pytest.fixture(scope="module")
def link(manifest: RoundManifest, exchange: Path) -> Iterator[httpx.URL]:
    with Served(exchange, "--by", "ada") as server:
        yield httpx.URL(server.links["ada"])


@pytest.fixture
def client(link: httpx.URL) -> Iterator[httpx.Client]:
    """A browser that has opened the link."""
    base = link.copy_with(query=None)
    with httpx.Client(base_url=base, headers={"Origin": str(base).rstrip("/")}) as made:
        assert made.get(link).status_code == 200
        yield made


def body(manifest: RoundManifest, **fields: Any) -> dict[str, Any]:
    return {"id": "a" * 32, "by": "ada", "round": 0, "sample": manifest.samples[0].id, "rating": 4, **fields}


def test_the_link_makes_a_cookie_that_no_script_and_no_other_page_gets(link: httpx.URL) -> None:
    answer = httpx.get(link, timeout=60)
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path", ["/", "/page.js", "/api/work?by=ada", "/api/standing?round=0", "/pictures/0", "/?token=", "/?token=x"]
)
def test_nothing_is_told_without_the_token(link: httpx.URL, path: str) -> None:
    answer = httpx.get(link.join(path))
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
    assert "job" not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1"},
    ],
)
def test_another_page_or_name_is_refused_though_it_has_the_cookie(
    client: httpx.Client, manifest: RoundManifest, exchange: Path, headers: dict[str, str]
) -> None:
    assert client.post("/api/labels", json=body(manifest), headers=headers).status_code == 403
    assert client.get("/api/work?by=ada", headers=headers).status_code == 403
    assert stored(exchange) == []


def test_a_label_needs_an_origin_and_the_cookie_and_not_just_the_token_in_its_address(
    client: httpx.Client, link: httpx.URL, manifest: RoundManifest, exchange: Path
) -> None:
    del client.headers["Origin"]
    assert client.post("/api/labels", json=body(manifest)).status_code == 403
    origin = {"Origin": str(link.copy_with(query=None)).rstrip("/")}
    posted = httpx.post(link.copy_with(path="/api/labels"), json=body(manifest), headers=origin)
    assert posted.status_code == 403
    assert stored(exchange) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"rating": 6},
        {"rating": None},
        {"by": ""},
        {"by": "x" * 81},
        {"id": "../../a"},
        {"sample": "../manifest.json"},
        {"chosen": "0" * 32},
        {"at": "2026-11-01T00:00:00Z"},
    ],
)
def test_what_is_no_label_is_refused_and_not_stored(
    client: httpx.Client, manifest: RoundManifest, exchange: Path, wrong: dict[str, Any]
) -> None:
    answer = client.post("/api/labels", json=body(manifest, **wrong))
    assert answer.status_code in {409, 422}
    assert stored(exchange) == []


def test_the_page_needs_nothing_from_elsewhere(client: httpx.Client) -> None:
    for path in ("/?by=ada", "/", "/page.js", "/style.css"):
        assert "://" not in client.get(path).text


@pytest.mark.parametrize("id_", ["0" * 32, "..%2F..%2Fmanifest.json", "%2Fetc%2Fpasswd"])
def test_only_pictures_of_the_round_are_served(client: httpx.Client, manifest: RoundManifest, id_: str) -> None:
    assert client.get(f"/pictures/{manifest.samples[0].id}").headers["content-type"] == "image/png"
    assert client.get(f"/pictures/{id_}").status_code == 404
