// Sorts a table by a click on a heading: best first, then worst first, then as it came.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const came = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  if (came.length < 2) continue;
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Sort by this column";
    button.append(...head.childNodes);
    head.append(button);
    const number = head.classList.contains("number");
    const first = head.dataset.first;
    const turns = [first, first === "ascending" ? "descending" : "ascending", "none"];
    button.addEventListener("click", () => {
      const now = turns[(turns.indexOf(head.getAttribute("aria-sort") ?? "none") + 1) % 3];
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      let rows = came;
      if (now !== "none") {
        head.setAttribute("aria-sort", now);
        const sign = now === "ascending" ? 1 : -1;
        const key = (row) => {
          const text = row.cells[column].textContent.trim();
          return number ? parseFloat(text) : text === "–" ? "" : text;
        };
        const lacks = (value) => value === "" || Number.isNaN(value);
        const compare = (a, b) =>
          lacks(a) || lacks(b)
            ? lacks(a) - lacks(b)
            : sign * (number ? a - b : a.localeCompare(b, "en", { numeric: true }));
        rows = [...came].sort((a, b) => compare(key(a), key(b)));
      }
      body.append(...rows);
    });
  });
}
const contents = document.querySelector("nav details");
const wide = matchMedia("(min-width: 68rem)");
const unfold = () => { contents.open = wide.matches; };
wide.addEventListener("change", unfold);
unfold();
contents.addEventListener("click", (event) => {
  if (event.target.closest("a") && !wide.matches) contents.open = false;
});
// Paper has what is folded, but for the records inside runs.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open]):not(details details)")];
  folded.forEach((part) => { part.open = true; });
});
addEventListener("afterprint", () => folded.forEach((part) => { part.open = false; }));
