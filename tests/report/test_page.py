import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from pellucid.report import Cell, Gallery, Report, Section, Table, render

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Reads a page: every element's attributes, all visible text, and whether the tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    def every(self, name: str) -> list[str]:
        return [given[name] for _, given in self.elements if given.get(name) is not None]

    def tags(self, name: str) -> list[dict[str, str | None]]:
        return [given for tag, given in self.elements if tag == name]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())  # any space, also a fixed or narrow one, counts as one


@pytest.fixture(scope="session")
def html(report) -> str:
    return render(report)


@pytest.fixture(scope="session")
def page(html) -> Page:
    return Page(html)


def test_the_same_report_gives_the_same_bytes(report, html):
    assert render(replace(report)) == html


def test_tags_are_balanced(page):
    assert page.open == []


def test_names_are_escaped_everywhere(html, page):
    assert "<b>&" not in html
    # title (2), claims (3), table, curve (legend, table), heat maps (2), box (2), picture, settings
    assert page.text.count('<b>&"$x_1$') == 14
    assert any('<b>&"$x_1$' in alt for alt in page.every("alt"))


def test_nothing_is_fetched_and_nothing_runs(html, page):
    assert not re.search(r"(?i)https?:|@import|url\((?!#)", html)
    assert all(source.startswith("data:image/png;base64,") for source in page.every("src"))
    assert all(target.startswith("#") for target in page.every("href"))
    assert not page.tags("script")
    assert not page.tags("link")


def test_ids_are_unique_and_every_link_arrives(html, page):
    ids = page.every("id")
    assert len(ids) == len(set(ids))
    assert {target[1:] for target in page.every("href")} <= set(ids)
    inside = re.findall(r"url\(#([^)]+)\)", html)
    assert inside
    assert set(inside) <= set(ids)


def test_numbers_come_with_interval_printed_value_and_a_link_to_their_settings(page):
    assert "97.3 % 96.1–98.2 paper 99.2" in page.text
    assert "10.0–15.0" in page.text
    assert "paper 45.6" in page.text
    assert "8.0–12.0" in page.text
    assert "paper 12.3" in page.text
    links = [given for given in page.tags("a") if given.get("href") == "#settings-1"]
    assert len(links) >= 6
    assert all("One run" in (given["title"] or "") for given in links)


def test_settings_that_the_report_lacks_are_no_dead_link(table):
    text = render(Report("alone", sections=(Section("s", "", (table,)),)))
    assert "settings-1" not in text
    assert "97.3" in text


def test_what_is_missing_is_shown_as_missing(html, page):
    assert html.count('title="missing">—') >= 1
    assert "(missing)" in page.text  # the curve without any number
    assert page.text.count("missing") == 3  # that curve, an empty box, an empty place in the gallery


def test_verdicts_differ_in_words_and_signs(page):
    for sign, word in (("✓", "holds"), ("✗", "does not hold"), ("?", "cannot be decided")):
        assert f"{sign} {word}" in page.text
        assert f"{sign} 1 {word}" in page.text


def test_the_verdict_stands_before_everything_else(page):
    places = [page.text.index(words) for words in ("It holds.", "claim holds", "First.", "One digit")]
    assert places == sorted(places)


def test_pictures_are_described_and_enlarged_without_smoothing(html, page):
    images = page.tags("img")
    assert len(images) == 3
    assert all(given["alt"] and given["class"] == "small" for given in images)
    assert "99.8" in (images[0]["alt"] or "")
    assert "image-rendering: pixelated" in html
    assert "τ 0.312" in page.text
    assert "full colour: ±0.0250" in page.text


def test_tables_have_captions_and_drawings_names(page):
    assert len(page.tags("caption")) == len([given for given in page.tags("table") if given["class"] != "gallery"])
    drawings = [given for given in page.tags("svg") if given.get("role") == "img"]
    assert len(drawings) == 4
    assert all(given["aria-label"] for given in drawings)


def test_blocks_are_numbered_by_kind(page):
    assert re.findall(r"(Table|Figure) (\d)\.", page.text) == [
        ("Table", "1"),
        *(("Figure", n) for n in "1234"),
    ]


def test_an_empty_report_and_empty_blocks_are_pages_too():
    assert "<h1>nothing</h1>" in render(Report("nothing"))
    blocks = (Gallery("no pictures yet", ()), Table("empty", ("a", "b"), ()))
    text = render(Report("nearly nothing", sections=(Section("s", "", blocks),)))
    assert "No pictures." in text
    assert Page(text).open == []


def test_a_missing_value_still_shows_what_the_paper_printed():
    table = Table("t", ("network", "accuracy"), (("ours", Cell(None, printed=0.5)),))
    assert "paper 50.0" in render(Report("r", sections=(Section("s", "", (table,)),)))


def test_terms_follow_the_verdict_and_pictures_are_links(report):
    text = Page(render(replace(report, terms=(("eps", "the most that any pixel is changed"),)))).text
    places = [text.index(words) for words in ("It holds.", "the most that any pixel", "claim holds")]
    assert places == sorted(places)
    html = render(report)
    assert re.search(r'<a class="picture" href="#settings-1"[^>]*>\s*<img', html)
