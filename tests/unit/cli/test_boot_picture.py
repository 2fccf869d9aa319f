from __future__ import annotations

from xml.etree import ElementTree

import pytest

from coworkd.cli.boot_picture import choose_tick, compose_picture, headline
from coworkd.model.calls_boot import BootStep, BootTime

SVG = "{http://www.w3.org/2000/svg}"


def boot(*steps: BootStep, ready_s: float | None = 6.0) -> BootTime:
    return BootTime(boot_id="b", steps=steps, ready_s=ready_s)


def step(name: str, start_s: float, took_s: float, group: str = "unit", error: str | None = None) -> BootStep:
    return BootStep(group=group, name=name, start_s=start_s, took_s=took_s, error=error)


def test_there_is_a_bar_for_each_step_where_it_was_and_as_long() -> None:
    picture = ElementTree.fromstring(compose_picture(boot(step("b", 5.0, 1.0), step("a", 0.0, 2.5, "kernel"))))
    bars = [group.find(f"{SVG}rect") for group in picture.iter(f"{SVG}g")]
    places = [(float(bar.attrib["x"]), float(bar.attrib["width"])) for bar in bars if bar is not None]
    (kernel_x, kernel_width), (unit_x, unit_width) = places
    assert kernel_width == pytest.approx(2.5 * unit_width, abs=0.2)
    assert unit_x - kernel_x == pytest.approx(5 * unit_width, abs=0.5)


def test_whoever_cannot_see_it_is_told() -> None:
    picture = ElementTree.fromstring(compose_picture(boot(step("slow.service", 1.0, 4.0), ready_s=6.0)))
    assert picture.attrib["role"] == "img"
    described = {child.attrib["id"]: child.text or "" for child in picture if "id" in child.attrib}
    assert set(picture.attrib["aria-labelledby"].split()) == set(described)
    assert "slow.service took 4.00 s from 1.00 s on" in described["desc"]
    assert "ready 6.00 s" in described["desc"]


def test_what_a_guest_says_is_no_markup() -> None:
    text = compose_picture(boot(step("<script>&\"'", 0.0, 1.0, group="<b>", error="x")))
    ElementTree.fromstring(text)
    assert "<script>" not in text
    assert "failed" in text


@pytest.mark.parametrize(
    ("end_s", "tick_s"), [(0.1, 0.01), (5.0, 0.5), (12.0, 1.0), (13.0, 2.0), (60.0, 5.0), (500.0, 50.0)]
)
def test_the_grid_has_at_most_a_dozen_round_lines(end_s: float, tick_s: float) -> None:
    assert choose_tick(end_s) == pytest.approx(tick_s)
    assert end_s / choose_tick(end_s) <= 12


def test_a_boot_without_steps_is_a_picture_too() -> None:
    ElementTree.fromstring(compose_picture(boot(ready_s=None)))
    assert "still coming up" in headline(boot(ready_s=None))
