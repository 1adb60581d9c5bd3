"""How the report of an evaluation looks: a template in the style of all pages (`page.py`)."""

from entrypoints.evaluation.page import MACROS

TEMPLATE = (
    MACROS
    + """
{%- macro cards(compared) -%}
<div class="cards">
{% for one in compared %}
<article class="card"><h3>{{ one.prompt|letters }}</h3>
{% if one.shown %}{{ strip("map", one.shown) }}{% endif %}
{{ strip("base", one.before) }}
{{ strip("adapter", one.after) }}
</article>
{% endfor %}
</div>
{%- endmacro -%}
{%- macro lanes(estimates) -%}
{% for lane in estimates %}
<div class="lane {{ lane.kind }}"><span>{{ lane.name }}</span>
<div class="axis" aria-hidden="true">
{% if lane.width is not none %}<i style="left: {{ lane.left }}%; width: {{ lane.width }}%"></i>{% endif %}
<b style="left: {{ lane.dot }}%"></b></div>
<span class="number">{{ lane.text }}</span></div>
{% endfor %}
{%- endmacro -%}
{{ head() }}
<body>
<header>
{{ heading() }}
</header>
<main>
<section aria-labelledby="what"><h2 id="what">What was measured</h2>
<table class="facts">
{% for fact in facts %}
<tr><th scope="row">{{ fact.name }}</th><td>{{ fact.value|letters }}</td></tr>
{% endfor %}
</table>
</section>

{% if control %}
<section aria-labelledby="control"><h2 id="control">Control agreement</h2>
<p class="faint">How far images have what a map shows, from 0 to 1, with 95 % bootstrap intervals over the pictures.</p>
<div class="cards">
{% for one in control %}
<article class="card"><h3>{{ one.label }}</h3>
{{ lanes(one.lanes) }}
{% if one.gap %}<p><strong>with - shuffled</strong> {{ one.gap }}</p>{% endif %}
{% if one.times_base %}<p class="faint">with / without {{ one.times_base }}</p>{% endif %}
{% if one.share_of_ceiling %}<p class="faint">with / ceiling {{ one.share_of_ceiling }}</p>{% endif %}
</article>
{% endfor %}
</div>
<details><summary>What these mean</summary><dl>
<dt>without</dt><dd>images of the base model alone, with the same prompts and seeds</dd>
<dt>with</dt><dd>images that were shown the map of their own picture</dd>
<dt>shuffled</dt><dd>images that were shown the map of another picture, compared with that of their own</dd>
<dt>ceiling</dt><dd>the pictures themselves, encoded and decoded by the autoencoder</dd>
</dl></details>
</section>
{% endif %}

{% if figures %}
<section aria-labelledby="figures"><h2 id="figures">Figures</h2>
<p class="faint">A dot is the figure, the bar its 95 % bootstrap interval over the images.
Each box has a scale of its own.</p>
<div class="cards">
{% for figure in figures %}
<article class="card"><h3>{{ figure.measure }}</h3>
<p class="faint">{{ figure.term }} &middot; {{ figure.space }}</p>
{{ lanes(figure.lanes) }}
{% if figure.gap %}<p><strong>gap closed</strong> {{ figure.gap }}</p>{% endif %}
{% if figure.differs %}<p class="faint">{{ figure.differs }}</p>{% endif %}
{% if figure.no_interval %}<p class="faint">No interval: {{ figure.no_interval }}.</p>{% endif %}
</article>
{% endfor %}
</div>
<details><summary>What the figures mean</summary><dl>
{% for meaning in meanings %}<dt>{{ meaning.name }}</dt><dd>{{ meaning.value }}</dd>{% endfor %}
<dt>gap closed</dt><dd>(adapter - base) / (real - base): 0 is the base model, 1 as near to the real pictures as these
are to one another</dd>
</dl><p>Read them together: an adapter that repeats its training pictures has a high subject fidelity, and a low prompt
fidelity and diversity. Figures by different networks cannot be compared.</p></details>
</section>
{% endif %}

{% if skipped %}
<section aria-labelledby="skipped"><h2 id="skipped">Skipped</h2>
<ul class="found">
{% for one in skipped %}<li><strong>{{ one.what }}</strong>: {{ one.why }}. To measure it: {{ one.how }}.</li>
{% endfor %}
</ul>
</section>
{% endif %}

<section aria-labelledby="asked">
<h2 id="asked">{{ "Pictures drawn anew" if control else "Prompts that ask for it" }}</h2>
<p class="faint">The same prompts and seeds with the base model alone and with the adapter.
{% if are_captions %}The prompts are captions of the training data.
{% elif control %}The map stands above them.
{% else %}Training used neither.
{% endif %}</p>
{{ cards(asked) }}
{{ photos(real) }}
</section>

{% if unrelated %}
<section aria-labelledby="unrelated"><h2 id="unrelated">Unrelated prompts</h2>
<p class="faint">An adapter that learned its subject alone leaves these as they are.</p>
{{ cards(unrelated) }}
</section>
{% endif %}
{% if more %}<p class="faint">{{ more|counted("more image") }} of each model in samples/.</p>{% endif %}

<section aria-labelledby="networks"><h2 id="networks">Networks</h2>
<table class="settings">
{% for file in files %}<tr><th scope="row">{{ file.name }}</th><td>sha256 {{ file.value }}</td></tr>{% endfor %}
</table></section>
</main>
</body>
</html>
"""
)
