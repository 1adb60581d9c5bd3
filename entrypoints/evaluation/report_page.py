"""How the report of a run looks: a template and its few lines of script, in the style of all pages (`page.py`)."""

from collections.abc import Mapping
from typing import Any

from entrypoints.evaluation.page import MACROS, page

# Shows one step of the timeline at a time. Without a script all of them lie side by side.
_SCRIPT = """
const timeline = document.getElementById("timeline");
if (timeline) {
  const slider = timeline.querySelector("input");
  const told = timeline.querySelector("output");
  const show = () => {
    for (const moments of timeline.querySelectorAll(".moments")) {
      [...moments.children].forEach((moment, number) => { moment.hidden = number !== Number(slider.value); });
    }
    told.textContent = "step " + slider.dataset.steps.split(" ")[slider.value];
    slider.setAttribute("aria-valuetext", told.textContent);
  };
  slider.value = slider.max;
  slider.addEventListener("input", show);
  timeline.classList.add("sliding");
  timeline.querySelector(".slider").hidden = false;
  show();
}
"""

_TEMPLATE = (
    MACROS
    + """
{{ head() }}
<body>
<header>
{{ heading() }}
{% if ending.message %}
<div class="note {{ ending.status }}"><p>{{ ending.message }}</p>
{% if ending.next_step %}<p><strong>Next:</strong> {{ ending.next_step }}</p>{% endif %}</div>
{% endif %}
</header>
<main>
{% if alerts.warnings or alerts.findings %}
<section class="alerts" aria-labelledby="alerts"><h2 id="alerts">Worth a look</h2>
{% if alerts.warnings %}<h3>Warnings of the run</h3>
<ul>{% for text in alerts.warnings %}<li>{{ text|letters }}</li>{% endfor %}</ul>
{% endif %}
{% if alerts.findings %}<h3>Found in the training data</h3>
<ul>{% for text in alerts.findings %}<li>{{ text|letters }}</li>{% endfor %}</ul>
{% if alerts.left_out %}<p class="faint">{{ alerts.left_out }} more beside the images below.</p>{% endif %}
{% endif %}
</section>
{% endif %}
<section aria-labelledby="run"><h2 id="run">The run</h2>
<table class="facts">
{% for fact in facts %}
<tr><th scope="row">{{ fact.name }}</th><td>{{ fact.value|letters }}</td></tr>
{% endfor %}
</table>
</section>

{% if compared %}
<section aria-labelledby="compared"><h2 id="compared">Before and after</h2>
<p class="faint">The same prompts and seeds with the base model alone and with the adapter.
The prompts {{ "are captions of the training data" if prompts_are_captions else "were not trained on" }}.</p>
<div class="cards">
{% for one in compared %}
<article class="card"><h3>{{ one.prompt|letters }}</h3>
{{ strip("before", one.before) }}
{% if one.shown %}{{ strip("condition", one.shown) }}{% endif %}
{{ strip("after", one.after) }}
{% if one.left_out %}<p class="faint">{{ one.left_out }} more beside the adapter, in samples/.</p>{% endif %}
</article>
{% endfor %}
</div>
{{ photos(real) }}
</section>
{% endif %}

{% if figures %}
<section aria-labelledby="figures"><h2 id="figures">Figures</h2>
<div class="scroll"><table>
<tr><th scope="col">measured by CLIP</th><th scope="col" class="number">before</th>
<th scope="col" class="number">after</th><th scope="col" class="number">real photos</th></tr>
{% for row in figures %}
<tr><th scope="row">{{ row.label }} ({{ row.term }})</th><td class="number">{{ row.before }}</td>
<td class="number">{{ row.after }}</td><td class="number">{{ row.ceiling }}</td></tr>
{% endfor %}
</table></div>
<details><summary>What the figures mean</summary><dl>
{% for meaning in meanings %}<dt>{{ meaning.name }}</dt><dd>{{ meaning.value }}</dd>{% endfor %}
</dl><p>Read both together: an adapter that repeats its training pictures has a high subject fidelity and a low prompt
fidelity. Figures by different CLIP models cannot be compared.</p></details>
</section>
{% endif %}

{% if curves %}
<section aria-labelledby="curves"><h2 id="curves">Curves</h2>
<div class="charts">
{% for curve in curves %}
<figure><figcaption>{{ curve.name }}
{%- if curve.smooth %}<span class="key raw"></span>each step<span class="key"></span>smoothed{% endif %}</figcaption>
<div class="plot {{ '' if loop.first else 'small' }}">
<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" role="img" aria-label="{{ curve.summary }}">
{% for label in curve.up %}
<line x1="0" x2="1000" y1="{{ label.percent * 10 }}" y2="{{ label.percent * 10 }}"/>
{% endfor %}
<polyline class="raw {{ '' if curve.smooth else 'alone' }}" points="{{ curve.raw }}"/>
{% if curve.smooth %}<polyline class="smooth" points="{{ curve.smooth }}"/>{% endif %}
</svg>
{% for label in curve.up %}
<span class="up" style="top: {{ label.percent }}%">{{ label.text }}</span>
{% endfor %}
{% for label in curve.across %}
<span class="across" style="left: {{ label.percent }}%">{{ label.text }}</span>
{% endfor %}
</div></figure>
{% endfor %}
</div>
<details><summary>Numbers</summary><div class="scroll"><table>
<tr><th scope="col" class="number">step</th><th scope="col" class="number">loss</th>
<th scope="col" class="number">learning rate</th><th scope="col" class="number">after</th></tr>
{% for record in records %}
<tr><td class="number">{{ record.step }}</td><td class="number">{{ "%.4g"|format(record.loss) }}</td>
<td class="number">{{ "%.3g"|format(record.learning_rate) }}</td>
<td class="number">{{ record.seconds|duration }}</td></tr>
{% endfor %}
</table></div></details>
</section>
{% endif %}

{% if timeline.lines %}
<section aria-labelledby="samples"><h2 id="samples">Samples during training</h2>
<div id="timeline">
<div class="slider" hidden><label for="step">After</label>
<input id="step" type="range" min="0" max="{{ timeline.steps|length - 1 }}" step="1"
  data-steps="{{ timeline.steps|join(' ') }}">
<output for="step"></output></div>
<div class="cards">
{% for line in timeline.lines %}
<article class="card"><h3>{{ line.prompt|letters }}</h3>
{% if line.shown %}{{ strip("condition", line.shown) }}{% endif %}
<div class="moments" tabindex="0" role="group" aria-label="{{ line.prompt|letters }}">
{% for shown in line.images %}
<figure>{% if shown %}{{ image(shown) }}{% endif %}
<figcaption>step {{ timeline.steps[loop.index0] }}</figcaption></figure>
{% endfor %}
</div></article>
{% endfor %}
</div>
{% if timeline.left_out %}
<p class="faint">{{ timeline.left_out|counted("step") }} between these not shown.</p>
{% endif %}
</div></section>
{% endif %}

{% if data %}
<section aria-labelledby="data"><h2 id="data">Training data</h2>
<p class="faint">{{ data.images|length }} of {{ data.count }} images.</p>
{% if data.findings %}
<ul class="found">{% for finding in data.findings %}<li>{{ finding }}</li>{% endfor %}</ul>
{% endif %}
<div class="data">
{% for one in data.images %}
<figure>{{ image(one.shown) }}
<figcaption>{{ one.name }}
{%- if one.repeats > 1 %}, counts as {{ one.repeats }}{% endif %}
<br>{{ one.caption|letters or "no caption" }}</figcaption>
{% if one.findings %}
<ul class="found">{% for finding in one.findings %}<li>{{ finding }}</li>{% endfor %}</ul>
{% endif %}
</figure>
{% endfor %}
</div>
</section>
{% endif %}

<section aria-labelledby="settings"><h2 id="settings">Settings</h2>
{% if chosen %}{{ settings_table(chosen) }}{% else %}<p>All settings have their defaults.</p>{% endif %}
<details><summary>All settings</summary>{{ settings_table(settings) }}</details>
<details><summary>Libraries</summary><table class="settings">
{% for name, version in libraries %}<tr><th scope="row">{{ name }}</th><td>{{ version }}</td></tr>{% endfor %}
</table></details>
</section>
</main>
<script>{{ script }}</script>
</body>
</html>
"""
)


def render(values: Mapping[str, Any]) -> str:
    """Return the page of a run; every value is escaped."""
    return page(_TEMPLATE, values, script=_SCRIPT)
