"use strict";

// A cell as a number: "84.1 ± 0.3 (3)" 84.1, "1,600" 1600, "1:02:03" 3723, "41s" 41, "1h 02m" 3720; "-" has none (NaN).
// Words give undefined.
function numberIn(text) {
  if (/^(-|NaN|failed|)$/.test(text)) return NaN;
  if (/^\d+(:\d\d){1,2}(\s|$)/.test(text)) return text.split(/\s/)[0].split(":").reduce((sum, part) => 60 * sum + Number(part), 0);
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)\s*([hms])(?=\s|\d|$)/g)];
  if (parts.length && /^\d/.test(text)) return parts.reduce((sum, [, value, unit]) => sum + value * { h: 3600, m: 60, s: 1 }[unit], 0);
  const first = text.replace("−", "-").match(/^[-+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?(?![\w.-])/i);
  return first ? Number(first[0].replaceAll(",", "")) : undefined;
}

// Rows in the order of one column: numbers if all of its cells are, else words; what has no number comes last either way.
function sortRows(table, column, descending) {
  const rows = [...table.tBodies[0].rows].map((row) => ({ row, text: row.cells[column].textContent.trim() }));
  const numbers = rows.map(({ text }) => numberIn(text));
  const numeric = !numbers.includes(undefined);
  rows.forEach((one, i) => { one.number = numbers[i]; });
  const sign = descending ? -1 : 1;
  rows.sort((a, b) => {
    if (!numeric) return sign * a.text.localeCompare(b.text, "en", { numeric: true });
    if (Number.isNaN(a.number) || Number.isNaN(b.number)) return Number.isNaN(a.number) - Number.isNaN(b.number);
    return sign * (a.number - b.number);
  });
  table.tBodies[0].append(...rows.map(({ row }) => row));
}

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const descending = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    sortRows(head.closest("table"), head.cellIndex, descending);
  });
}

// The table of contents shows where the reader is.
const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
const seen = new IntersectionObserver((entries) => {
  const entry = entries.find(({ isIntersecting }) => isIntersecting);
  if (!entry) return;
  for (const link of links.values()) link.removeAttribute("aria-current");
  links.get(entry.target.id).setAttribute("aria-current", "true");
}, { rootMargin: "-10% 0px -80% 0px" });
for (const id of links.keys()) seen.observe(document.getElementById(id));
