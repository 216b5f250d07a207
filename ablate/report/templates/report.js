"use strict";
// Without this script the tables are complete, only not sortable.
const collator = new Intl.Collator("en", { numeric: true });

function key(row, column) {
  const value = row.cells[column].dataset.value;
  if (value === "") return null;
  return Number.isNaN(Number(value)) ? value : Number(value);
}

function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null); // absent values stay last
  const numbers = typeof a === "number" && typeof b === "number";
  return sign * (numbers ? a - b : collator.compare(a, b));
}

function sort(table, heads, column) {
  const head = heads[column];
  const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  rows.sort((a, b) => compare(key(a, column), key(b, column), sign));
  body.append(...rows);
  heads.forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sort(table, heads, column));
  });
}

// A link to a folded section opens it.
function unfold() {
  const section = document.getElementById(location.hash.slice(1));
  if (section instanceof HTMLDetailsElement) section.open = true;
}
addEventListener("hashchange", unfold);
unfold();

// A saved figure has its light colours themselves: not every program knows CSS variables.
function plain(url) {
  const svg = decodeURIComponent(url.replace(/^[^,]*,/, ""));
  const [style, light] = /<style>:root\{(.*?)\}.*?<\/style>/.exec(svg) ?? ["", ""];
  const colors = Object.fromEntries(light.split(";").map((rule) => rule.split(":")));
  const drawn = svg.replace(style, "").replace(/var\((--c\d+)\)/g, (_, name) => colors[name]);
  return `data:image/svg+xml,${encodeURIComponent(drawn)}`;
}

// Each figure can be saved, and the table of its numbers: from what the page holds already.
for (const image of document.querySelectorAll("figure img")) {
  const row = document.createElement("p");
  row.className = "save";
  const table = document.querySelector(`a[download="${CSS.escape(image.dataset.table)}"]`);
  for (const [name, href] of [[image.dataset.name, plain(image.src)], [table?.download, table?.href]]) {
    if (!href) continue;
    const link = document.createElement("a");
    Object.assign(link, { href, download: name, textContent: name });
    row.append(link, " ");
  }
  image.closest("figure").append(row);
}
