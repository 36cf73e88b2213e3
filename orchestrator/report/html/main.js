"use strict";
// Puts the page together.

async function start() {
  const [text, buffer] = await Promise.all([unpack("overview-data", true), unpack("figures-data", false)]);
  const page = JSON.parse(text);
  if (!page.rows.length) return;
  page.faces.unshift(null); // faces count from 1; 0 is no verdict
  page.figures = new Figures(buffer, page.labels.name.length, page.columns.length, page.codes);
  document.getElementById("heat").hidden = false;

  const choice = document.getElementById("task");
  const openLabel = (label, column = null) => openLabels(page, `task ${page.labels.task[label]}`, [label], column);
  const show = () => drawPair(page, rowsOf(page, choice.value), openLabel);
  fillTasks(page, choice);
  choice.addEventListener("change", show);
  show();
  listenResize(show);
  listenTerms();
  listenCopies();
  document.getElementById("labels").hidden = false;
  new LabelTable(page, makeRows(page), (row) => openLabel(row.label, row.column));
  if (page.first) {
    const opener = document.getElementById("opener");
    opener.addEventListener("click", () => openLabel(page.first.label, page.first.column));
    opener.hidden = false;
  }
  const dialog = document.getElementById("label");
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  const openAddressed = () => {
    const found = readAddress(page);
    if (typeof found === "string") say(found);
    else if (found) openLabel(found.label, found.column);
    else if (dialog.open) dialog.close();
  };
  window.addEventListener("hashchange", openAddressed);
  openAddressed();
}

/** Draw the heat map, and the chart beside it where both have room, else below it. */
function drawPair(page, rows, openLabel) {
  const pair = document.getElementById("pair");
  const whole = pair.clientWidth;
  const beside = whole >= 900 && gridFits(page, whole * 0.62);
  pair.classList.toggle("beside", beside);
  pair.classList.toggle("tall", rows.length > 60);
  const place = drawGrid(page, rows, beside ? whole * 0.6 : whole, (row, column) => openLabels(page, row.name, row.labels, column));
  const width = beside ? Math.max(280, whole - document.getElementById("grid").offsetWidth - 24) : Math.min(whole, 760);
  drawDepth(page, rows, beside ? { ...place, width } : { top: 22, tall: Math.max(9, Math.min(place.tall, 360 / rows.length)), width, names: true }, openLabel);
}

/** Call a function once the page's width has changed, and rested. */
function listenResize(work) {
  let [width, timer] = [document.body.clientWidth, null];
  const changed = () => {
    if (document.body.clientWidth === width) return;
    width = document.body.clientWidth;
    clearTimeout(timer);
    timer = setTimeout(work, 150);
  };
  window.addEventListener("resize", changed);
}

function say(words) {
  const trouble = document.getElementById("trouble");
  trouble.textContent = words;
  trouble.hidden = false;
}

/** Offer the tasks, each with its worst mark; that of the first divergence is chosen. */
function fillTasks(page, choice) {
  const all = rowsOf(page, "all");
  if (all.length < 2) return void choice.append(make("option", { value: String(all[0].task) }));
  const every = [...page.columns.keys()];
  choice.append(make("option", { value: "all" }, "all, one row each"));
  for (const row of all) {
    const { face } = page.figures.worst(row.labels, every);
    choice.append(make("option", { value: String(row.task) }, `${row.task}  ${page.faces[face]?.mark ?? ""}`));
  }
  choice.value = String(page.first ? page.labels.task[page.first.label] : all[0].task);
  document.getElementById("task-choice").hidden = false;
}

start().catch((error) => {
  const old = typeof DecompressionStream === "undefined";
  say(
    old
      ? "The charts need a browser from 2023 or later. report.json and report.csv hold the same facts."
      : `The charts could not be drawn: ${error.message}`,
  );
  if (!old) throw error;
});
