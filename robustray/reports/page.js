// Cells carry what they are sorted by in data-v; empty ones stay below in both directions.
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
