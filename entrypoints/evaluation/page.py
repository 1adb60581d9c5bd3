"""What the pages of a run and of an evaluation share: their style, their pieces, and how they are filled in.

The page's own policy refuses everything from outside, and any script but ours, whatever its words hold.
"""

import base64
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from entrypoints.evaluation.report_words import duration
from orchestrator.contract.plurals import counted

_STYLE = """
:root { color-scheme: light dark;
  --paper: #ffffff; --card: #f5f6f8; --ink: #16181d; --faint: #5b6270; --line: #d5d9e0;
  --raw: #9dbbe3; --curve: #1d5fb8; --good: #1a7f37; --bad: #b42318; --warn: #8a5a00; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #14161a; --card: #1e2127; --ink: #e8eaee; --faint: #a2a9b5; --line: #363b45;
  --raw: #3d5f8f; --curve: #7fb0f5; --good: #5fd07f; --bad: #ff8a80; --warn: #e3b341; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.25rem 1rem 3rem; max-width: 70rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.25rem 0 .75rem; padding-bottom: .25rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 0 0 .5rem; font-weight: 600; }
p { margin: .4rem 0; }
.faint, figcaption, dd.help { color: var(--faint); font-size: .875rem; }
.status { display: inline-block; padding: .1rem .6rem; border-radius: 1rem; border: 1px solid; font-weight: 600; }
.Completed { color: var(--good); } .Failed { color: var(--bad); } .Stopped { color: var(--warn); }
.note { border-left: 3px solid var(--warn); padding: .1rem .75rem; margin: .75rem 0; }
.alerts { border: 1px solid var(--warn); border-radius: .5rem; padding: .75rem 1rem; margin: 1rem 0; }
.alerts h2 { color: var(--warn); border: 0; margin: 0 0 .5rem; padding: 0; }
.alerts ul { margin: 0 0 .75rem; padding-left: 1.1rem; } .alerts li { margin: .2rem 0; }
.alerts > :last-child { margin-bottom: 0; }
.note.Failed { border-color: var(--bad); color: inherit; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
.facts th, .settings th { font-weight: 400; color: var(--faint); width: 9rem; }
.settings th { font-family: ui-monospace, monospace; color: var(--ink); width: min(14rem, 40%); }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.scroll { overflow-x: auto; max-width: 40rem; }
details { margin: .75rem 0; }
summary { cursor: pointer; padding: .25rem 0; color: var(--faint); }
:focus-visible { outline: 2px solid var(--curve); outline-offset: 2px; }
figure { margin: 0; }
img { display: block; width: 100%; height: auto; border-radius: .25rem; background: var(--line); }
.gone { border: 1px dashed var(--faint); padding: .5rem; font-size: .75rem; color: var(--faint); }
.charts { display: grid; gap: 1.5rem; }
.plot { position: relative; height: 14rem; margin: .5rem 1.25rem 1.75rem 3.75rem; color: var(--faint);
  font-size: .75rem; }
.plot.small { height: 7rem; }
.plot svg { position: absolute; inset: 0; width: 100%; height: 100%; border-bottom: 1px solid var(--faint);
  border-left: 1px solid var(--faint); }
.plot line { stroke: var(--line); } .plot polyline { fill: none; }
.plot line, .plot polyline { vector-effect: non-scaling-stroke; stroke-width: 1; stroke-linejoin: round; }
.plot .raw { stroke: var(--raw); } .plot .raw.alone, .plot .smooth { stroke: var(--curve); stroke-width: 2; }
.up { position: absolute; right: 100%; transform: translateY(-50%); padding-right: .4rem; white-space: nowrap; }
.across { position: absolute; top: 100%; transform: translateX(-50%); padding-top: .3rem;
  white-space: nowrap; }
.key { display: inline-block; width: 1.25rem; height: 0; border-top: 2px solid var(--curve); vertical-align: middle;
  margin: 0 .3rem 0 .75rem; }
.key.raw { border-color: var(--raw); }
.cards { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
.card { background: var(--card); border-radius: .5rem; padding: .75rem; }
.strip { display: grid; gap: .3rem; grid-template-columns: repeat(4, minmax(0, 1fr)); margin-bottom: .5rem; }
.strip + .strip { margin-bottom: 0; }
.strip p { grid-column: 1 / -1; margin: 0; color: var(--faint); font-size: .875rem; }
.few { max-width: 34rem; grid-template-columns: repeat(auto-fill, minmax(4.5rem, 1fr)); }
.slider { display: flex; flex-wrap: wrap; align-items: center; gap: .75rem; margin-bottom: .75rem; }
.slider[hidden] { display: none; }
.slider input { flex: 1 1 12rem; accent-color: var(--curve); }
.slider output { min-width: 6rem; font-variant-numeric: tabular-nums; }
.moments { display: flex; gap: .5rem; overflow-x: auto; padding-bottom: .25rem; }
.moments figure { flex: 0 0 8rem; }
.sliding .moments figure { flex: 1 1 100%; } .sliding figure[hidden] { display: none; }
.sliding .cards { grid-template-columns: repeat(auto-fill, minmax(min(100%, 13rem), 1fr)); }
.data { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); }
.found { color: var(--warn); font-size: .875rem; margin: .2rem 0 .75rem; padding-left: 1.1rem; }
dt { font-weight: 600; } dd { margin: 0 0 .4rem; }
.lane { display: grid; grid-template-columns: 6.5rem 1fr; gap: 0 .5rem; align-items: center; margin: .35rem 0;
  font-size: .875rem; }
.lane .number { grid-column: 1 / -1; text-align: left; color: var(--faint); }
.axis { position: relative; height: 1rem; background: var(--paper); border-radius: .25rem; }
.axis i { position: absolute; top: .3rem; height: .4rem; min-width: 2px; border-radius: .2rem; opacity: .45;
  background: currentColor; }
.axis b { position: absolute; top: .2rem; width: .6rem; height: .6rem; margin-left: -.3rem; border-radius: 50%;
  background: currentColor; }
.lane.base .axis { color: var(--faint); } .lane.adapter .axis { color: var(--curve); }
.lane.real .axis { color: var(--good); }
"""

MACROS = """
{%- macro image(shown) -%}
{% if shown.uri %}<img src="{{ shown.uri }}" alt="{{ shown.alt|letters }}">
{% else %}<p class="gone">cannot be shown: {{ shown.alt|letters }}</p>{% endif %}
{%- endmacro -%}
{%- macro strip(name, images) -%}
<div class="strip"><p>{{ name }}</p>{% for shown in images %}{{ image(shown) }}{% endfor %}</div>
{%- endmacro -%}
{%- macro photos(real) -%}
{% if real %}
<h3 style="margin-top: 1.25rem">Real photos</h3>
<div class="strip few">{% for shown in real %}{{ image(shown) }}{% endfor %}</div>
{% endif %}
{%- endmacro -%}
{%- macro settings_table(facts, kind) -%}
<table class="settings">
{% for fact in facts %}
<tr><th scope="row">{{ fact.name }}</th>
<td>{{ fact.value|letters }}<br><span class="faint">{{ fact.help }}</span></td></tr>
{% endfor %}
</table>
{%- endmacro -%}
{%- macro heading() -%}
<h1>{{ title|letters }}</h1>
<p><span class="status {{ ending.status }}">{{ ending.status }}</span> <span class="faint">{{ written }}</span></p>
{%- endmacro -%}
{%- macro head() -%}
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ title|letters }}</title>
<style>{{ style }}</style>
</head>
{%- endmacro -%}
"""
"""Pieces that every template begins with."""

MOST_LETTERS = 1000
"""Of a prompt, a caption or a setting."""


def page(template: str, values: Mapping[str, Any], *, script: str = "") -> str:
    """Return a page with the style of all, and this script of ours alone; every value is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["letters"] = _shortened
    environment.filters["duration"] = duration
    environment.filters["counted"] = counted
    hashed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.from_string(template).render(
        values,
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{hashed}'",
        style=Markup(_STYLE),  # noqa: S704 - our own
        script=Markup(script),  # noqa: S704 - our own
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _shortened(text: str) -> str:
    """Return a text that is no longer than a page has room for."""
    if len(text) <= MOST_LETTERS:
        return text
    return f"{text[:MOST_LETTERS]}..."
