"use strict";
// Error against depth, beside the heat map and along its rows: each label's worst and median rank, with warn and fail.

const MOST_POINTS = 1500;

/** Return one point per label, or per run of labels of a row where there are too many: the worst of each. */
function depthPoints(page, rows) {
  const total = rows.reduce((sum, row) => sum + row.labels.length, 0);
  const size = Math.ceil(total / MOST_POINTS);
  const points = [];
  let limits = null;
  rows.forEach((row, number) => {
    const parts = Math.ceil(row.labels.length / size);
    for (let part = 0; part < parts; part++) {
      let worst = null;
      for (const label of row.labels.slice(part * size, (part + 1) * size)) {
        const found = { at: number + (part + 0.5) / parts, ...errorsOf(page, label) };
        if (!worst || found.face > worst.face || (found.face === worst.face && found.error > worst.error)) worst = found;
      }
      const fail = page.labels.fail[worst.label];
      if (fail) limits = [page.labels.warn[worst.label], fail];
      points.push({ ...worst, limits });
    }
  });
  const known = points.find((point) => point.limits)?.limits ?? null;
  for (const point of points) point.limits ??= known;
  return points;
}

/** Return a label's largest and median error over ranks, as it is held against its limit, and its gravest face. */
function errorsOf(page, label) {
  const { figures } = page;
  const limit = page.own ? null : page.labels.fail[label]; // a margin may be that of an own error, with its own limit
  const codes = limit ? figures.margin : figures.relL2;
  const cells = page.columns.map((_, column) => label * figures.width + column).filter((cell) => figures.faces[cell]);
  const sorted = cells
    .map((cell) => codes[cell])
    .filter((code) => code > 0)
    .sort((a, b) => a - b);
  const value = (code) => (code ? figures.value(code) * (limit || 1) : NaN);
  return {
    label,
    error: value(sorted.at(-1)),
    median: value(sorted[sorted.length >> 1]),
    own: page.own ? figures.value(Math.max(...cells.map((cell) => figures.own[cell]), 0)) : NaN,
    face: Math.max(0, ...cells.map((cell) => figures.faces[cell])),
  };
}

const MARKS = {
  "triangle-up": "M0,-4.5L4.5,3.5H-4.5Z",
  x: "M-4,-4L4,4M-4,4L4,-4",
  star: "M0,-5L1.5,-1.5L5,-1.5L2,1L3,5L0,2.5L-3,5L-2,1L-5,-1.5L-1.5,-1.5Z",
  "circle-open": "M-3,0a3,3 0 1,0 6,0a3,3 0 1,0 -6,0",
};

/** Draw the chart of rows that begin at `top` and are `tall` pixels each; `open(label)` is called for a click. */
function drawDepth(page, rows, { top, tall, width, names }, open) {
  const holder = document.getElementById("depth-chart");
  const points = depthPoints(page, rows);
  const finite = points.flatMap((p) => [p.error, p.median, p.own, ...(p.limits ?? [])]).filter((v) => v > 0 && v < Infinity);
  document.getElementById("depth").hidden = !finite.length;
  if (!finite.length) return;
  const left = names ? 112 : 8;
  const [low, high] = [Math.log10(Math.min(...finite) / 3), Math.log10(Math.max(...finite, 1e-2) * 2)];
  const height = top + tall * rows.length + 44;
  const right = width - 14;
  const x = (error) => {
    if (Number.isNaN(error)) return NaN;
    const log = error > 0 ? Math.min(Math.max(Math.log10(error), low), high) : low;
    return left + ((log - low) / (high - low)) * (right - left);
  };
  const y = (at) => top + at * tall;
  const end = y(rows.length);
  const parts = [];
  if (points[0].limits) parts.push(...bands(points, x, y, left, right, end));
  for (const ten of tens(low, high, Math.max(2, Math.floor((right - left) / 70))))
    parts.push(
      svg("path", { class: "grid-line", d: `M${x(10 ** ten)},${y(0)}V${end}` }),
      text(x(10 ** ten), end + 16, `1e${ten}`),
    );
  parts.push(
    text((left + right) / 2, end + 34, "error (logarithmic)"),
    svg("path", { class: "median", d: path(points.map((p) => [x(p.median), y(p.at)])) }),
    page.own ? svg("path", { class: "own", d: path(points.map((p) => [x(p.own), y(p.at)])) }) : null,
    svg("path", { class: "worst", d: path(points.map((p) => [x(p.error), y(p.at)])) }),
    ...points.map((p) => mark(page, p, x(p.error), y(p.at), points.length > 400)),
  );
  if (names) {
    const step = Math.ceil(14 / tall);
    parts.push(
      ...rows.map((row, i) =>
        i % step ? null : text(left - 6, y(i + 0.5) + 4, row.name.length > 16 ? `…${row.name.slice(-15)}` : row.name, "end"),
      ),
    );
  }
  const chosen = svg("circle", { class: "chosen", r: 8, visibility: "hidden" });
  const label = "Error of every label in golden order, with warn and fail; the heat map and the table hold the same";
  const chart = picture(width, height, label, ...parts.filter(Boolean), chosen);
  holder.replaceChildren(chart);
  const nearest = (event) => {
    const at = chartPlace(chart, event);
    return points.reduce((best, p) => (distance(p, at) < distance(best, at) ? p : best));
  };
  const distance = (p, at) => Math.abs(y(p.at) - at.y) * 8 + Math.abs((x(p.error) || left) - at.x);
  chart.addEventListener("pointermove", (event) => {
    const p = nearest(event);
    chosen.setAttribute("cx", x(p.error) || left);
    chosen.setAttribute("cy", y(p.at));
    chosen.setAttribute("visibility", "visible");
    const error = Number.isNaN(p.error) ? "nothing to measure" : `worst rank ${figure(p.error)}, median ${figure(p.median)}`;
    document.getElementById("readout").textContent =
      `${labelName(page, p.label)}: ${page.faces[p.face]?.words ?? "not compared"} · ${error}`;
  });
  chart.addEventListener("pointerleave", () => chosen.setAttribute("visibility", "hidden"));
  chart.addEventListener("click", (event) => open(nearest(event).label));
  depthLegend(page, points);
}

/** The bands below warn and below fail, and the lines of both. */
function bands(points, x, y, left, right, end) {
  const line = (which) => points.map((p, i) => [p.limits[which], i ? (y(points[i - 1].at) + y(p.at)) / 2 : y(0)]);
  const steps = (which) => {
    const found = [];
    line(which).forEach(([value, from], i, all) => found.push([x(value), from], [x(value), all[i + 1]?.[1] ?? end]));
    return found;
  };
  const area = (points, back) => `${path(points)}L${path([...back].reverse()).slice(1)}Z`;
  const [warn, fail] = [steps(0), steps(1)];
  const edge = [
    [left, y(0)],
    [left, end],
  ];
  const last = [
    [right, y(0)],
    [right, end],
  ];
  return [
    svg("path", { class: "band-match", d: area(warn, edge) }),
    svg("path", { class: "band-drift", d: area(fail, warn) }),
    svg("path", { class: "band-wrong", d: area(last, fail) }),
    svg("path", { class: "limit", d: path(warn) }),
    svg("path", { class: "limit", d: path(fail) }),
    text(warn[0][0], y(0) - 5, "warn", "end"),
    text(fail[0][0], y(0) - 5, "fail", "start"),
  ];
}

function mark(page, point, x, y, small) {
  if (Number.isNaN(x)) return null;
  const name = pointClass(page, point);
  const shape = page.faces[point.face]?.point;
  if (name === "after" || shape === "circle" || !MARKS[shape])
    return svg("circle", { class: `point ${name}`, cx: x.toFixed(1), cy: y.toFixed(1), r: small ? 1.4 : 2.6 });
  return svg("path", { class: `point ${name} ${shape}`, d: MARKS[shape], transform: `translate(${x.toFixed(1)},${y.toFixed(1)})` });
}

function pointClass(page, point) {
  const look = page.faces[point.face]?.colour ?? "gap";
  return look.endsWith(" inherited") ? "after" : look.split(" ")[0];
}

function depthLegend(page, points) {
  const line = (name) => sampleOf("path", { class: name, d: "M1,6H25" });
  const band = (name) => sampleOf("rect", { class: name, x: 1, y: 1, width: 24, height: 10 });
  const seen = new Map(points.map((p) => [pointClass(page, p), p]));
  const words = { match: "match", drift: "drift", wrong: "diverged, own", after: "inherited", gap: "not compared", excused: "excused" };
  const marks = [...seen].map(([name, p]) => {
    const sample = mark(page, p, 13, 6, false);
    return legendLine(svg("svg", { class: "sample", width: 26, height: 12, "aria-hidden": "true" }, sample), words[name] ?? name);
  });
  document.getElementById("depth-legend").replaceChildren(
    legendLine(line("worst"), "worst rank"),
    legendLine(line("median"), "median rank"),
    ...(page.own ? [legendLine(line("own"), "own error, worst rank")] : []),
    ...(points[0].limits
      ? [
          legendLine(band("band-match"), "below warn: noise"),
          legendLine(band("band-drift"), "warn to fail: drift"),
          legendLine(band("band-wrong"), "above fail: diverged"),
        ]
      : []),
    ...marks,
  );
}
