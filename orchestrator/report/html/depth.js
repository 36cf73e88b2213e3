"use strict";
// Error against depth: the worst and the median rank of every label in golden order, over the band of round-off.

const MOST_POINTS = 1500;

/** Return one point per label, or per run of consecutive labels where there are too many: the worst of each. */
function depthPoints(page, rows) {
  const labels = rows.flatMap((row) => row.labels).sort((a, b) => a - b);
  const size = Math.ceil(labels.length / MOST_POINTS);
  const points = [];
  let limits = null;
  for (let i = 0; i < labels.length; i += size) {
    const run = labels.slice(i, i + size);
    let worst = null;
    for (const label of run) {
      const found = { at: i, ...errorsOf(page, label) };
      if (!worst || found.face > worst.face || (found.face === worst.face && found.error > worst.error)) worst = found;
    }
    const fail = page.labels.fail[worst.label];
    if (fail) limits = [page.labels.warn[worst.label], fail];
    points.push({ ...worst, limits });
  }
  const known = points.find((point) => point.limits)?.limits ?? null;
  for (const point of points) point.limits ??= known;
  return points;
}

/** Return a label's largest and median error over ranks, as it is held against its limit, and its gravest face. */
function errorsOf(page, label) {
  const { figures } = page;
  const limit = page.labels.fail[label];
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
    face: Math.max(0, ...cells.map((cell) => figures.faces[cell])),
  };
}

/** Draw the chart of a task's rows; `open(label)` is called for the point that is clicked. */
async function drawDepth(page, rows, open) {
  const element = document.getElementById("depth-chart");
  const points = depthPoints(page, rows);
  const finite = points.flatMap((p) => [p.error, p.median, ...(p.limits ?? [])]).filter((v) => v > 0 && v < Infinity);
  if (!finite.length) return void (element.parentElement.hidden = true);
  element.parentElement.hidden = false;
  const [bottom, top] = [Math.min(...finite) / 4, Math.max(...finite, 1e-2) * 3];
  const x = points.map((point) => point.at);
  const clip = (error) => (Number.isNaN(error) ? null : Math.min(Math.max(error, bottom * 1.2), top / 1.2));
  const told = points.map((p) => {
    const rest = [
      page.faces[p.face]?.words ?? "not compared",
      Number.isNaN(p.error) ? "nothing to measure" : `worst rank ${figure(p.error)}, median ${figure(p.median)}`,
    ];
    return [plainText(labelName(page, p.label)), ...rest].join("<br>");
  });
  const small = points.length > 400 ? 2 : 4;
  const symbol = (p) => (inherits(page, p) ? "circle" : (page.faces[p.face]?.point ?? "circle-open"));
  const band = (limit, fill) => ({
    type: "scatter",
    mode: "lines",
    x: [x[0] - 0.5, ...x, x.at(-1) + 0.5],
    y: limit,
    hoverinfo: "skip",
    fill,
    line: { shape: "hvh", width: 1, color: colour("soft"), dash: "dot" },
  });
  const edges = (values) => [values[0], ...values, values.at(-1)];
  const of = (i) => edges(points.map((p) => p.limits[i]));
  const traces = () => [
    ...(points[0].limits
      ? [
          { ...band(edges(points.map(() => bottom))), line: { width: 0 } },
          { ...band(of(0), "tonexty"), fillcolor: withAlpha(colour("match-strong"), 0.28) },
          { ...band(of(1), "tonexty"), fillcolor: withAlpha(colour("drift"), 0.22) },
        ]
      : []),
    {
      type: "scatter",
      mode: "lines",
      x,
      y: points.map((p) => clip(p.median)),
      line: { width: 1, color: colour("soft") },
      hoverinfo: "skip",
      name: "median",
    },
    {
      type: "scatter",
      mode: "lines+markers",
      x,
      y: points.map((p) => clip(p.error)),
      text: told,
      hovertemplate: "%{text}<extra></extra>",
      name: "worst rank",
      line: { width: 1.5, color: colour("ink") },
      marker: {
        symbol: points.map(symbol),
        size: points.map((p) =>
          inherits(page, p) || symbol(p) === "circle" ? small : symbol(p) === "x" ? 10 : 2 * small,
        ),
        color: points.map((p) => pointColour(page, p)),
        opacity: 1,
        line: { width: 0 },
      },
      customdata: points.map((p) => p.label),
    },
  ];
  const ticks = depthTicks(rows, element.clientWidth);
  const note = (y, text) => ({
    x: 1,
    xref: "paper",
    xanchor: "right",
    y: Math.log10(y),
    yanchor: "bottom",
    text,
    showarrow: false,
    font: { size: 11, color: colour("soft") },
  });
  const [floor, limit] = points.at(-1).limits ?? [];
  await draw(element, traces, () => ({
    hovermode: "closest",
    hoverdistance: 40,
    annotations: limit ? [note(floor, "floor"), note(limit, "limit")] : [],
    margin: { l: 56, r: 12, t: 10, b: 76 },
    dragmode: matchMedia("(pointer: fine)").matches ? "zoom" : false,
    xaxis: {
      tickvals: ticks.map((t) => t[0]),
      ticktext: ticks.map((t) => plainText(t[1])),
      range: [x[0] - 0.5, x.at(-1) + 0.5],
      fixedrange: false,
      showgrid: false,
      tickangle: 40,
      tickfont: { size: 11 },
    },
    yaxis: {
      type: "log",
      range: [Math.log10(bottom), Math.log10(top)],
      tickvals: tens(Math.log10(bottom), Math.log10(top)).map((ten) => 10 ** ten),
      ticktext: tens(Math.log10(bottom), Math.log10(top)).map((ten) => `1e${ten}`),
      title: { text: "relative error" },
    },
  }));
  element.removeAllListeners?.("plotly_click");
  element.on("plotly_click", (event) => event.points[0].customdata !== undefined && open(event.points[0].customdata));
}

function inherits(page, point) {
  return page.faces[point.face]?.colour.endsWith(" inherited") ?? false;
}

function pointColour(page, point) {
  if (inherits(page, point)) return colour("after-ink");
  const [name] = (page.faces[point.face]?.colour ?? "gap").split(" ");
  return colour({ match: "match-ink", drift: "drift-strong", wrong: "wrong" }[name] ?? "gap-text");
}

/** Return [x, name] of as many layers as there is room for. */
function depthTicks(rows, width) {
  const labels = rows.flatMap((row) => row.labels).sort((a, b) => a - b);
  const place = new Map(labels.map((label, at) => [label, at]));
  const starts = rows.map((row) => [place.get(row.labels[0]), row.name]);
  const step = Math.ceil(starts.length / Math.max(2, Math.floor(width / 64)));
  return starts
    .filter((_, i) => i % step === 0)
    .map(([at, name]) => [at, name.length > 18 ? `…${name.slice(-17)}` : name]);
}

function withAlpha(hex, alpha) {
  const [red, green, blue] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  return `rgba(${red},${green},${blue},${alpha})`;
}
