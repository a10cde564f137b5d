"""Parts of report pages: dominate's tags, style and behaviour, all inline; no server is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType

from coronet_plugin.comparison.measure import Measurement
from coronet_plugin.errors import OptionError
from coronet_plugin.runs.run import Translation

Measurements = Mapping[Translation, Sequence[Measurement]]


def html() -> ModuleType:
    """dominate's tags. Raises OptionError without the library."""
    try:
        import dominate.tags
    except ImportError as error:
        raise OptionError('the page needs dominate: pip install "coronet-plugin[report]"') from error
    return dominate.tags


def percent(ratio: float) -> str:
    return f"{100 * ratio:.3g} %"


STYLE = """
:root {
  color-scheme: light dark;
  --ground: #ffffff; --ink: #1d2026; --muted: #626873; --line: #dcdfe4; --soft: #f4f5f7;
  --accent: #2f6fc4; --best: #e6f0fc;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #15171a; --ink: #e6e8eb; --muted: #9aa1ac; --line: #33373e; --soft: #1e2125;
    --accent: #7db1f5; --best: #1d3350;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 72rem; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .75rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p { margin: .4rem 0; max-width: 46rem; }
.summary { font-size: 1.05rem; overflow-wrap: anywhere; }
.note, figcaption { color: var(--muted); font-size: .85rem; }
.scroll { overflow-x: auto; }
.examples {
  display: grid; gap: 1rem 1.25rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, var(--width)), 1fr));
}
.row { min-width: 0; }
.row > .note { margin: .1rem 0 0; font-size: .75rem; overflow-wrap: anywhere; }
.example {
  display: grid; gap: .35rem; overflow-x: auto; grid-auto-flow: column;
  grid-auto-columns: minmax(3.25rem, 1fr);
}
.example figure { margin: 0; min-width: 0; }
.example a { display: block; cursor: zoom-in; }
.example img {
  display: block; width: 100%; height: auto; background: #fff;
  border: 1px solid var(--line); border-radius: 4px;
}
.example figcaption {
  font-size: .75rem; padding-top: .15rem; text-align: center; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap;
}
.tools { display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; margin: .25rem 0 .75rem; }
.tools[hidden] { display: none; }
.tool { font-size: .85rem; color: var(--muted); overflow-wrap: anywhere; }
.tool select { font: inherit; max-width: 100%; }
.wipe { position: relative; --at: 50%; }
.wipe .stage { position: relative; display: block; }
.wipe .over { position: absolute; inset: 0; height: 100%; clip-path: inset(0 calc(100% - var(--at)) 0 0); }
.wipe .stage::after {
  content: ""; position: absolute; top: 0; bottom: 0; left: calc(var(--at) - 1px); width: 2px;
  background: var(--accent); pointer-events: none;
}
.wipe input {
  position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ew-resize;
  touch-action: pan-y;
}
.wipe .stage:focus-within { outline: 2px solid var(--accent); outline-offset: 2px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .75rem; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { border-bottom: 2px solid var(--line); overflow-wrap: anywhere; font-size: .9rem; }
tbody th { font-weight: 400; }
.numbers small { display: block; color: var(--muted); font-size: .78rem; line-height: 1.3; }
.numbers .best { background: var(--best); }
.numbers .best b { color: var(--accent); }
.numbers b { font-weight: 650; }
.numbers .missing { color: var(--muted); font-style: italic; }
.numbers .floor { color: var(--ink); }
.made th, .made td { text-align: left; font-size: .82rem; padding: .3rem .75rem .3rem 0; }
.made td { min-width: 9rem; overflow-wrap: anywhere; }
.warning { color: #c8504b; }
.curve { display: block; width: 100%; max-width: 46rem; min-width: 30rem; height: auto; }
.widths { width: 100%; max-width: 46rem; }
.widths th, .widths td { padding: .2rem .5rem; font-size: .85rem; vertical-align: middle; }
.widths th { white-space: nowrap; }
.widths td { white-space: nowrap; }
.widths .bar { width: 55%; min-width: 5.5rem; text-align: left; }
.bar > span { display: block; height: .8rem; background: var(--soft); border: 1px solid var(--line); }
.bar i { display: block; height: 100%; background: var(--accent); }
.pinned .bar i { background: var(--muted); }
.key { display: inline-block; width: .75em; height: .75em; border-radius: 2px; margin-right: .4em; }
pre {
  background: var(--soft); border: 1px solid var(--line); border-radius: 4px; padding: .75rem;
  font-size: .82rem;   white-space: pre-wrap; overflow-wrap: anywhere;
}
dialog {
  border: 1px solid var(--line); border-radius: 8px; padding: 1rem; background: var(--ground);
  color: var(--ink); width: min(96vw, 90rem); max-height: 96vh;
}
dialog::backdrop { background: rgb(0 0 0 / .7); }
dialog .example { gap: .75rem; cursor: zoom-out; }
dialog .example a { cursor: zoom-out; }
dialog .example figcaption { font-size: .9rem; }
dialog img { image-rendering: pixelated; }
dialog a:focus { outline: none; }
a { color: var(--accent); }
@media (max-width: 40rem) {
  th, td { padding: .4rem .4rem; font-size: .9rem; }
  thead th { font-size: .75rem; overflow-wrap: normal; }
  .numbers small { font-size: .72rem; }
  .numbers, .numbers thead, .numbers tbody { display: block; }
  .numbers tr { display: grid; grid-template-columns: repeat(var(--runs), minmax(4.5rem, 1fr)); }
  .numbers th, .numbers td { text-align: left; }
  .numbers thead th:first-child { display: none; }
  .numbers tbody th { grid-column: 1 / -1; border-bottom: 0; padding: .4rem .4rem 0 0; }
  .numbers tbody th small { display: inline; margin-left: .4rem; }
  .widths th, .widths td { font-size: .72rem; padding: .2rem .2rem; }
  .widths tbody th { white-space: normal; overflow-wrap: anywhere; }
  .widths .bar { width: 25%; min-width: 4rem; }
  .curve { min-width: 0; }
  .made td { min-width: 6rem; }
  .example figcaption { white-space: normal; overflow-wrap: anywhere; line-height: 1.2; }
  dialog .example { grid-auto-flow: row; grid-template-columns: 1fr 1fr; }
}
"""

SCRIPT = """
const dialog = document.querySelector("dialog");
document.addEventListener("click", (event) => {
  if (event.target.closest(".wipe, .tools")) return;
  const link = event.target.closest(".example a");
  if (dialog.open) { event.preventDefault(); dialog.close(); return; }
  if (!link) return;
  event.preventDefault();
  dialog.replaceChildren(link.closest(".example").cloneNode(true));
  dialog.showModal();
});

document.addEventListener("input", (event) => {
  const figure = event.target.closest(".wipe");
  if (figure) figure.style.setProperty("--at", event.target.value + "%");
});

const sorters = {
  difference: (a, b) => (b.dataset.difference || -1) - (a.dataset.difference || -1),
  name: (a, b) => (a.dataset.name < b.dataset.name ? -1 : 1),
};

function wipe(example, place) {
  example.querySelector(".wipe")?.remove();
  const figures = [...example.children];
  for (const figure of figures) figure.hidden = false;
  if (!place) return;
  const [first, other] = [figures[1], figures[place]];
  const [under, over] = [other, first].map((figure) => figure.querySelector("img").cloneNode());
  const [left, right] = [first, other].map((figure) => figure.querySelector("figcaption").textContent);
  over.className = "over";
  const range = document.createElement("input");
  Object.assign(range, { type: "range", min: 0, max: 100, value: 50 });
  range.setAttribute("aria-label", `how much is shown of ${left}, the rest of ${right}`);
  const stage = Object.assign(document.createElement("span"), { className: "stage" });
  stage.append(under, over, range);
  const caption = document.createElement("figcaption");
  caption.textContent = `${left} | ${right}`;
  const figure = Object.assign(document.createElement("figure"), { className: "wipe" });
  figure.append(stage, caption);
  first.hidden = other.hidden = true;
  first.before(figure);
}

for (const tools of document.querySelectorAll(".tools")) {
  const examples = tools.nextElementSibling;
  tools.hidden = false;
  tools.querySelector(".order").addEventListener("change", (event) => {
    examples.append(...[...examples.children].sort(sorters[event.target.value]));
  });
  tools.querySelector(".wiper")?.addEventListener("change", (event) => {
    for (const example of examples.querySelectorAll(".example")) wipe(example, Number(event.target.value));
  });
}
"""
"""Click on a picture: its row, large; click again or Escape: back. Without scripts the link opens it.

Above the pictures, where scripts run: their order, and a slider in each row that wipes from the first run's
picture to another's.
"""
