"""The fixed parts of the HTML report: its style sheet and its one script."""

CSS = """
:root { color-scheme: light dark; --text: #1d2129; --soft: #5a6270; --line: #d9dde3;
  --back: #ffffff; --band: #f4f6f8; --alarm: #b00020; --link: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e8eb; --soft: #a2a9b4;
  --line: #3a4048; --back: #16181c; --band: #1f2329; --alarm: #ff6b6b; --link: #56b4e9; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back);
  max-width: 1200px; margin: 0 auto; padding: 1.5rem; }
h1 { margin: 0 0 .3rem; font-size: 1.7rem; } h2 { margin: 2.2rem 0 .6rem; font-size: 1.25rem; }
p, figcaption, dd { max-width: 75ch; }
.banner { color: #fff; background: var(--alarm); font-weight: 600; padding: .5rem .9rem;
  border-radius: 6px; margin: .8rem 0; } @media (prefers-color-scheme: dark) {
  .banner { background: #8c1d2c; } }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; margin: 1rem 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 1rem 0 1.6rem; } figure img { max-width: 100%; background: #fff;
  border: 1px solid var(--line); border-radius: 6px; }
figcaption, .soft { color: var(--soft); font-size: .92rem; }
.scroll { overflow-x: auto; } .tall { max-height: 75vh; overflow-y: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: left;
  white-space: nowrap; } td.n, th.n { text-align: right; }
td.wrap, th.wrap { white-space: normal; }
td.wrap { overflow-wrap: anywhere; min-width: 14ch; }
thead th { position: sticky; top: 0; background: var(--band); }
th button { all: unset; cursor: pointer; }
th button:focus-visible { outline: 2px solid var(--link); }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
tbody tr:hover { background: var(--band); } code { font-size: .9em; }
.failed { color: var(--alarm); }
"""

# Cells carry what they are sorted by in data-v; empty ones stay below in both directions.
SCRIPT = """
for (const table of document.querySelectorAll("table.sortable"))
  table.querySelectorAll("th button").forEach((button, column) => button.onclick = () => {
    const head = button.parentElement, body = table.tBodies[0];
    const down = head.getAttribute("aria-sort") !== "descending";
    const value = row => row.cells[column].dataset.v;
    const compare = (a, b) => isNaN(a) || isNaN(b)
      ? a.localeCompare(b, undefined, {numeric: true}) : a - b;
    const rows = [...body.rows].sort((p, q) => {
      const a = value(p), b = value(q);
      return a === "" || b === "" ? (a === "") - (b === "") : (down ? -1 : 1) * compare(a, b);
    });
    table.querySelectorAll("th").forEach(th => th.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...rows);
  });
"""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
