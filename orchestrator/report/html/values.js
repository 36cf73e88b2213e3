"use strict";
// Single values of a label: the two that are off most, the worst row's, and how to open its tensors in Python.

/** The two places that are off most, with their coordinates in the whole tensor where these are known. */
function worstValues(verdict) {
  const found = worstPlaces(verdict);
  if (!found.length) return null;
  const head = ["place", "golden", "actual", "difference"].map((name) => make("th", { scope: "col" }, name));
  const lines = found.map(({ place, golden, actual }) => {
    const difference = typeof golden === "number" && typeof actual === "number" ? exact(actual - golden) : "–";
    return make("tr", {}, make("th", { scope: "row" }, place), ...[exact(golden), exact(actual), difference].map((value) => make("td", {}, value)));
  });
  return make("table", { class: "worst-values" }, make("caption", {}, "Off most"), make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...lines));
}

function worstPlaces(verdict) {
  const { worst } = verdict?.stats ?? {};
  const row = verdict?.worst_row;
  const found = [];
  if (worst) {
    const [index, golden, actual] = worst;
    const place = row ? `[${placeOf(index, row.shape).join(", ")}]` : `number ${index.toLocaleString("en")}`;
    found.push({ place, golden, actual });
  }
  if (row) {
    const inRow = row.golden.map((golden, i) => ({
      place: `[${[...row.row, row.start + i].slice(0, row.shape.length).join(", ")}]`,
      golden,
      actual: row.actual[i],
    }));
    inRow.sort((a, b) => offBy(b.golden, b.actual) - offBy(a.golden, a.actual));
    found.push(...inRow.filter(({ place }) => place !== found[0]?.place));
  }
  return found.slice(0, 2);
}

/** How far two values are apart; infinite where one of them is no number (null) or infinite. */
function offBy(golden, actual) {
  if (golden === actual) return 0;
  return typeof golden === "number" && typeof actual === "number" ? Math.abs(actual - golden) : Infinity;
}

/** Return the coordinates of an element by its number in a tensor. */
function placeOf(index, shape) {
  const place = [];
  for (const size of [...shape].reverse()) {
    place.unshift(index % size);
    index = Math.floor(index / size);
  }
  return place;
}

/** The values of the worst row around the place that is off most: golden above actual, by channel. */
function worstStrip(row) {
  if (!row) return null;
  const errors = row.golden.map((golden, i) => offBy(golden, row.actual[i]));
  const most = Math.max(...errors.filter(Number.isFinite), 0);
  const line = (name, values, paint) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, name),
      ...values.map((value, i) => {
        const cell = make("td", {}, typeof value === "number" ? figureOfStrip(value) : (value ?? "nan"));
        if (paint) cell.style.background = heat(errors[i] === Infinity ? 1 : most ? errors[i] / most : 0);
        if (paint && (errors[i] === Infinity || errors[i] > 0.75 * most)) cell.classList.add("off");
        return cell;
      }),
    );
  const head = make("tr", {}, make("th", { scope: "col" }, "channel"), ...row.golden.map((_, i) => make("th", { scope: "col" }, String(row.start + i))));
  const place = row.row.length ? `[${row.row.join(", ")}, :]` : "";
  const title = `Worst row ${place} of (${row.shape.join(", ")})`;
  const table = make("table", { class: "strip-values" }, make("thead", {}, head), make("tbody", {}, line("golden", row.golden, false), line("actual", row.actual, true)));
  const holder = make("div", { class: "scroll values", tabindex: 0, role: "region", "aria-label": title }, table);
  const centre = errors.indexOf(Math.max(...errors));
  requestAnimationFrame(() => {
    const cell = table.rows[0].cells[centre + 1];
    holder.scrollLeft = cell.offsetLeft - holder.clientWidth / 2;
  });
  return make("div", {}, make("h3", {}, title), holder);
}

/** A value with four digits. */
function figureOfStrip(value) {
  const size = Math.abs(value);
  return value === 0 ? "0" : size >= 1e-3 && size < 1e4 ? String(Number(value.toPrecision(4))) : value.toExponential(2);
}

/** Lines of Python that open the tensors of a label, with a button that copies them. */
function snippet(details, label, verdict) {
  const lines = snippetLines(details.datasets[label], verdict);
  if (!lines) return null;
  const code = lines.join("\n");
  return make(
    "div",
    { class: "snippet" },
    make("h3", {}, "In Python"),
    make("pre", { tabindex: 0, role: "region", "aria-label": "Lines of Python that open the tensors" }, code),
    make("button", { type: "button", class: "plain", "data-copy": code }, "Copy"),
  );
}

function snippetLines(group, verdict) {
  const sides = [["golden", "pta", verdict?.golden], ["actual", "acl", verdict?.actual]].filter(
    ([, , side]) => side && side[4].endsWith(".h5") && side[5] === "full",
  );
  if (!group || !sides.length) return null;
  const lines = ["import h5py"];
  for (const [name, side, facts] of sides) {
    lines.push("", `with h5py.File(${JSON.stringify(facts[4])}) as shard:`);
    if (verdict.named_rows) {
      const all = JSON.stringify(group.slice(0, group.lastIndexOf("/"))); // rows of all occurrences are one label
      lines.push(`    ${name} = [each["${side}"][:] for each in shard[${all}].values() if "${side}" in each]`);
    } else lines.push(`    ${name} = shard[${JSON.stringify(`${group}/${side}`)}][:]`);
  }
  return lines;
}
