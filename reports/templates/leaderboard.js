// Filters are added here, so that a page without script shows no field that does nothing.
const places = document.querySelectorAll("table.board");
const filters = document.querySelector(".filters");
if (filters && places.length) {
  const field = (text, control) => {
    const label = document.createElement("label");
    label.append(text, control);
    filters.append(label);
    control.addEventListener("input", apply);
    return control;
  };
  const box = document.createElement("input");
  box.type = "search";
  const choice = document.createElement("select");
  for (const [value, text] of [["", "any"], ["LABELS", "labels"], ["SCORES", "scores"], ["WEIGHTS", "weights"]]) {
    choice.append(new Option(text, value));
  }
  const tick = document.createElement("input");
  tick.type = "checkbox";
  field("Containing ", box);
  field("Attacked with ", choice);
  field("Data-free ", tick);
  const count = document.createElement("output");
  filters.append(count);
  apply();

  function apply() {
    let shown = 0;
    let all = 0;
    const words = box.value.toLowerCase().split(/\s+/);
    for (const table of places) {
      for (const row of table.querySelectorAll("tr.entry")) {
        const more = row.nextElementSibling;
        const text = (row.textContent + " " + more.textContent).toLowerCase();
        const fits =
          words.every((word) => text.includes(word)) &&
          (!choice.value || row.dataset.access.split(" ").includes(choice.value)) &&
          (!tick.checked || row.dataset.free === "yes");
        row.hidden = more.hidden = !fits;
        shown += fits;
        all += 1;
      }
    }
    count.textContent = shown === all ? "" : `${shown} of ${all} defences`;
  }
}
