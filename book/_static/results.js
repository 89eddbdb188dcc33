/* Tables of results to sort, filter and download. Without this script they are the plain tables of the page.

   Our own rather than itables: that puts a megabyte of script into the page, names every sort button alike,
   stays white in the dark, and its download has the cells as shown in place of the lines of the file. */
"use strict";
{
  const { compare, element, fields } = finder;

  /* What a row is sorted by: its number in the file, else its text; null where there is nothing. */
  function key(row, column) {
    const { dataset, textContent } = row.cells[column];
    return dataset.value !== undefined ? Number(dataset.value) : textContent || null;
  }

  /* Rows by a column; equal ones as they were, those that have nothing there last in both directions. */
  function sorted(rows, column, sign) {
    return [...rows].sort((one, other) => {
      const [a, b] = [key(one, column), key(other, column)];
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * (typeof a === "number" && typeof b === "number" ? a - b : compare(a, b));
    });
  }

  function save(name, lines) {
    const address = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
    element("a", { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  }

  function upgrade(region) {
    const table = region.querySelector("table");
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    const download = element("button", { type: "button" }, "Download these rows");
    let shown = [];

    const unsort = () => heads.forEach((head) => head.removeAttribute("aria-sort"));
    const { controls, find } = fields({
      name: region.getAttribute("aria-label"),
      kind: "rows",
      things: [...body.rows],
      text: (row) => [...row.cells].map((cell) => cell.textContent).join(" "),
      choices: heads.flatMap((head, column) =>
        head.hasAttribute("data-choice") ? [[head.textContent, (row) => row.cells[column].textContent]] : []),
      buttons: [download],
      clear: unsort,
      show(found) {
        const column = heads.findIndex((head) => head.hasAttribute("aria-sort"));
        const sign = heads[column]?.getAttribute("aria-sort") === "descending" ? -1 : 1;
        shown = column < 0 ? found : sorted(found, column, sign);
        body.replaceChildren(...shown);
        download.disabled = !shown.length;
      },
    });

    function sort(head) {
      const to = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      unsort();
      head.setAttribute("aria-sort", to);
      find();
    }

    for (const head of heads) {
      const button = element("button", { type: "button" }, head.textContent);
      button.addEventListener("click", () => sort(head));
      head.replaceChildren(button);
    }
    download.addEventListener("click", () => {
      const lines = [table, ...shown].map((part) => part.dataset.line);
      save(table.dataset.file.replace(/\.csv$/, "-shown.csv"), lines);
    });
    function edge() {
      const left = region.scrollWidth - region.clientWidth - region.scrollLeft;
      region.classList.toggle("results-more", left > 1);
    }
    region.addEventListener("scroll", edge);
    const watch = new ResizeObserver(edge);
    watch.observe(region);
    watch.observe(table);

    region.before(controls);
    find();
  }

  for (const region of document.querySelectorAll(".results")) upgrade(region);
}
