"use strict";
// Puts the page together: heat map first, charts when they come into view.

async function start() {
  const [text, buffer] = await Promise.all([unpack("overview-data", true), unpack("figures-data", false)]);
  const page = JSON.parse(text);
  if (!page.rows.length) return;
  page.faces.unshift(null); // faces count from 1; 0 is no verdict
  page.figures = new Figures(buffer, page.labels.name.length, page.columns.length, page.codes);
  document.getElementById("heat").hidden = false;
  document.getElementById("depth").hidden = false;

  const choice = document.getElementById("task");
  const openLabel = (label) => openLabels(page, `task ${page.labels.task[label]}`, [label], null);
  const depth = document.getElementById("depth-chart");
  let seen = false;
  const show = () => {
    const rows = rowsOf(page, choice.value);
    drawGrid(page, rows, (row, column) => openLabels(page, row.name, row.labels, column));
    if (seen) drawDepth(page, rows, openLabel);
  };
  fillTasks(page, choice);
  choice.addEventListener("change", show);
  show();
  listenSearch(page, openLabel);
  const drawDepthOnce = once(() => {
    seen = true;
    drawDepth(page, rowsOf(page, choice.value), openLabel);
  });
  const watch = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && drawDepthOnce());
  watch.observe(depth);
  // Unpacking the library takes long enough to be felt, so it waits for a quiet moment; printing finds the chart drawn.
  setTimeout(() => (window.requestIdleCallback ?? setTimeout)(drawDepthOnce), 2000);
  if (page.first) {
    const opener = document.getElementById("opener");
    opener.addEventListener("click", () =>
      openLabels(page, `task ${page.labels.task[page.first.label]}`, [page.first.label], page.first.column),
    );
    opener.hidden = false;
  }
  const dialog = document.getElementById("label");
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
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
  const trouble = document.getElementById("trouble");
  const old = typeof DecompressionStream === "undefined";
  trouble.textContent = old
    ? "The charts need a browser from 2023 or later. report.json and report.csv hold the same facts."
    : `The charts could not be drawn: ${error.message}`;
  trouble.hidden = false;
  if (!old) throw error;
});
