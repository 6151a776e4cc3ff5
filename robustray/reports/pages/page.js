// Cells carry what they are sorted by in data-v; empty ones stay below in both directions.
const make = (tag, properties, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

const sortBy = (table, head, column) => {
  const down = head.getAttribute("aria-sort") !== "descending";
  const value = row => row.cells[column].dataset.v;
  const compare = (a, b) => isNaN(a) || isNaN(b)
    ? a.localeCompare(b, undefined, {numeric: true}) : a - b;
  const rows = [...table.tBodies[0].rows].sort((p, q) => {
    const a = value(p), b = value(q);
    return a === "" || b === "" ? (a === "") - (b === "") : (down ? -1 : 1) * compare(a, b);
  });
  table.querySelectorAll("th").forEach(th => th.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  table.tBodies[0].append(...rows);
};

const filterBox = table => {
  const rows = [...table.tBodies[0].rows];
  const count = make("span", {className: "soft"});
  const box = make("input", {type: "search", placeholder: "Filter rows", ariaLabel: "Filter rows"});
  box.oninput = () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows)
      row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
    const left = rows.filter(row => !row.hidden).length;
    count.textContent = words.length ? `${left} of ${rows.length}` : "";
  };
  return [box, count];
};

const columnsMenu = table => {
  const heads = [...table.tHead.rows[0].cells];
  const menu = make("div", {className: "menu"});
  heads.forEach((head, column) => {
    const box = make("input", {type: "checkbox", checked: !head.hidden, disabled: !column});
    box.onchange = () => {
      for (const row of table.rows) row.cells[column].hidden = !box.checked;
    };
    menu.append(make("label", {}, box, " " + head.textContent));
  });
  return make("details", {}, make("summary", {textContent: "Columns"}), menu);
};

for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("th button").forEach((button, column) =>
    button.onclick = () => sortBy(table, button.parentElement, column));
  const tools = make("div", {className: "tools"});
  if ("filter" in table.dataset) tools.append(...filterBox(table));
  if (table.querySelector("th[hidden]")) tools.append(columnsMenu(table));
  if (tools.childElementCount) table.parentElement.before(tools);
}

for (const block of document.querySelectorAll("pre.copy")) {
  const button = make("button", {textContent: "Copy", type: "button"});
  button.onclick = async () => {
    const text = block.querySelector("code").textContent;
    try { await navigator.clipboard.writeText(text); button.textContent = "Copied"; }
    catch { getSelection().selectAllChildren(block.querySelector("code")); }
    setTimeout(() => button.textContent = "Copy", 1500);
  };
  block.append(button);
}

const hint = make("div", {id: "hint", hidden: true});
document.body.append(hint);
const showHint = event => {
  const mark = event.target.closest?.(".tip");
  hint.hidden = !mark;
  if (!mark) return;
  hint.textContent = mark.dataset.tip;
  const left = Math.min(event.pageX + 12, scrollX + innerWidth - hint.offsetWidth - 8);
  hint.style.left = Math.max(left, 8) + "px";
  hint.style.top = event.pageY + 14 + "px";
};
for (const mark of document.querySelectorAll(".tip")) {
  mark.dataset.tip = mark.querySelector("title").textContent;
  mark.querySelector("title").remove();
}
document.addEventListener("pointermove", showHint);
document.addEventListener("pointerdown", showHint);

addEventListener("beforeprint", () =>
  document.querySelectorAll("body > details").forEach(each => each.open = true));
