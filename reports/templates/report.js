"use strict";
// Sorting is added here, so that a page without script shows no button that does nothing.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  // A row of class "more" belongs to the one before it.
  const original = [...body.rows].filter((row) => !row.classList.contains("more"));
  if (original.length < 2) continue;
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    while (head.firstChild) button.append(head.firstChild);
    head.append(button);
    button.addEventListener("click", () => {
      const was = head.getAttribute("aria-sort");
      // Numbers start with the largest, names with the first; a third click brings the run's own order back.
      const cycle = column === 0 ? ["ascending", "descending", null] : ["descending", "ascending", null];
      const next = cycle[(cycle.indexOf(was) + 1) % 3];
      for (const other of heads) other.removeAttribute("aria-sort");
      if (next) head.setAttribute("aria-sort", next);
      const key = (row) => row.cells[column].dataset.sort;
      const sign = next === "ascending" ? 1 : -1;
      const rows = [...original];
      if (next) {
        rows.sort((a, b) => {
          const [x, y] = [key(a), key(b)];
          if (x === "" || y === "") return (x === "") - (y === "");
          return sign * (column === 0 ? x.localeCompare(y, "en", { numeric: true }) : Number(x) - Number(y));
        });
      }
      body.append(...rows.flatMap((row) => (row.nextElementSibling?.matches(".more") ? [row, row.nextElementSibling] : [row])));
    });
  });
}
