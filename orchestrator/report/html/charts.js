"use strict";
// What all charts share: the library, unpacked when the first chart is wanted, and the page's colours.

const loadLibrary = once(async () => {
  const script = document.createElement("script");
  script.textContent = await unpack("library-data", true);
  document.head.append(script);
});

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** Draw a chart in the page's colours, and again when these change. */
async function draw(element, content, settings) {
  await loadLibrary();
  if (!element.isConnected) return;
  const layout = settings();
  const axis = {
    color: colour("soft"),
    gridcolor: colour("line"),
    linecolor: colour("line"),
    zeroline: false,
    ticks: "outside",
    tickcolor: colour("line"),
  };
  const base = {
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("soft") },
    paper_bgcolor: "transparent",
    plot_bgcolor: "transparent",
    showlegend: false,
    dragmode: false,
    bargap: 0.08,
    margin: { l: 56, r: 12, t: 8, b: 44 },
    hoverlabel: {
      bgcolor: colour("raised"),
      bordercolor: colour("line"),
      font: { color: colour("ink") },
      align: "left",
    },
    ...layout,
    xaxis: { ...axis, fixedrange: true, ...layout.xaxis },
    yaxis: { ...axis, fixedrange: true, ...layout.yaxis },
  };
  await Plotly.react(element, content(), base, {
    displayModeBar: false,
    responsive: true,
    showTips: false,
    doubleClick: "reset",
  });
  element.redraw = () => draw(element, content, settings);
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const element of document.querySelectorAll(".js-plotly-plot")) element.redraw?.();
});

/** Text that the library shows as it is: it reads some HTML in texts. */
function plainText(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** How often an error of each size occurs, by powers of two of |d| / rms(x). */
function drawHistogram(element, found) {
  const powers = found.counts.map((_, i) => found.log2 + i);
  const bars = () => [
    {
      type: "bar",
      x: powers.map((power) => power + 0.5),
      y: found.counts,
      marker: { color: colour("accent") },
      customdata: powers.map((power) => [figure(2 ** power), figure(2 ** (power + 1))]),
      hovertemplate: "%{y:,} values<br>%{customdata[0]} to %{customdata[1]}<extra></extra>",
    },
  ];
  const decades = [];
  for (let ten = -12; ten <= 8; ten++) decades.push(ten);
  return draw(element, bars, () => ({
    xaxis: {
      title: { text: "error / rms of golden" },
      tickvals: decades.map((ten) => ten * Math.log2(10)),
      ticktext: decades.map((ten) => `1e${ten}`),
      range: [Math.min(powers[0], -8) - 0.5, Math.max(powers.at(-1) + 1, 2) + 0.5],
      showgrid: false,
    },
    yaxis: { title: { text: "values" }, tickformat: ",~s" },
  }));
}

/** The error along rows or channels, one line of cells per rank. */
function drawStrips(element, found, noun) {
  const small = found.errors.flat().filter((value) => typeof value === "number" && value > 0);
  const lowest = Math.log10(Math.max(Math.min(...small, 1), 1e-12));
  const highest = Math.max(...small.map(Math.log10), lowest + 1);
  const log = (value) => (value === null ? null : value === "inf" ? highest : value <= 0 ? lowest : Math.log10(value));
  const bins = found.errors[0].map((_, i) => found.start + i * found.step);
  const names = bins.map((first) =>
    found.step > 1 ? `${noun}s ${first}–${first + found.step - 1}` : `${noun} ${first}`,
  );
  const cells = () => [
    {
      type: "heatmap",
      x0: found.start + (found.step - 1) / 2,
      dx: found.step,
      y: found.ranks.map((rank) => `rank ${rank}`),
      z: found.errors.map((line) => line.map(log)),
      zmin: Math.min(lowest, highest - 2),
      zmax: highest,
      hoverongaps: false,
      showscale: found.ranks.length > 3,
      text: found.errors.map((line) => line.map((value, i) => `${names[i]}: ${figure(value)}`)),
      hovertemplate: "%{y}<br>%{text}<extra></extra>",
      colorscale: [
        [0, colour("raised")],
        [0.35, colour("after")],
        [0.75, colour("wrong")],
        [1, colour("wrong-strong")],
      ],
      ygap: 1,
      colorbar: {
        thickness: 8,
        outlinewidth: 0,
        len: 1,
        tickvals: tens(lowest, highest),
        ticktext: tens(lowest, highest).map((ten) => `1e${ten}`),
      },
    },
  ];
  element.style.height = `${Math.min(84 + 22 * found.ranks.length, 460)}px`;
  return draw(element, cells, () => ({
    margin: { l: 72, r: 8, t: 6, b: 42 },
    xaxis: { title: { text: `${noun} of the whole tensor` }, showgrid: false, tickformat: ",d" },
    yaxis: { type: "category", autorange: "reversed", showgrid: false, ticks: "" },
  }));
}

function tens(lowest, highest) {
  const found = [];
  const step = Math.max(1, Math.ceil((highest - lowest) / 6));
  for (let ten = Math.ceil(lowest); ten <= highest; ten += step) found.push(ten);
  return found;
}
