"use strict";
// The charts of one label: how large its errors are, and where along rows or channels they lie.

/** Pixels that a chart of the dialog may take. */
function chartWidth() {
  return Math.max(240, Math.min(680, (document.querySelector("dialog .one")?.clientWidth ?? 680) - 40));
}

/** How often an error of each size occurs, by powers of two of |d| / rms(x). */
function histogramChart(found) {
  const [width, height, left, bottom, top] = [chartWidth(), 170, 46, 40, 14];
  const low = Math.min(found.log2, -8) - 0.5;
  const high = Math.max(found.log2 + found.counts.length, 2) + 0.5;
  const most = Math.max(...found.counts, 1);
  const x = (power) => left + ((power - low) / (high - low)) * (width - left - 8);
  const y = (count) => height - bottom - (count / most) * (height - bottom - top);
  const bars = found.counts.map((count, i) =>
    svg(
      "rect",
      {
        class: "bar",
        x: x(found.log2 + i) + 0.5,
        width: Math.max(x(1) - x(0) - 1, 1),
        y: y(count),
        height: Math.max(height - bottom - y(count), count ? 1 : 0),
      },
      svg(
        "title",
        {},
        `${count.toLocaleString("en")} values of ${figure(2 ** (found.log2 + i))} to ${figure(2 ** (found.log2 + i + 1))}`,
      ),
    ),
  );
  const ticks = tens(low * Math.log10(2), high * Math.log10(2), 8).map((ten) =>
    text(x(ten / Math.log10(2)), height - bottom + 16, `1e${ten}`),
  );
  const axis = svg("path", { class: "axis", d: `M${left},${height - bottom}H${width - 8}` });
  const scale = [text(left - 6, y(most) + 4, most.toLocaleString("en", { notation: "compact" }), "end"), text(left - 6, y(0), "0", "end")];
  const caption = text((left + width) / 2, height - 6, "error ÷ rms of golden; height: number of values");
  return picture(width, height, "How often an error of each size occurs", ...bars, axis, ...ticks, ...scale, caption);
}

/** The error along rows or channels, one line of cells per rank, with a legend and what a pointer is over. */
function stripsChart(found, noun) {
  const small = found.errors.flat().filter((value) => typeof value === "number" && value > 0);
  const lowest = Math.log10(Math.max(Math.min(...small, 1), 1e-12));
  const highest = Math.max(...small.map(Math.log10), lowest + 1);
  const shown = Math.min(lowest, highest - 2);
  const share = (value) =>
    value === "inf" ? 1 : value <= 0 ? 0 : Math.max(0, (Math.log10(value) - shown) / (highest - shown));
  const [width, left, bottom] = [chartWidth(), 62, 38];
  const tall = Math.max(5, Math.min(20, Math.floor(420 / found.ranks.length)));
  const height = tall * found.ranks.length + bottom + 4;
  const bins = found.errors[0].length;
  const wide = (width - left - 8) / bins;
  const cells = svg("g", {});
  found.errors.forEach((line, i) =>
    line.forEach((value, j) => {
      if (value === null) return;
      const place = { x: (left + j * wide).toFixed(2), width: (wide + 0.2).toFixed(2), y: 2 + i * tall, height: tall - 1 };
      const cell = svg("rect", place);
      cell.style.fill = heat(share(value));
      cells.append(cell);
    }),
  );
  const names = found.ranks.map((rank, i) =>
    tall > 9 || i % 4 === 0 ? text(left - 6, i * tall + tall / 2 + 5, `rank ${rank}`, "end") : null,
  );
  const marks = [0, 0.25, 0.5, 0.75, 1].map((part) => Math.min(Math.round(part * (bins - 1)), bins - 1));
  const ticks = [...new Set(marks)].map((j) =>
    text(left + (j + 0.5) * wide, height - bottom + 16, (found.start + j * found.step).toLocaleString("en")),
  );
  const caption = text((left + width) / 2, height - 5, `${noun} of the whole tensor`);
  const chart = picture(width, height, `Relative error by ${noun}`, cells, ...names, ...ticks, caption);
  const ramp = make("i", { class: "ramp", "aria-hidden": "true" });
  const said = make("span", { class: "said" }, "");
  chart.addEventListener("pointermove", (event) => {
    const at = chartPlace(chart, event);
    const [i, j] = [Math.floor((at.y - 2) / tall), Math.floor((at.x - left) / wide)];
    const value = found.errors[i]?.[j];
    const first = found.start + j * found.step;
    const where = found.step > 1 ? `${noun}s ${first}–${first + found.step - 1}` : `${noun} ${first}`;
    said.textContent = value === undefined || value === null ? "" : `rank ${found.ranks[i]}, ${where}: ${figure(value)}`;
  });
  const legend = make("p", { class: "legend" }, make("span", {}, figure(10 ** shown), ramp, figure(10 ** highest)), said);
  return make("div", {}, chart, legend);
}

/** The place of an event in a picture's own units. */
function chartPlace(chart, event) {
  const box = chart.getBoundingClientRect();
  const { width, height } = chart.viewBox.baseVal;
  return { x: ((event.clientX - box.left) / box.width) * width, y: ((event.clientY - box.top) / box.height) * height };
}

/** The colour of an error by its share of the scale. */
function heat(share) {
  const low = Math.min(share / 0.5, 1);
  const high = Math.max((share - 0.5) / 0.5, 0);
  return `color-mix(in oklab, var(--wrong) ${Math.round(100 * high)}%, color-mix(in oklab, var(--after-strong) ${Math.round(100 * low)}%, var(--cold)))`;
}

/** The text that a label's rows are the tokens of, with the error under each token. */
function tokenStrip(tokens, found) {
  const errors = tokens.texts.map((_, row) => {
    const values = found.errors.map((line) => line[Math.floor((row - found.start) / found.step)] ?? null);
    const known = values.filter((value) => value !== null).map((value) => (value === "inf" ? Infinity : value));
    return known.length ? Math.max(...known) : NaN;
  });
  const finite = errors.filter((value) => value > 0 && value < Infinity);
  const [low, high] = [Math.log10(Math.min(...finite, 1)), Math.log10(Math.max(...finite, 1e-12))];
  const strip = make("div", { class: "tokens" });
  tokens.texts.forEach((words, row) => {
    const error = errors[row];
    const share = error === Infinity ? 1 : error > 0 ? (Math.log10(error) - low) / Math.max(high - low, 1) : 0;
    const bar = make("i");
    bar.style.background = heat(share);
    const told = Number.isNaN(error) ? "–" : figure(error);
    strip.append(make("span", { title: `${tokens.names[row]}: ${told}` }, make("b", {}, words || "␣"), bar, make("small", {}, told)));
  });
  return strip;
}
