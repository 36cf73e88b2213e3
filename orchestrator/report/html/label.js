"use strict";
// A label, opened: a dialog with the labels of a cell beside all that is known of the chosen one.

const loadDetails = once(async () => {
  const found = JSON.parse(await unpack("details-data", true));
  found.byCell = new Map(found.verdicts.map((verdict) => [`${verdict.label}/${verdict.rank}`, verdict]));
  found.rowsOf = new Map(found.rows.map((strip) => [strip.label, strip]));
  found.channelsOf = new Map(found.channels.map((strip) => [strip.label, strip]));
  return found;
});

const METRIC_NAMES = {
  rel_l2: "relative L2",
  worst_row: "worst row",
  worst_row_index: "worst row at",
  row_p50: "row median",
  row_p99: "row p99",
  pcc: "Pearson",
  scale: "best scale",
  residual: "after scaling",
  sg_rel: "SG relative",
  snr_db: "SNR (dB)",
  linf_rel: "max / max golden",
  max_abs: "max abs error",
  mean_abs: "mean abs error",
  rms: "rms error",
  max_rel: "max rel error",
  mean_rel: "mean rel error",
  ratio_1k: "within 1e-3",
  ratio_5k: "within 5e-3",
  pass_rate: "within tolerance",
  max_ulp: "max ULP",
  mismatch_share: "share unequal",
};
const MOST_NAMES = 300;

function labelName(page, label) {
  const occurrence = page.labels.occurrence[label];
  return occurrence ? `${page.labels.name[label]} #${occurrence}` : page.labels.name[label];
}

/** Open the labels of a row in a column (null: in all), the one that matters most first shown. */
function openLabels(page, title, labels, column) {
  const dialog = document.getElementById("label");
  const columns = column === null ? [...page.columns.keys()] : [column];
  const list = make("ul", { class: "names", "aria-label": "Labels here" });
  const one = make("div", { class: "one", tabindex: -1 });
  const closing = make("button", { type: "button", class: "plain", "aria-label": "Close" }, "Close");
  closing.addEventListener("click", () => dialog.close());
  const where = column === null ? title : `${title} · rank ${page.columns[column].name}`;
  const bar = make("div", { class: "bar" }, make("span", {}, `${where} · ${count(labels.length, "label")}`), closing);
  const show = (label, button) => {
    for (const other of list.querySelectorAll("[aria-current]")) other.removeAttribute("aria-current");
    button?.setAttribute("aria-current", "true");
    const worst = page.figures.worst([label], columns);
    showLabel(page, one, label, column ?? Math.max(worst.column, 0));
  };
  const entries = new Map();
  for (const label of labels.slice(0, MOST_NAMES)) {
    const { face, column: at } = page.figures.worst([label], columns);
    const error = face ? figure(page.figures.value(page.figures.relL2[label * page.figures.width + at])) : "";
    const button = make(
      "button",
      { type: "button" },
      dress(page, make("b", { class: "swatch" }), face, 0),
      make("span", {}, labelName(page, label)),
      make("i", {}, error),
    );
    button.addEventListener("click", () => show(label, button));
    entries.set(label, button);
    list.append(make("li", {}, button));
  }
  if (labels.length > MOST_NAMES)
    list.append(
      make(
        "li",
        { class: "quiet" },
        `and ${(labels.length - MOST_NAMES).toLocaleString("en")} more: find them by name`,
      ),
    );
  dialog.replaceChildren(make("div", { class: labels.length > 1 ? "panel" : "panel alone" }, bar, list, one));
  list.addEventListener("keydown", (event) => {
    const buttons = [...entries.values()];
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const next = step && buttons[buttons.indexOf(document.activeElement) + step];
    if (!next) return;
    event.preventDefault();
    next.focus();
    next.click();
  });
  if (!dialog.open) dialog.showModal();
  const chosen = page.figures.worst(labels, columns).label;
  const shown = chosen >= 0 ? chosen : labels[0];
  show(shown, entries.get(shown));
  const button = entries.get(shown);
  if (button && labels.length > 1) {
    button.scrollIntoView({ block: "center" });
    button.focus({ preventScroll: true });
  } else closing.focus();
}

/** Show one label on one column's ranks. */
async function showLabel(page, holder, label, column) {
  holder.label = label;
  const details = await loadDetails();
  if (holder.label !== label) return; // another one was chosen meanwhile
  const cell = label * page.figures.width + column;
  const face = page.figures.faces[cell];
  const { ranks, name } = page.columns[column];
  const verdicts = ranks.map((rank) => details.byCell.get(`${label}/${rank}`)).filter(Boolean);
  const verdict = verdicts.sort((a, b) => b.face - a.face)[0];
  const parts = [
    make("h2", { id: "label-title" }, labelName(page, label)),
    make(
      "p",
      { class: "where" },
      [`task ${page.labels.task[label]}`, page.labels.level[label]].filter(Boolean).join(" · "),
    ),
    rankButtons(page, label, column, (other) => showLabel(page, holder, label, other)),
    make("p", {}, tag(page, face), verdict && ranks.length > 1 ? `rank ${verdict.rank}: ` : "", verdict?.reason ?? ""),
    root(page, label),
    verdict?.excused ? make("p", { class: "hint" }, `Does not count: ${verdict.excused}`) : null,
    hints(details, label, ranks, verdict),
    scale(page, label, cell, verdict),
  ];
  const rows = details.rowsOf.get(label);
  const channels = details.channelsOf.get(label);
  const charts = [
    verdict?.histogram ? ["Histogram of the error", (element) => drawHistogram(element, verdict.histogram)] : null,
    rows ? ["Relative error by row", (element) => drawStrips(element, rows, "row")] : null,
    channels ? ["Relative error by channel", (element) => drawStrips(element, channels, "channel")] : null,
  ].filter(Boolean);
  const drawn = charts.map(([title, work]) => [
    make("div", { class: "chart", role: "img", "aria-label": title }),
    title,
    work,
  ]);
  for (const [element, title] of drawn) parts.push(make("h3", {}, title), element);
  parts.push(
    make("h3", {}, "Figures"),
    figuresOf(page, cell, verdict, details),
    make("h3", {}, "Both sides"),
    sides(details, label, verdict),
  );
  if (!verdict && face && !page.faces[face].words.startsWith("match"))
    parts.push(
      make("p", { class: "line quiet" }, `The page has no room for all figures of rank ${name}; report.csv has them.`),
    );
  holder.replaceChildren(...parts.filter(Boolean));
  holder.scrollTop = 0;
  for (const [element, , work] of drawn) await work(element);
}

/** Name what a label inherits from; a click opens it. */
function root(page, label) {
  const from = page.labels.root[label];
  if (from === null) return null;
  const button = make("button", { type: "button", class: "link" }, labelName(page, from));
  button.addEventListener("click", () => openLabels(page, `task ${page.labels.task[from]}`, [from], null));
  return make("p", { class: "line" }, "Inherited from ", button);
}

function tag(page, face) {
  const look = page.faces[face];
  if (!look) return make("span", { class: "tag face" }, "not labelled here");
  const swatch = dress(page, make("span", { class: "tag" }), face, NaN);
  swatch.append(` ${look.words}`);
  return swatch;
}

function rankButtons(page, label, column, show) {
  const box = make("div", { class: "ranks", role: "group", "aria-label": "Ranks" });
  for (const other of page.columns.keys()) {
    const cell = label * page.figures.width + other;
    const face = page.figures.faces[cell];
    const button = dress(
      page,
      make("button", {
        type: "button",
        "aria-pressed": other === column,
        tabindex: other === column ? 0 : -1,
        "aria-label": `rank ${page.columns[other].name}: ${page.faces[face]?.words ?? "not labelled"}`,
      }),
      face,
      page.figures.value(page.figures.margin[cell]),
    );
    button.prepend(page.columns[other].name, make("br"));
    button.addEventListener("click", async () => {
      await show(other);
      document.querySelector(".ranks [aria-pressed=true]").focus();
    });
    box.append(button);
  }
  box.addEventListener("keydown", (event) => {
    const next = { ArrowRight: "nextElementSibling", ArrowLeft: "previousElementSibling" }[event.key];
    const button = next && document.activeElement[next];
    if (!button) return;
    event.preventDefault();
    button.click();
  });
  return page.columns.length > 1 ? box : null;
}

/** What the error looks like: hints and patterns, or else how far simple changes of golden explain it. */
function hints(details, label, ranks, verdict) {
  const found = (details.findings[label] ?? []).filter(
    ([, of]) => !of.length || of.some((rank) => ranks.includes(rank)),
  );
  const told = found.length ? found.map(([words, , explained]) => [words, explained]) : (verdict?.fits ?? []);
  const lines = told.map(([words, explained]) =>
    make("p", {}, explained === null ? words : `${words} (explains ${(100 * explained).toFixed(1)} % of the error)`),
  );
  return lines.length ? make("div", { class: "hint" }, ...lines) : null;
}

/** The error on a logarithmic scale with the bands of round-off and of warning. */
function scale(page, label, cell, verdict) {
  const [warn, fail, source] = verdict?.limits ?? [
    page.labels.warn[label],
    page.labels.fail[label],
    page.labels.source[label],
  ];
  const margin = page.figures.value(page.figures.margin[cell]);
  const error = margin * fail;
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
  return make(
    "div",
    {
      class: "scale",
      role: "img",
      "aria-label": `error ${figure(error)}, floor ${figure(warn)}, limit ${figure(fail)}`,
    },
    set(make("div", { class: "band match" }), "0%", place(warn)),
    set(make("div", { class: "band drift" }), place(warn), place(fail)),
    set(make("div", { class: "band wrong" }), place(fail), "100%"),
    set(make("div", { class: "at" }), at),
    set(make("div", { class: "text above" }, `error ${exact(error)}`), at),
    set(make("div", { class: "text below left", title: source }, `floor ${exact(warn)}`), place(warn)),
    set(make("div", { class: "text below right", title: source }, `limit ${exact(fail)}`), place(fail)),
  );
}

function figuresOf(page, cell, verdict, details) {
  const { figures } = page;
  const list = [];
  if (verdict?.metrics) {
    details.metrics.forEach((name, i) => {
      let value = verdict.metrics[i];
      if (name === "worst_row_index" && value >= 0) value *= verdict.stats?.rows_per_group || 1;
      list.push([METRIC_NAMES[name] ?? name, value === -1 ? "–" : exact(value)]);
    });
    const worst = verdict.stats?.worst;
    if (worst)
      list.push(
        ["worst value at", worst[0].toLocaleString("en")],
        ["golden there", worst[1]],
        ["actual there", worst[2]],
      );
    if (verdict.stats) list.push(["values", verdict.stats.n.toLocaleString("en")]);
    verdict.stats?.nonfinite?.forEach(([nans, infinite], side) =>
      list.push([
        `NaN, inf in ${side ? "actual" : "golden"}`,
        `${nans.toLocaleString("en")}, ${infinite.toLocaleString("en")}`,
      ]),
    );
    if (verdict.stats?.basis) list.push(["taken from", verdict.stats.basis]);
  } else {
    list.push(
      ["relative L2", figure(figures.value(figures.relL2[cell]))],
      ["worst row", figure(figures.value(figures.worstRow[cell]))],
    );
  }
  for (const [source, relL2, worstRow] of verdict?.floors ?? [])
    list.push([`${source} floor`, figure(relL2)], [`${source} floor, row`, figure(worstRow)]);
  if (verdict?.limits && verdict.limits[3] !== 1) list.push(["rows may have", `${exact(verdict.limits[3])} × limit`]);
  list.push(["of the limit", exact(verdict?.margin ?? nullIfNan(figures.value(figures.margin[cell])))]);
  return make(
    "dl",
    { class: "figures" },
    ...list.map(([name, value]) =>
      make("div", {}, make("dt", {}, name), make("dd", {}, String(value || value === 0 ? value : "–"))),
    ),
  );
}

function nullIfNan(value) {
  return Number.isNaN(value) ? null : value;
}

function sides(details, label, verdict) {
  const [golden, actual] = verdict ? [verdict.golden, verdict.actual] : details.labels[label];
  const names = ["dtype", "shape", "device", "labelled at", "tensor", "kept", "number"];
  const table = make(
    "table",
    { class: "sides" },
    make("tr", {}, make("th"), make("th", { scope: "col" }, "golden"), make("th", { scope: "col" }, "actual")),
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
