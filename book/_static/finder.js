/* Fields that find some of the many things of a page, for results.js and answers.js. */
"use strict";
const finder = (() => {
  const alphabet = new Intl.Collator("en", { numeric: true });

  /* Numbers by their value, then words: to a collator 0.25 is more than 0.5, as 25 is more than 5. */
  function compare(a, b) {
    const [one, other] = [a, b].map((text) => (text === "" ? NaN : Number(text)));
    return isNaN(one) || isNaN(other) ? isNaN(one) - isNaN(other) || alphabet.compare(a, b) : one - other;
  }

  function element(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  function choice([name, value], things) {
    const values = [...new Set(things.map(value))].sort(compare);
    const options = values.map((value) => element("option", { value }, value || "(none)"));
    const select = element("select", {}, element("option", { value: "" }, "all"), ...options);
    const fits = (thing) => select.selectedIndex === 0 || value(thing) === select.value;
    return { label: element("label", {}, name, select), select, fits };
  }

  /* The fields, to be put into the page, and a function that shows what they find.

     things   what there is to find, called `kind`
     text     of a thing: where any words are looked for
     choices  a name, and the value of a thing, each; those that all things share are left out
     show     is told what was found, whenever that changes
     clear    is called beside when everything is to be shown again
     buttons  to stand between the count and that button */
  function fields({ name, kind, things, text, choices, show, clear = () => {}, buttons = [] }) {
    const texts = new Map(things.map((thing) => [thing, text(thing).toLowerCase()]));
    const lists = choices.map((one) => choice(one, things)).filter(({ select }) => select.length > 2);
    const search = element("input", { type: "search" });
    const count = element("span", { role: "status" });
    const reset = element("button", { type: "button" }, "Show all");

    function find() {
      const words = search.value.toLowerCase().split(/\s+/);
      const found = things.filter((thing) =>
        words.every((word) => texts.get(thing).includes(word)) && lists.every(({ fits }) => fits(thing)));
      count.textContent = `${found.length} of ${things.length} ${kind}`;
      show(found);
    }

    for (const { select } of lists) select.addEventListener("change", find);
    search.addEventListener("input", find);
    reset.addEventListener("click", () => {
      search.value = "";
      for (const { select } of lists) select.selectedIndex = 0;
      clear();
      find();
    });
    const controls = element(
      "div", { class: "finder", role: "group", "aria-label": `Filter ${name}` },
      element("label", {}, "any words", search), ...lists.map(({ label }) => label),
      element("div", {}, count, ...buttons, reset),
    );
    return { controls, find };
  }

  return { compare, element, fields };
})();
