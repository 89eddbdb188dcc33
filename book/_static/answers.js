/* Questions with all answers, to filter and to leaf through; the page has them packed, JSON as gzip in base64.

   The address names the question that is open: it can be sent, and the browser's own back and forward leaf as well. */
"use strict";
{
  const { element, fields } = finder;
  const MORE = 50; // questions that the list shows at once
  const verdict = ({ correct }) => (correct ? "✓ right" : "✗ wrong");

  async function unpacked(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).json();
  }

  /* A question: in short, with who solves it; unfolded, in full, and what each student said. */
  function drawn({ own, kind, short, question, reference, answers }) {
    const solvers = answers.filter(({ correct }) => correct).map(({ method }) => method);
    const line = element(
      "summary", {}, element("strong", {}, kind), " ", element("span", {}, short), " ",
      element("em", {}, solvers.length ? `✓ ${solvers.join("; ")}` : "✗ solved by none"),
    );
    const block = (attributes, title, text) =>
      element("div", attributes, element("strong", {}, title), element("pre", {}, text));
    const said = answers.map((one) =>
      block(
        { "data-method": one.method, "data-verdict": verdict(one) },
        `${one.method}: ${verdict(one)}, ${one.answer ?? "no answer"}`, one.text,
      ));
    const asked = block({}, `Question ${own}; the answer is ${reference}`, question);
    return element("details", {}, line, element("div", { class: "side-by-side" }, asked, ...said));
  }

  function upgrade(region, questions) {
    const names = new Map(questions.map((question) => {
      const own = encodeURIComponent(question.own).replaceAll("%3A", ":");
      return [question, `#${region.id}-${own}`];
    }));
    const list = `#${region.id}`;
    region.removeAttribute("id"); // else the browser moves the focus as well
    const parts = new Map(); // what was drawn already
    function part(question) {
      if (!parts.has(question)) parts.set(question, drawn(question));
      return parts.get(question);
    }
    const verdicts = new Map(questions.map((question) =>
      [question, new Map(question.answers.map((one) => [one.method, verdict(one)]))]));
    const methods = new Set([...verdicts.values()].flatMap((one) => [...one.keys()]));

    const button = (text) => element("button", { type: "button" }, text);
    const [back, previous, next] = ["All questions", "Previous", "Next"].map(button);
    const place = element("span", { role: "status" });
    const leaf = element("nav", { class: "leaf", "aria-label": region.dataset.title }, back, previous, next, place);
    const more = button("Show more questions");
    more.className = "more";
    let [found, open, most] = [questions, null, MORE];

    function draw() {
      const shown = open ? [open] : found.slice(0, most);
      for (const question of shown) part(question).open = question === open;
      region.replaceChildren(...shown.map(part));
      [controls.hidden, leaf.hidden, more.hidden] = [open, !open, open || found.length <= most];
      if (!open) return;
      const at = found.indexOf(open);
      previous.ariaDisabled = !found[at - 1];
      next.ariaDisabled = !found[at + 1];
      place.textContent = at < 0 ? `not among the ${found.length} found` : `${at + 1} of ${found.length}`;
    }

    /* Step to a neighbour, where there is one: at an end the button stays, and the focus on it. */
    function step(by) {
      const question = found[found.indexOf(open) + by];
      if (question) location.hash = names.get(question);
    }

    const focus = (question, how) => part(question).querySelector("summary").focus(how);

    /* Open what the address names. The focus stays on a button, else it goes to the question, and back to it. */
    function turn() {
      const [last, leafing] = [open, leaf.contains(document.activeElement)];
      open = questions.find((question) => names.get(question) === location.hash) ?? null;
      if (open === last) return;
      if (!open) most = Math.max(most, found.indexOf(last) + 1);
      draw();
      if (!open || !leafing) focus(open ?? last, { preventScroll: open !== null });
      if (open) leaf.scrollIntoView();
    }

    const { controls, find } = fields({
      name: region.dataset.title,
      kind: "questions",
      things: questions,
      text: ({ own, kind, question, reference, answers }) =>
        [own, kind, question, reference, ...answers.flatMap(({ text, answer }) => [text, answer])].join(" "),
      choices: [
        ...["subject", "level"].map((name) => [name, (question) => question[name]]),
        ["solved by", ({ answers }) => (answers.some(({ correct }) => correct) ? "somebody" : "nobody")],
        ...[...methods].map((name) => [name, (question) => verdicts.get(question).get(name) ?? ""]),
      ],
      show(these) {
        [found, most] = [these, MORE];
        draw();
      },
    });
    region.addEventListener("click", (event) => {
      const line = event.target.closest("summary");
      const question = line && questions.find((one) => parts.get(one) === line.parentElement);
      if (question) location.hash = question === open ? list : names.get(question);
    });
    back.addEventListener("click", () => (location.hash = list));
    previous.addEventListener("click", () => step(-1));
    next.addEventListener("click", () => step(1));
    more.addEventListener("click", () => {
      const first = found[most];
      most += MORE;
      draw();
      focus(first);
    });
    addEventListener("hashchange", turn);
    region.before(controls, leaf);
    region.after(more);
    find();
    turn();
  }

  for (const region of document.querySelectorAll(".answers")) {
    unpacked(region.dataset.packed).then((questions) => upgrade(region, questions));
    region.removeAttribute("data-packed");
  }
}
