"use strict";
// The rows of the table of labels, out of the page's own figures: one for each cell of (label, column) that is wanted.

const NUMBERS = ["margin", "relL2", "own"];

/** Make the rows of the table; a page on a server has others. */
let makeRows = (page) => new PageRows(page);

/** Rows by query. The server of a report has the same method, and so the same table. */
class PageRows {
  constructor(page) {
    this.page = page;
    this.every = [...page.columns.keys()];
    const { labels } = page;
    this.kinds = labels.kinds.map((kind) => kind.join(" ").toLowerCase());
    this.names = labels.name.map((_, label) => labelName(page, label));
    this.lower = this.names.map((name) => name.toLowerCase());
    this.byName = once(() => places(this.names));
    this.bySide = [0, 1, 3].map((part) => once(() => places(labels.name.map((_, label) => sideWords(page, label, part)))));
  }

  /** Return how many rows there are, how many of each look, and a function from a place to a row. */
  find({ words, looks, columns, order, descending }) {
    const { page } = this;
    const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
    const kindHas = wanted.map((word) => this.kinds.map((kind) => kind.includes(word)));
    const { golden, actual } = page.labels;
    const has = (label) =>
      wanted.every(
        (word, i) => this.lower[label].includes(word) || kindHas[i][golden[label]] || kindHas[i][actual[label]],
      );
    const cells = this.cells(columns);
    const counts = new Map();
    const found = cells.filter((cell) => {
      if (wanted.length && !has(Math.floor(cell / page.figures.width))) return false;
      const look = page.faces[page.figures.faces[cell]]?.colour;
      counts.set(look, (counts.get(look) ?? 0) + 1);
      return !looks.size || looks.has(look);
    });
    this.sort(found, order, descending);
    return { total: found.length, counts, row: (place) => this.row(found[place]) };
  }

  /** Return the cells of the columns: "worst" of each label, "every", or the number of one. */
  cells(columns) {
    const { figures, labels } = this.page;
    const found = [];
    for (let label = 0; label < labels.name.length; label++) {
      if (columns === "worst") {
        const { face, column } = figures.worst([label], this.every);
        if (face) found.push(label * figures.width + column);
      } else {
        for (const column of columns === "every" ? this.every : [columns]) {
          const cell = label * figures.width + column;
          if (figures.faces[cell]) found.push(cell);
        }
      }
    }
    return Uint32Array.from(found);
  }

  sort(cells, order, descending) {
    const key = this.key(order);
    const sign = descending ? -1 : 1;
    cells.sort((a, b) => sign * (key(a) - key(b)) || a - b);
  }

  key(order) {
    const { figures, labels } = this.page;
    const { width } = figures;
    const ofLabel = (values) => (cell) => values[Math.floor(cell / width)];
    if (NUMBERS.includes(order)) return (cell) => figures[order][cell];
    if (order === "status") return (cell) => figures.faces[cell];
    if (order === "rank") return (cell) => cell % width;
    if (order === "label") return ofLabel(this.byName());
    if (order === "task") return ofLabel(labels.task);
    const side = ["dtype", "shape", "site"].indexOf(order);
    return side < 0 ? (cell) => cell : ofLabel(this.bySide[side]());
  }

  row(cell) {
    const { figures, columns } = this.page;
    const [label, column] = [Math.floor(cell / figures.width), cell % figures.width];
    const value = (name) => figures.value(figures[name][cell] ?? 0);
    const [margin, relL2, own] = NUMBERS.map(value);
    return rowOf(this.page, label, column, { face: figures.faces[cell], rank: columns[column].name, margin, relL2, own });
  }
}

/** A row of the table: what is known of a label on a rank or column, with what the page knows of the label. */
function rowOf(page, label, column, known) {
  const [dtype, shape, site] = [0, 1, 3].map((part) => sideWords(page, label, part));
  return { label, column, name: labelName(page, label), task: page.labels.task[label], dtype, shape, site, ...known };
}

/** What a label's sides have for a part (dtype, shape, device, call site): golden's, and actual's where it differs. */
function sideWords(page, label, part) {
  const { golden, actual, kinds } = page.labels;
  const [one, two] = [kinds[golden[label]]?.[part] ?? "", kinds[actual[label]]?.[part] ?? ""];
  if (part === 3) return two || one; // that of the code under test
  return one === two || !two ? one : one ? `${one} / ${two}` : two;
}

/** Return the place of each text in their order, numbers within texts by their value. */
function places(texts) {
  const { compare } = new Intl.Collator("en", { numeric: true });
  const place = new Map([...new Set(texts)].sort(compare).map((text, at) => [text, at]));
  return Uint32Array.from(texts, (text) => place.get(text));
}
