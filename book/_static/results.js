/* Tables of results to sort, filter and download. Without this script they are the plain tables of the page.

   Our own rather than itables: that puts a megabyte of script into the page, names every sort button alike,
   stays white in the dark, and its download has the cells as shown in place of the lines of the file. */
"use strict";
{
  const { compare } = new Intl.Collator("en", { numeric: true });

  function element(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

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

  function choice(head, column, rows) {
    const values = [...new Set(rows.map((row) => row.cells[column].textContent))].sort(compare);
    const options = values.map((value) => element("option", { value }, value || "(none)"));
    const select = element("select", {}, element("option", { value: "" }, "all"), ...options);
    const fits = (row) =>
      select.selectedIndex === 0 || row.cells[column].textContent === select.value;
    return { label: element("label", {}, head.textContent, select), select, fits };
  }

  function upgrade(region) {
    const table = region.querySelector("table");
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const texts = new Map(rows.map((row) => [
      row, [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase(),
    ]));
    const choices = heads.flatMap((head, column) =>
      head.hasAttribute("data-choice") ? [choice(head, column, rows)] : []);
    const search = element("input", { type: "search" });
    const count = element("span", { role: "status" });
    const download = element("button", { type: "button" }, "Download these rows");
    const reset = element("button", { type: "button" }, "Show all");
    let shown = rows;

    function show() {
      const words = search.value.toLowerCase().split(/\s+/);
      const found = rows.filter((row) =>
        words.every((word) => texts.get(row).includes(word)) && choices.every(({ fits }) => fits(row)));
      const column = heads.findIndex((head) => head.hasAttribute("aria-sort"));
      const sign = heads[column]?.getAttribute("aria-sort") === "descending" ? -1 : 1;
      shown = column < 0 ? found : sorted(found, column, sign);
      body.replaceChildren(...shown);
      count.textContent = `${shown.length} of ${rows.length} rows`;
      download.disabled = !shown.length;
    }

    function sort(head) {
      const to = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      for (const one of heads) one.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", to);
      show();
    }

    for (const head of heads) {
      const button = element("button", { type: "button" }, head.textContent);
      button.addEventListener("click", () => sort(head));
      head.replaceChildren(button);
    }
    for (const { select } of choices) select.addEventListener("change", show);
    search.addEventListener("input", show);
    reset.addEventListener("click", () => {
      search.value = "";
      for (const { select } of choices) select.selectedIndex = 0;
      for (const head of heads) head.removeAttribute("aria-sort");
      show();
    });
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

    region.before(element(
      "div", { class: "results-controls", role: "group", "aria-label": `Filter ${region.getAttribute("aria-label")}` },
      element("label", {}, "any words", search), ...choices.map(({ label }) => label),
      element("div", {}, count, download, reset),
    ));
    show();
  }

  for (const region of document.querySelectorAll(".results")) upgrade(region);
}
