"use strict";
// What all charts share: SVG elements in the page's colours, which CSS gives, and logarithmic axes.

/** Make an SVG element. */
function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** A picture of so many pixels, which shrinks with its page. */
function picture(width, height, label, ...children) {
  const size = { viewBox: `0 0 ${width} ${height}`, width, height };
  return svg("svg", { class: "picture", role: "img", "aria-label": label, ...size }, ...children);
}

/** The powers of ten between two logarithms, at most `most` of them. */
function tens(lowest, highest, most = 6) {
  const found = [];
  const step = Math.max(1, Math.ceil((highest - lowest) / most));
  for (let ten = Math.ceil(lowest); ten <= highest; ten += step) found.push(ten);
  return found;
}

function text(x, y, words, anchor = "middle", name = null) {
  return svg("text", { x, y, "text-anchor": anchor, class: name }, words);
}

/** Join points to a path; NaN breaks it. */
function path(points) {
  let joined = "";
  let pen = "M";
  for (const [x, y] of points) {
    if (Number.isNaN(x) || Number.isNaN(y)) pen = "M";
    else {
      joined += `${pen}${x.toFixed(1)},${y.toFixed(1)}`;
      pen = "L";
    }
  }
  return joined;
}

/** A line of a legend: a sample of what is drawn, and its words. */
function legendLine(sample, words) {
  return make("span", {}, sample, words);
}

/** A sample of a line, a band or a mark, drawn as in the chart. */
function sampleOf(tag, attributes) {
  return svg("svg", { class: "sample", width: 26, height: 12, "aria-hidden": "true" }, svg(tag, attributes));
}
