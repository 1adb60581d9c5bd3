"use strict";
// One thing at a time: a key is a label, the label is sent, and the next picture comes when the server has stored it.

const RETRY_MS = 1000;
const LOOK_MS = 5000; // between looks at how far the others are, and for the next round
const AHEAD = 4; // pictures that are loaded before their turn
const TYPICAL = 20; // labels that the remaining time is estimated from

const by = document.body.dataset.by;
const pairs = Boolean(document.body.dataset.pairs);
const element = (id) => document.getElementById(id);

let work = null;
let said = new Map(); // what this person says: key of an item -> label
let trail = []; // keys of items in the order in which they were labelled or skipped
let skipped = new Set();
let current = null; // index of the item that is shown, null at the end
let pending = null; // the label that is not stored yet
let seconds = []; // between labels
let last = 0;

const keyOf = (ids) => [...ids].sort().join(" ");
const keyOfLabel = (label) => (label.sample ? label.sample : keyOf([label.chosen, label.rejected]));
const address = (id) => `/pictures/${id}`;

async function ask(path, options) {
  const answer = await fetch(path, { ...options, cache: "no-store" });
  if (answer.ok) return answer.json();
  const text = await answer.text();
  let detail = text;
  try {
    const parsed = JSON.parse(text).detail;
    detail = typeof parsed === "string" ? parsed : JSON.stringify(parsed);
  } catch { /* it is plain text */ }
  const error = new Error(detail);
  error.refused = true;
  throw error;
}

function warn(text) {
  element("alert").textContent = text;
  element("alert").hidden = !text;
}

async function load() {
  const before = work && work.round;
  work = await ask(`/api/work?by=${encodeURIComponent(by)}`);
  said = new Map();
  for (const label of work.said) {
    const isChoice = !label.sample;
    if (isChoice === pairs) said.set(keyOfLabel(label), label);
  }
  if (before !== work.round) {
    trail = [...said.keys()];
    skipped = new Set();
    seconds = [];
  }
  show(next());
  showStanding(work.standing);
}

function next() {
  const open = (item) => !said.has(keyOf(item)) && !skipped.has(keyOf(item));
  const index = work.items.findIndex(open);
  return index < 0 ? null : index;
}

function show(index) {
  current = index;
  last = performance.now();
  showProgress();
  element("task").hidden = index === null;
  element("over").hidden = index !== null;
  for (const button of document.querySelectorAll("[data-key=u]")) button.disabled = trail.length === 0;
  const latest = said.get(trail[trail.length - 1]);
  element("undone").textContent = latest && !pairs ? latest.rating : "";
  if (index === null) {
    showEnd();
    return;
  }
  const item = work.items[index];
  const prompt = work.prompts[item[0]] || "without words";
  element("prompt").textContent = prompt;
  const names = pairs ? ["left-image", "right-image"] : ["image"];
  names.forEach((name, side) => {
    const image = element(name);
    image.src = address(item[side]);
    const which = pairs ? ["Left image", "Right image"][side] : "Image";
    image.alt = `${which} of: ${prompt}`;
  });
  const number = said.size + skipped.size + 1;
  speak(`${pairs ? "Pair" : "Image"} ${number} of ${work.items.length}: ${prompt}`);
  for (const later of work.items.slice(index + 1, index + 1 + AHEAD)) {
    for (const id of later) new Image().src = address(id);
  }
}

function showEnd() {
  const left = skipped.size;
  const things = pairs ? "pairs" : "images";
  element("over-title").textContent = left ? `${left} skipped` : "All done. Thank you!";
  let text = `You have judged ${said.size} of ${work.items.length} ${things}. `;
  if (!work.items.length) text = "No two images of this round have the same prompt: there is nothing to choose between. ";
  if (!left) text += "Every label is stored. When the next round is drawn, it appears here.";
  element("over-text").textContent = text;
  element("again").hidden = !left;
  speak(`${element("over-title").textContent} ${text}`);
  element("over").focus();
}

function showProgress() {
  const total = work.items.length;
  element("round").textContent = `round ${work.round}`;
  element("count").textContent = `${said.size} of ${total}`;
  element("bar").style.width = `${total ? (100 * said.size) / total : 100}%`;
  element("track").setAttribute("aria-valuemax", total);
  element("track").setAttribute("aria-valuenow", said.size);
  const some = [...seconds].sort((a, b) => a - b);
  const minutes = some.length < 3 ? null : (some[Math.floor(some.length / 2)] * (total - said.size)) / 60;
  element("left").textContent = minutes === null ? "" : minutes < 1 ? "less than a minute left" : `about ${Math.ceil(minutes)} min left`;
}

function showStanding(standing) {
  const figure = pairs ? standing.equal_choices : standing.alpha;
  let text = "";
  if (standing.people > 1) text = `${standing.people} people`;
  if (figure !== null) {
    text += pairs ? `, ${Math.round(100 * figure)} % equal choices` : `, agreement ${figure.toFixed(2)}`;
  }
  element("agreement").textContent = text;
  element("agreement").title = pairs ? "Share of equal choices of two people about the same pair"
    : "Krippendorff's alpha of the ratings: 1 is perfect agreement, 0 what chance gives";
  if (pending) return;
  if (standing.trouble) warn(`Stored on this machine, not yet in the bucket: ${standing.trouble}`);
  else if (standing.closed) warn("Training has used this round already: what you say now is kept, and not used.");
  else warn("");
}

function speak(text) {
  element("spoken").textContent = text;
}

function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// Sends a label until it is stored: each time under the same id, so that it counts once.
async function store(label) {
  pending = { ...label, id: newId(), by, round: work.round };
  document.body.setAttribute("aria-busy", "true");
  for (;;) {
    try {
      await ask("/api/labels", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(pending),
      });
      const stored = pending;
      finish("");
      return stored;
    } catch (error) {
      if (error.refused) {
        finish(`Not stored. ${error.message}`);
        return null;
      }
      warn("Your last label is not stored yet: the server does not answer. It is sent again until it does; if the command "
        + "has ended, start it again and open its new link. Everything before is stored.");
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}

function finish(text) {
  pending = null;
  document.body.removeAttribute("aria-busy");
  warn(text);
}

async function label(key) {
  const item = work.items[current];
  let given = { sample: item[0], rating: Number(key) };
  if (pairs) {
    const [chosen, rejected] = key === "1" ? item : [item[1], item[0]];
    given = { chosen, rejected };
  }
  const stored = await store(given);
  if (!stored) return;
  seconds.push((performance.now() - last) / 1000);
  seconds = seconds.slice(-TYPICAL);
  said.set(keyOf(item), stored);
  trail.push(keyOf(item));
  show(next());
}

function skip() {
  const key = keyOf(work.items[current]);
  skipped.add(key);
  trail.push(key);
  show(next());
}

async function undo() {
  const key = trail[trail.length - 1];
  if (key === undefined) return;
  const before = said.get(key);
  if (before) {
    const { sample, rating, chosen, rejected } = before;
    const given = Object.fromEntries(Object.entries({ sample, rating, chosen, rejected }).filter(([, value]) => value));
    if (!(await store({ ...given, withdrawn: true }))) return;
  }
  trail.pop();
  said.delete(key);
  skipped.delete(key);
  show(work.items.findIndex((item) => keyOf(item) === key));
}

function act(key) {
  if (!work || pending) return;
  const isShown = current !== null;
  if (key === "u") undo();
  else if (key === "s" && !isShown) {
    trail = trail.filter((one) => !skipped.has(one));
    skipped = new Set();
    show(next());
  } else if (isShown && key === "0") skip();
  else if (isShown && (pairs ? "12" : "12345").includes(key)) label(key);
}

const KEYS = { " ": "0", ArrowLeft: "1", ArrowRight: "2", ArrowUp: "1", ArrowDown: "2", U: "u", S: "s" };

document.addEventListener("keydown", (event) => {
  const withControl = event.ctrlKey || event.metaKey;
  if (event.repeat || event.altKey) return;
  if (withControl && event.key.toLowerCase() === "z" && !event.shiftKey) {
    event.preventDefault();
    act("u");
    return;
  }
  if (withControl || (event.key.startsWith("Arrow") && !pairs)) return;
  const onButton = document.activeElement instanceof HTMLButtonElement || document.activeElement instanceof HTMLAnchorElement;
  if (event.key === " " && onButton) return; // presses the button that has the focus
  const key = KEYS[event.key] ?? event.key;
  if (key.length !== 1 || !"012345us".includes(key)) return;
  event.preventDefault();
  act(key);
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-key]");
  if (!button) return;
  if (event.detail) button.blur(); // of a mouse: space skips again. Who tabs to a button stays on it
  act(button.dataset.key);
});

window.addEventListener("beforeunload", (event) => {
  if (pending) event.preventDefault();
});

async function look() {
  if (!work || pending || document.hidden) return;
  try {
    if (current === null && !skipped.size) await load();
    else showStanding(await ask(`/api/standing?round=${work.round}`));
  } catch (error) {
    if (!pending) warn(error.refused ? error.message : "The server does not answer. Start the command again and open its new link.");
  }
}

// The token stays out of the history and of what a person copies.
history.replaceState(null, "", `/?${new URLSearchParams({ by })}`);
load().catch((error) => warn(error.message));
setInterval(look, LOOK_MS);
