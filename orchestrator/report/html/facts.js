"use strict";
// What is known of a label on a rank, without charts: its error on a scale, its figures, both sides.

/** The error on a logarithmic scale with the bands of round-off and of warning. */
function scale(page, label, cell, verdict) {
  const [warn, fail, source] = verdict?.limits ?? [
    page.labels.warn[label],
    page.labels.fail[label],
    page.labels.source[label],
  ];
  const margin = page.figures.value(page.figures.margin[cell]);
  const error = page.own ? page.figures.value(page.figures.relL2[cell]) : margin * fail; // own errors have other limits
  if (!warn || !fail || Number.isNaN(error))
    return source ? make("p", { class: "line quiet" }, `Limits: ${source}.`) : null;
  const low = Math.log10(Math.min(warn / 1e3, error > 0 ? error / 2 : warn));
  const high = Math.log10(Math.max(fail * 1e2, Number.isFinite(error) ? error * 2 : 0));
  const place = (value) => `${Math.min(Math.max((100 * (Math.log10(value) - low)) / (high - low), 0), 100)}%`;
  const at = error === 0 ? "0%" : error === Infinity ? "100%" : place(error);
  const set = (element, left, right) => {
    element.style.left = left;
    if (right) element.style.right = `calc(100% - ${right})`;
    return element;
  };
  const bands = make(
    "div",
    {
      class: "scale",
      role: "img",
      "aria-label": `error ${figure(error)}, warn ${figure(warn)}, fail ${figure(fail)}`,
    },
    set(make("div", { class: "band match" }), "0%", place(warn)),
    set(make("div", { class: "band drift" }), place(warn), place(fail)),
    set(make("div", { class: "band wrong" }), place(fail), "100%"),
    set(make("div", { class: "at" }), at),
    set(make("div", { class: "text above" }, `error ${exact(error)}`), `clamp(44px, ${at}, calc(100% - 44px))`),
    set(make("div", { class: "text below left" }, `warn ${exact(warn)}`), place(warn)),
    set(make("div", { class: "text below right" }, `fail ${exact(fail)}`), place(fail)),
  );
  return make("div", {}, bands, make("p", { class: "where" }, `Limits: ${source}`));
}

/** The five figures that tell most. */
function firstFigures(page, cell, verdict, details) {
  const { figures } = page;
  const value = (codes) => figure(figures.value(codes[cell] ?? 0));
  const metric = (name) => {
    const i = details.metrics.findIndex((each) => each.name === name);
    return verdict?.metrics ? exact(verdict.metrics[i]) : "–";
  };
  const margin = verdict?.margin ?? nullIfNan(figures.value(figures.margin[cell]));
  const [own, ownRow] = verdict?.own ?? [page.own ? nullIfNan(figures.value(figures.own[cell])) : null];
  const list = [
    ["error ÷ limit", exact(margin), "margin"],
    ["relative L2", verdict?.metrics ? metric("rel_l2") : value(figures.relL2), "relative L2"],
    ["worst row", verdict?.metrics ? metric("worst_row") : value(figures.worstRow), "worst row"],
    ["cosine", metric("cosine")],
    ["largest error", metric("max_abs")],
  ];
  if (own !== null) {
    const row = ownRow === undefined ? "" : `, worst row ${exact(ownRow)}`;
    list.splice(1, 0, ["own error", `${exact(own)}${row}`, "own error"]);
  }
  return list.map(([name, value, meaning]) => ({ name, value, meaning }));
}

/** All figures of a label on a rank. */
function allFigures(page, cell, verdict, details) {
  const list = [];
  if (verdict?.metrics) {
    details.metrics.forEach(({ name, words, help }, i) => {
      let value = verdict.metrics[i];
      if (name === "worst_row_index" && value >= 0) value *= verdict.stats?.rows_per_group || 1;
      list.push([words, value === -1 ? "–" : exact(value), help]);
    });
    if (verdict.stats) list.push(["values", verdict.stats.n.toLocaleString("en")]);
    verdict.stats?.nonfinite?.forEach(([nans, infinite], side) =>
      list.push([
        `NaN, inf in ${side ? "actual" : "golden"}`,
        `${nans.toLocaleString("en")}, ${infinite.toLocaleString("en")}`,
      ]),
    );
    if (verdict.stats?.basis) list.push(["taken from", verdict.stats.basis]);
  }
  for (const [source, relL2, worstRow] of verdict?.floors ?? [])
    list.push([`${source} floor`, figure(relL2)], [`${source} floor, row`, figure(worstRow)]);
  if (verdict?.limits) list.push(["warn", exact(verdict.limits[0])], ["fail", exact(verdict.limits[1])]);
  if (verdict?.limits && verdict.limits[3] !== 1) list.push(["rows may have", `${exact(verdict.limits[3])} × limit`]);
  list.push(["of the limit", exact(verdict?.margin ?? nullIfNan(page.figures.value(page.figures.margin[cell])))]);
  return list.map(([name, value, help]) => ({ name, value, help }));
}

/** Figures side by side: names, values, and what they mean. */
function figureList(list) {
  return make(
    "dl",
    { class: "figures" },
    ...list.map(({ name, value, help, meaning }) =>
      make(
        "div",
        { title: help },
        make("dt", {}, meaning ? term(name, meaning) : name),
        make("dd", {}, String(value || value === 0 ? value : "–")),
      ),
    ),
  );
}

function nullIfNan(value) {
  return Number.isNaN(value) ? null : value;
}

/** Both sides of a label: of the rank that is shown, or else of its first one. */
function bothSides(page, label, verdict) {
  const { golden, actual, kinds } = page.labels;
  return verdict ? [verdict.golden, verdict.actual] : [kinds[golden[label]], kinds[actual[label]]];
}

/** Shape and dtype of both sides in a line. */
function sideBriefs(page, label, verdict) {
  const [golden, actual] = bothSides(page, label, verdict);
  const brief = (name, side) =>
    make("span", {}, term(name), " ", side ? make("b", {}, `${side[1]} ${side[0]}`) : "absent", side ? ` on ${side[2] || "?"}` : "");
  return make("p", { class: "briefs" }, brief("golden", golden), brief("actual", actual));
}

function sides(page, label, verdict) {
  const [golden, actual] = bothSides(page, label, verdict);
  const names = ["dtype", "shape", "device", "labelled at", "tensor", "kept", "number"];
  const table = make(
    "table",
    { class: "sides" },
    make("tr", {}, make("td"), make("th", { scope: "col" }, "golden"), make("th", { scope: "col" }, "actual")),
  );
  names.forEach((name, i) => {
    const [one, two] = [golden?.[i] ?? "", actual?.[i] ?? ""];
    if (one !== "" || two !== "")
      table.append(
        make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, String(one)), make("td", {}, String(two))),
      );
  });
  if (verdict?.inputs)
    table.append(
      make(
        "tr",
        {},
        make("th", { scope: "row" }, "computed from"),
        make("td", { colspan: 2 }, verdict.inputs.join(", ")),
      ),
    );
  if (verdict?.layout)
    table.append(make("tr", {}, make("th", { scope: "row" }, "layout"), make("td", { colspan: 2 }, verdict.layout)));
  return table;
}
