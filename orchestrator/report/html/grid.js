"use strict";
// The heat map: a table with one row per layer and one column per rank, for the eye, the pointer and the arrow keys.

/** How strong a face's colour is, in percent: near the limit, or far beyond it. */
function nearness(page, face, margin) {
  if (!page.faces[face] || Number.isNaN(margin) || margin <= 0) return 0;
  const decades = Math.log10(margin);
  const share = decades > 0 ? decades / 3 : 1 + decades / 4;
  return Math.round(100 * Math.min(Math.max(share, 0), 1));
}

/** Dress an element in a face: colour and mark. */
function dress(page, element, face, margin) {
  const look = page.faces[face];
  element.classList.add("face", ...(look ? look.colour.split(" ") : []));
  const near = look ? nearness(page, face, margin) : 0;
  if (near) element.style.setProperty("--near", `${near}%`);
  element.textContent = look ? look.mark : "";
  return element;
}

/** Say what stands in a cell. */
function cellWords(page, row, column) {
  const where = column === null ? row.name : `${row.name} · rank ${page.columns[column].name}`;
  const columns = column === null ? page.columns.keys() : [column];
  const { face, margin } = page.figures.worst(row.labels, [...columns]);
  if (!face) return `${where}: not labelled`;
  const error = ofLimit(page.figures.value(margin));
  return [`${where}: ${page.faces[face].words}`, error, count(row.labels.length, "label")].filter(Boolean).join(" · ");
}

/** Return the rows of a task, or, for "all", one row per task. */
function rowsOf(page, task) {
  if (task !== "all") return page.rows.filter((row) => String(row.task) === task);
  const merged = new Map();
  for (const row of page.rows) {
    if (!merged.has(row.task)) merged.set(row.task, { task: row.task, name: `task ${row.task}`, labels: [] });
    merged.get(row.task).labels.push(...row.labels);
  }
  return [...merged.values()];
}

/** Draw the grid of some rows in so many pixels; `open(row, column)` is called for the cell that is chosen.

    Return where its rows begin and how tall they are, for what is drawn beside it. */
function drawGrid(page, rows, room, open) {
  const holder = document.getElementById("grid");
  const columns = [...page.columns.keys()];
  const table = make("table", {
    class: "grid",
    role: "grid",
    "aria-label": "Worst status of the labels of each layer on each rank",
  });
  const cell = cellWidth(page, room);
  table.style.setProperty("--cell", `${cell}px`);
  table.style.setProperty("--tall", `${rows.length > 60 ? 15 : rows.length > 30 ? 18 : 22}px`);
  table.append(heading(page, columns, cell));
  const body = make("tbody");
  const seen = new Set();
  for (const row of rows) body.append(line(page, row, columns, seen));
  drawLegend(page, seen);
  table.append(body);
  holder.replaceChildren(table);
  const cells = [...body.rows].map((one) => [...one.cells].slice(0, columns.length + 1));
  const chosen = markFirst(page, rows, cells);
  listen(page, table, rows, cells, chosen ?? [0, Math.min(1, columns.length)], open);
  if (chosen) for (const scroller of [holder.closest(".pair"), holder]) bringIntoView(scroller, cells[chosen[0]][chosen[1]]);
  const [start, first, second] = [table, body.rows[0], body.rows[1]].map((one) => one?.getBoundingClientRect());
  return { top: first.top - start.top, tall: second ? second.top - first.top : first.height + 1 };
}

const BESIDE_CELLS = 340; // names, and the column of errors

function cellWidth(page, room) {
  return Math.max(15, Math.min(44, Math.floor((room - BESIDE_CELLS) / page.columns.length) - 1));
}

/** Whether the grid needs no more room than so many pixels. */
function gridFits(page, room) {
  return BESIDE_CELLS + page.columns.length * 16 <= room;
}

function heading(page, columns, cell) {
  const head = make("thead");
  const hosts = columns.map((column) => page.columns[column].hosts.map((host) => `host ${host}`).join(", "));
  if (new Set(hosts).size > 1) {
    const band = make("tr", {}, make("td"));
    for (let start = 0, end; start < columns.length; start = end) {
      for (end = start + 1; end < columns.length && hosts[end] === hosts[start];) end++;
      band.append(make("th", { class: "host", colspan: end - start, title: hosts[start] }, hosts[start]));
    }
    head.append(band);
  }
  const names = make("tr", {}, make("th", { class: "name", scope: "col" }, "rank"));
  for (const column of columns) {
    const { name } = page.columns[column];
    const long = name.length * 7 > cell + 2;
    names.append(make("th", { scope: "col", class: long ? "long" : null }, name));
  }
  names.append(make("th", { class: "error", scope: "col" }, "largest rel L2"));
  head.append(names);
  return head;
}

function line(page, row, columns, seen) {
  const { figures } = page;
  const tr = make(
    "tr",
    {},
    make("th", { class: "name", scope: "row", role: "rowheader", tabindex: -1, title: row.name }, row.name),
  );
  let largest = 0;
  for (const column of columns) {
    const found = figures.worst(row.labels, [column]);
    seen.add(found.face);
    const td = dress(
      page,
      make("td", { class: "cell", role: "gridcell", tabindex: -1 }),
      found.face,
      figures.value(found.margin),
    );
    td.setAttribute("aria-label", found.face ? page.faces[found.face].words : "not labelled");
    tr.append(td);
    for (const label of row.labels) largest = Math.max(largest, figures.relL2[label * figures.width + column]);
  }
  tr.append(make("td", { class: "error" }, figure(figures.value(largest))));
  return tr;
}

/** Ring the first divergence and return its place in the grid; null where it is not shown. */
function markFirst(page, rows, cells) {
  const at = page.first && rows.findIndex((row) => row.labels.includes(page.first.label));
  if (!page.first || at < 0) return null;
  const found = cells[at][page.first.column + 1];
  found.classList.add("first");
  return [at, page.first.column + 1];
}

function bringIntoView(holder, cell) {
  const [inner, outer] = [cell.getBoundingClientRect(), holder.getBoundingClientRect()];
  if (inner.bottom > outer.bottom) holder.scrollTop += inner.top - outer.top - outer.height / 2;
  if (inner.right > outer.right) holder.scrollLeft += inner.left - outer.left - outer.width / 2;
}

const STEPS = {
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
  PageUp: [-10, 0],
  PageDown: [10, 0],
  Home: [0, -1e6],
  End: [0, 1e6],
};

/** One cell is in the tab order at a time; arrows move it, Enter or Space opens it. */
function listen(page, table, rows, cells, start, open) {
  if (!cells.length) return;
  let [x, y] = [start[1], start[0]];
  const clamp = (value, length) => Math.min(Math.max(value, 0), length - 1);
  const place = new Map(cells.flatMap((line, i) => line.map((cell, j) => [cell, [i, j]])));
  const choose = (i, j) => {
    cells[y][x].tabIndex = -1;
    [y, x] = [clamp(i, cells.length), clamp(j, cells[0].length)];
    cells[y][x].tabIndex = 0;
  };
  const say = (target) => {
    const at = place.get(target);
    if (at) document.getElementById("readout").textContent = cellWords(page, rows[at[0]], at[1] ? at[1] - 1 : null);
  };
  choose(y, x);
  table.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (step) {
      choose(y + step[0], x + step[1]);
      cells[y][x].focus();
    } else if (event.key === "Enter" || event.key === " ") {
      open(rows[y], x ? x - 1 : null);
    } else return;
    event.preventDefault();
  });
  table.addEventListener("click", (event) => {
    const at = place.get(event.target.closest("td, th"));
    if (!at) return;
    choose(...at);
    cells[y][x].focus();
    open(rows[y], x ? x - 1 : null);
  });
  table.addEventListener("pointerover", (event) => say(event.target));
  table.addEventListener("focusin", (event) => {
    const at = place.get(event.target);
    if (at) choose(...at);
    say(event.target);
  });
}

/** Explain the marks that the grid shows. */
function drawLegend(page, seen) {
  const told = new Map();
  page.faces.forEach((look, face) => {
    if (look && seen.has(face)) told.set(look.colour, face);
  });
  const entries = [...told].map(([colour, face]) => {
    return make("span", {}, dress(page, make("i", { class: "swatch", "aria-hidden": "true" }), face, 0.01), lookWords(page, face));
  });
  if (seen.has(0)) entries.push(make("span", {}, make("i", { class: "swatch" }), "blank: not labelled there"));
  document.getElementById("legend").replaceChildren(...entries);
}
