"use strict";
// A label, opened: a dialog with the labels of a cell beside all that is known of the chosen one.

/** Return what is known of labels in full: of all that the page has, whichever is asked for. */
let loadDetails = once(async () => indexDetails(JSON.parse(await unpack("details-data", true))));

function indexDetails(found) {
  found.byCell = new Map(found.verdicts.map((verdict) => [`${verdict.label}/${verdict.rank}`, verdict]));
  found.rowsOf = new Map(found.rows.map((strip) => [strip.label, strip]));
  found.channelsOf = new Map(found.channels.map((strip) => [strip.label, strip]));
  return found;
}

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
  dialog.onclose = () => writeAddress(page, null);
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
  writeAddress(page, label, column);
  const details = await loadDetails(label);
  if (holder.label !== label) return; // another one was chosen meanwhile
  const cell = label * page.figures.width + column;
  const face = page.figures.faces[cell];
  const { ranks, name } = page.columns[column];
  const verdicts = ranks.map((rank) => details.byCell.get(`${label}/${rank}`)).filter(Boolean);
  const verdict = verdicts.sort((a, b) => b.face - a.face)[0];
  const where = [`task ${page.labels.task[label]}`, page.labels.level[label], page.labels.basis[label]];
  const rest = make(
    "details",
    { class: "rest" },
    make("summary", {}, "All figures, both sides"),
    figureList(allFigures(page, cell, verdict, details)),
    sides(page, label, verdict),
  );
  const parts = [
    make("h2", { id: "label-title" }, labelName(page, label)),
    make("p", { class: "where" }, where.filter(Boolean).join(" · ")),
    rankButtons(page, label, column, (other) => showLabel(page, holder, label, other)),
    make("p", {}, tag(page, face), verdict && ranks.length > 1 ? `rank ${verdict.rank}: ` : "", verdict?.reason ?? ""),
    root(page, label),
    verdict?.excused ? make("p", { class: "hint" }, `Does not count: ${verdict.excused}`) : null,
    sideBriefs(page, label, verdict),
    worstValues(verdict),
    worstStrip(verdict?.worst_row),
    hints(details, label, ranks, verdict),
    scale(page, label, cell, verdict),
    ...labelCharts(page, label, details, verdict),
    make("h3", {}, "Figures"),
    figureList(firstFigures(page, cell, verdict, details)),
    rest,
    snippet(details, label, verdict),
    !verdict && face && !page.faces[face].words.startsWith("match")
      ? make("p", { class: "line quiet" }, `The page has no room for all figures of rank ${name}; report.csv has them.`)
      : null,
  ];
  holder.replaceChildren(...parts.filter(Boolean));
  holder.scrollTop = 0;
}

/** The charts of a label, each with its title. */
function labelCharts(page, label, details, verdict) {
  const rows = details.rowsOf.get(label);
  const channels = details.channelsOf.get(label);
  const tokens = rows && page.tokens.find(({ task, texts }) => task === page.labels.task[label] && texts.length === rows.count);
  const charts = [
    rows && tokens ? ["Error under each token", tokenStrip(tokens, rows)] : null,
    verdict?.histogram ? ["Histogram of the error", histogramChart(verdict.histogram)] : null,
    rows ? ["Relative error by row", stripsChart(rows, "row")] : null,
    channels ? ["Relative error by channel", stripsChart(channels, "channel")] : null,
  ];
  return charts
    .filter(Boolean)
    .flatMap(([title, chart]) => [make("h3", {}, title), make("div", { class: "chart" }, chart)]);
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
