"use strict";
// Reads what packed.py wrote, and says figures in words.

const parsed = new Promise((done) => document.addEventListener("DOMContentLoaded", done));

/** Return the bytes of a packed element, or its text. */
async function unpack(id, asText) {
  if (!document.getElementById(id)) await parsed; // it stands behind this script
  const text = atob(document.getElementById(id).textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const whole = new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")));
  return asText ? whole.text() : whole.arrayBuffer();
}

/** Run a function at its first call only; later calls get the same promise. */
function once(work) {
  let result;
  return () => (result ??= work() ?? true);
}

/** The page's figures: a face and three or four errors for each (label, column). */
class Figures {
  constructor(buffer, labels, columns, codes) {
    const cells = labels * columns;
    // Little-endian, as every machine with a browser is; copied, for numbers must lie at even places.
    const errors = new Uint16Array(buffer.slice(cells));
    this.width = columns;
    this.codes = codes;
    this.faces = new Uint8Array(buffer, 0, cells);
    const kinds = [0, 1, 2, 3].map((i) => errors.subarray(i * cells, (i + 1) * cells));
    [this.relL2, this.worstRow, this.margin, this.own] = kinds; // the last one is empty where it was not measured
    this.seen = new Set(this.faces);
  }

  /** Whether any cell has a face. */
  has(face) {
    return this.seen.has(face);
  }

  /** Return the value of a code: NaN where there is none. */
  value(code) {
    if (code === 0) return NaN;
    if (code === 1) return 0;
    return code === 65535 ? Infinity : 10 ** ((code - 2) / this.codes.per_decade + this.codes.lowest);
  }

  /** Return the gravest face of labels in columns, with the cell that has it and the largest margin code there. */
  worst(labels, columns) {
    let face = 0,
      margin = 0,
      at = -1;
    for (const label of labels) {
      for (const column of columns) {
        const cell = label * this.width + column;
        const found = this.faces[cell];
        if (found > face || (found === face && found && this.margin[cell] > margin))
          [face, margin, at] = [found, this.margin[cell], cell];
      }
    }
    return { face, margin, label: Math.floor(at / this.width), column: at % this.width };
  }
}

/** Make an element: text is text, whatever it holds; children that are null are left out. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** "4.2e-01" as in the terminal; "" where there is none. */
function figure(value) {
  if (typeof value !== "number" || Number.isNaN(value)) return typeof value === "string" ? value : "";
  if (value === 0 || !Number.isFinite(value)) return value === 0 ? "0" : "inf";
  const [digits, power] = value.toExponential(1).split("e");
  return `${digits}e${power[0]}${power.slice(1).padStart(2, "0")}`;
}

/** A figure with three digits, readable where it is of usual size. */
function exact(value) {
  if (typeof value !== "number") return value ?? "–";
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return value.toLocaleString("en");
  const size = Math.abs(value);
  return size >= 1e-3 && size < 1e5 ? String(Number(value.toPrecision(3))) : figure(value);
}

/** "420 times the limit" or "0.0042 of the limit". */
function ofLimit(margin) {
  if (Number.isNaN(margin)) return "";
  if (margin === Infinity) return "infinitely beyond the limit";
  const amount = margin >= 100 ? Math.round(margin).toLocaleString("en") : String(Number(margin.toPrecision(2)));
  return margin > 1 ? `${amount} times the limit` : `${amount} of the limit`;
}

/** "1 label" or "1,344 labels". */
function count(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}
