/* The two panels of method.md: NAT's integrate unit (eq-alpha, eq-nat) and beta of NCE (eq-beta).

   What goes in is read from the page, sliders by their name and matrices by their class; what comes out is written
   to the <span> elements of a class, rounded, with all digits in data-value. The page itself holds the first
   position, for readers without JavaScript. Nothing is fetched. */
"use strict";
{
  const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
  const times = (matrix, vector) => matrix.map((row) => dot(row, vector));
  const share = (weights) => weights.map((weight) => weight / dot(weights, weights.map(() => 1)));
  const softmax = (scores) => share(scores.map((score) => Math.exp(score - Math.max(...scores))));

  // 2/sqrt(pi) exp(-x^2) (x + 2x^3/3 + 4x^5/15 + ...): all terms have one sign, so no digits cancel
  function erf(x) {
    if (Math.abs(x) > 6) return Math.sign(x);
    let sum = 0;
    for (let term = x, n = 1; Math.abs(term) > 1e-17; n += 1) {
      sum += term;
      term *= (2 * x * x) / (2 * n + 1);
    }
    return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
  }
  const gelu = (z) => (z / 2) * (1 + erf(z / Math.SQRT2));

  function integrate(x, branches, w) {
    const query = times(w.q, x);
    const scores = branches.map((h) => dot(query, times(w.k, h)));
    const [pos, neg] = softmax(scores);
    const alpha = [pos + 0.5, neg - 0.5];
    const values = branches.map((h) => times(w[2], times(w[1], h).map(gelu)));
    const base = times(w[0], x);
    const steps = values.map((value, branch) => value.map((number) => alpha[branch] * number));
    const between = base.map((number, i) => number + steps[0][i]);
    return { scores, alpha, values, base, between, out: between.map((number, i) => number + steps[1][i]) };
  }

  function calibration(neg, nat) {
    const terms = neg.map((p, i) => p * Math.log(p / nat[i]));
    const kl = Math.max(0, terms.reduce((sum, term) => sum + term));
    return { terms, kl, beta: Math.tanh(kl) };
  }

  const rounded = (number, digits) => Number(number.toFixed(digits)) + 0; // + 0: never minus zero
  const text = (number, digits) => rounded(number, digits).toFixed(digits).replace("-", "\u2212");
  const inputs = (form, name) => [...form.querySelectorAll(`input[name="${name}"]`)];
  const vector = (form, name) => inputs(form, name).map((input) => Number(input.value));
  const matrix = (form, name) => JSON.parse(form.querySelector(`code.${name}`).textContent);

  function show(form, name, numbers, digits = 3) {
    form.querySelectorAll(`span.${name}`).forEach((span, i) => {
      span.textContent = text(numbers[i], digits);
      span.dataset.value = numbers[i];
    });
  }

  function showUnit(form) {
    const x = vector(form, "x");
    const branches = [vector(form, "h_pos"), vector(form, "h_neg")];
    const w = Object.fromEntries([0, "q", "k", 1, 2].map((name) => [name, matrix(form, `w_${name}`)]));
    const unit = integrate(x, branches, w);
    show(form, "x", x, 1);
    show(form, "h_pos", branches[0], 1);
    show(form, "h_neg", branches[1], 1);
    show(form, "score", unit.scores);
    show(form, "alpha_pos", [unit.alpha[0]]);
    show(form, "alpha_neg", [unit.alpha[1], unit.alpha[1]]);
    show(form, "value", unit.values.flat());
    show(form, "out", unit.out);
    const sign = Math.sign(rounded(unit.alpha[1], 3));
    const verdict = form.querySelector(".verdict");
    verdict.textContent = verdict.dataset.words.split("|")[sign + 1]; // in the language of the page

    const at = ([right, up]) => `${rounded(right, 3)} ${rounded(-up, 3)}`; // an SVG counts downwards
    const place = (name, point) =>
      form.querySelector(`g.${name}`).setAttribute("transform", `translate(${at(point)})`);
    const line = (kind, name, ...points) =>
      form.querySelector(`path.${kind}.${name}`).setAttribute("d", `M${points.map(at).join("L")}`);
    const origin = [0, 0];
    line("ray", "base", origin, unit.base);
    line("ray", "pos", origin, branches[0]);
    line("ray", "neg", origin, branches[1]);
    line("step", "pos", unit.base, unit.between);
    line("step", "neg", unit.between, unit.out);
    place("base", unit.base);
    place("pos", branches[0]);
    place("neg", branches[1]);
    place("out", unit.out);
  }

  function showBeta(form) {
    const [neg, nat] = [share(vector(form, "neg")), share(vector(form, "nat"))];
    const { terms, kl, beta } = calibration(neg, nat);
    show(form, "p_neg", neg);
    show(form, "p_nat", nat);
    show(form, "term", terms);
    show(form, "kl", [kl, kl]);
    show(form, "beta", [beta]);
    show(form, "weight", [0.5 + beta]);
    form.querySelectorAll("i.neg").forEach((bar, i) => (bar.style.width = `${rounded(100 * neg[i], 1)}%`));
    form.querySelectorAll("i.nat").forEach((bar, i) => (bar.style.width = `${rounded(100 * nat[i], 1)}%`));
  }

  for (const [id, update] of [["panel-nat", showUnit], ["panel-nce", showBeta]]) {
    const form = document.getElementById(id);
    if (!form) continue;
    const refresh = () => {
      for (const input of form.querySelectorAll("input"))
        input.nextElementSibling.textContent = text(Number(input.value), Number(input.step) < 1 ? 1 : 0);
      update(form);
    };
    form.addEventListener("input", refresh);
    form.addEventListener("reset", () => setTimeout(refresh)); // the sliders go back after this event
    form.addEventListener("submit", (event) => event.preventDefault()); // Enter on a slider
    form.querySelector(".exchange")?.addEventListener("click", () => {
      const [one, other] = [inputs(form, "neg"), inputs(form, "nat")];
      one.forEach((input, i) => ([input.value, other[i].value] = [other[i].value, input.value]));
      refresh();
    });
    form.querySelector(".controls").hidden = false;
    refresh();
  }
}
