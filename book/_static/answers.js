/* Questions with all answers, to filter and to leaf through. Without this script they are a list to unfold.

   The address names the question that is open: it can be sent, and the browser's own back and forward leaf as well. */
"use strict";
{
  const { element, fields } = finder;
  const MORE = 50; // questions that the list shows at once

  function upgrade(region) {
    const questions = [...region.children];
    const names = new Map(questions.map((question) => [question, `#${question.id}`]));
    const list = `#${region.id}`;
    for (const one of [region, ...questions]) one.removeAttribute("id"); // else the browser moves the focus as well
    const verdicts = new Map(questions.map((question) => {
      const answers = [...question.querySelectorAll("[data-method]")];
      return [question, new Map(answers.map(({ dataset }) => [dataset.method, dataset.verdict]))];
    }));
    const methods = new Set([...verdicts.values()].flatMap((one) => [...one.keys()]));

    const button = (text) => element("button", { type: "button" }, text);
    const [back, previous, next] = ["All questions", "Previous", "Next"].map(button);
    const place = element("span", { role: "status" });
    const leaf = element("nav", { class: "leaf", "aria-label": region.dataset.title }, back, previous, next, place);
    const more = button("Show more questions");
    more.className = "more";
    let [found, open, most] = [questions, null, MORE];

    function draw() {
      for (const question of questions) question.open = question === open;
      region.replaceChildren(...(open ? [open] : found.slice(0, most)));
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

    /* Open what the address names. The focus stays on a button, else it goes to the question, and back to it. */
    function turn() {
      const [last, leafing] = [open, leaf.contains(document.activeElement)];
      open = questions.find((question) => names.get(question) === location.hash) ?? null;
      if (open === last) return;
      if (!open) most = Math.max(most, found.indexOf(last) + 1);
      draw();
      if (!open || !leafing) (open ?? last).querySelector("summary").focus({ preventScroll: open !== null });
      if (open) leaf.scrollIntoView();
    }

    const { controls, find } = fields({
      name: region.dataset.title,
      kind: "questions",
      things: questions,
      text: (question) => question.textContent,
      choices: [
        ...["subject", "level"].map((name) => [name, (question) => question.dataset[name]]),
        ...[...methods].map((name) => [name, (question) => verdicts.get(question).get(name) ?? ""]),
      ],
      show(these) {
        [found, most] = [these, MORE];
        draw();
      },
    });
    region.addEventListener("click", (event) => {
      const question = event.target.closest("summary")?.parentElement;
      if (question) location.hash = question === open ? list : names.get(question);
    });
    back.addEventListener("click", () => (location.hash = list));
    previous.addEventListener("click", () => step(-1));
    next.addEventListener("click", () => step(1));
    more.addEventListener("click", () => {
      const first = found[most];
      most += MORE;
      draw();
      first.querySelector("summary").focus();
    });
    addEventListener("hashchange", turn);
    region.before(controls, leaf);
    region.after(more);
    find();
    turn();
  }

  for (const region of document.querySelectorAll(".answers")) upgrade(region);
}
