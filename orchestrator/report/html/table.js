"use strict";
// The table of labels: only the rows in view are in the document, however many there are.

const ROW_HEIGHT = 32;
const ROWS_AROUND = 12;
const MOST_ROWS = 400_000; // browsers draw no element that is much taller
const PRINTED_ROWS = 60;

const TABLE_COLUMNS = [
  { order: "status", words: "status", term: "status", width: 170 },
  { order: "label", words: "label", term: "label", width: 320 },
  { order: "task", words: "task", term: "task", width: 64, number: true },
  { order: "rank", words: "rank", term: "rank", width: 64, number: true },
  { order: "margin", words: "error ÷ limit", term: "margin", width: 112, number: true },
  { order: "relL2", words: "rel L2", term: "relative L2", width: 92, number: true },
  { order: "own", words: "own L2", term: "own error", width: 92, number: true },
  { order: "shape", words: "shape", term: "shape", width: 150 },
  { order: "dtype", words: "dtype", term: "dtype", width: 110 },
  { order: "site", words: "call site", term: "call site", width: 220 },
];

/** The table, its filters and its keys. `source` finds rows; `open(row)` is called for the one that is chosen. */
class LabelTable {
  constructor(page, source, open) {
    this.page = page;
    this.source = source;
    this.open = open;
    this.scroller = document.getElementById("rows");
    this.query = document.getElementById("query");
    this.columns = TABLE_COLUMNS.filter(
      ({ order }) => (order !== "own" || page.own) && (order !== "task" || new Set(page.labels.task).size > 1),
    );
    this.looks = new Set();
    const wrong = page.faces.some((look, face) => look && !look.words.startsWith("match") && page.figures.has(face));
    this.order = wrong ? "status" : "margin";
    this.descending = true;
    this.at = 0; // the row that the keyboard is on
    this.build();
    this.listen();
    this.find();
  }

  build() {
    this.body = make("tbody");
    this.heads = this.columns.map((column) => this.head(column));
    const columns = this.columns.map(({ width }) => {
      const col = make("col");
      col.style.width = `${width}px`;
      return col;
    });
    const head = make("thead", {}, make("tr", { "aria-rowindex": 1 }, ...this.heads));
    this.table = make("table", { class: "labels", "aria-labelledby": "labels-title" }, make("colgroup", {}, ...columns), head, this.body);
    this.table.style.minWidth = `${this.columns.reduce((sum, { width }) => sum + width, 0)}px`;
    this.scroller.replaceChildren(this.table);
    const choice = document.getElementById("rank");
    const options = [
      ["worst", "worst rank of each label"],
      ["every", "every rank"],
      ...this.page.columns.map(({ name }, column) => [String(column), `rank ${name}`]),
    ];
    choice.replaceChildren(...options.map(([value, words]) => make("option", { value }, words)));
    this.choice = choice;
  }

  head({ order, words, term, number }) {
    const button = make("button", { type: "button", "data-term": term }, words);
    button.addEventListener("click", () => this.sortBy(order));
    return make("th", { scope: "col", class: number ? "number" : null }, button);
  }

  sortBy(order) {
    const numbers = ["status", ...NUMBERS];
    this.descending = this.order === order ? !this.descending : numbers.includes(order);
    this.order = order;
    this.find();
  }

  listen() {
    this.scroller.addEventListener("scroll", () => this.drawSoon());
    new ResizeObserver(() => this.drawSoon()).observe(this.scroller);
    this.query.addEventListener("input", () => this.find());
    this.query.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && this.found.total) this.open(this.found.row(0));
      else if (event.key === "ArrowDown" && this.found.total) this.focus(0);
      else return;
      event.preventDefault();
    });
    this.choice.addEventListener("change", () => this.find());
    this.scroller.addEventListener("keydown", (event) => {
      const step = this.steps()[event.key];
      if (step === undefined || event.target.closest("thead")) return;
      event.preventDefault();
      this.focus(this.at + step);
    });
    this.body.addEventListener("click", (event) => {
      const line = event.target.closest("tr");
      if (!line?.dataset.place || event.target.closest(".copy")) return;
      this.at = Number(line.dataset.place);
      this.open(this.found.row(this.at));
    });
    for (const name of ["beforeprint", "afterprint"])
      window.addEventListener(name, () => {
        this.printed = name === "beforeprint" ? PRINTED_ROWS : null;
        this.draw();
      });
  }

  steps() {
    const screen = Math.max(1, Math.floor(this.scroller.clientHeight / ROW_HEIGHT) - 2);
    return { ArrowDown: 1, ArrowUp: -1, PageDown: screen, PageUp: -screen, Home: -Infinity, End: Infinity };
  }

  /** Find the rows anew and draw from the top. */
  async find() {
    const columns = this.choice.value;
    const query = {
      words: this.query.value,
      looks: this.looks,
      columns: ["worst", "every"].includes(columns) ? columns : Number(columns),
      order: this.order,
      descending: this.descending,
    };
    const turn = (this.turn = (this.turn ?? 0) + 1);
    const found = await this.source.find(query);
    if (turn !== this.turn) return; // another one was asked for meanwhile
    this.found = found;
    this.at = 0;
    this.heads.forEach((head, i) => {
      const chosen = this.columns[i].order === this.order;
      head.setAttribute("aria-sort", chosen ? (this.descending ? "descending" : "ascending") : "none");
    });
    this.table.setAttribute("aria-rowcount", found.total + 1);
    this.scroller.scrollTop = 0;
    const cut = found.total > MOST_ROWS ? `; the table shows the first ${MOST_ROWS.toLocaleString("en")}: filter them` : "";
    document.getElementById("found").textContent = `${found.total.toLocaleString("en")} row${found.total === 1 ? "" : "s"}${cut}`;
    this.drawLooks();
    this.draw();
  }

  /** The filters by status, each with how many rows it would leave. */
  drawLooks() {
    const box = document.getElementById("looks");
    const kinds = new Map();
    this.page.faces.forEach((look, face) => {
      if (look && this.page.figures.has(face)) kinds.set(look.colour, face);
    });
    const shown = [...kinds].reverse().map(([colour, face]) => {
      const chosen = this.looks.has(colour);
      const swatch = dress(this.page, make("i", { class: "swatch", "aria-hidden": "true" }), face, 0.01);
      const number = (this.found.counts.get(colour) ?? 0).toLocaleString("en");
      const button = make("button", { type: "button", class: "look", "aria-pressed": chosen, "data-look": colour }, swatch, lookWords(this.page, face), make("b", {}, number));
      button.addEventListener("click", async () => {
        if (!this.looks.delete(colour)) this.looks.add(colour);
        await this.find();
        box.querySelector(`[data-look="${CSS.escape(colour)}"]`)?.focus();
      });
      return button;
    });
    box.replaceChildren(...shown);
  }

  drawSoon() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      if (this.found) this.draw();
    });
  }

  /** Draw the rows in view, or on paper the first ones. */
  async draw() {
    const total = Math.min(this.found.total, MOST_ROWS);
    const top = Math.floor(this.scroller.scrollTop / ROW_HEIGHT);
    const first = this.printed ? 0 : Math.max(0, top - ROWS_AROUND);
    const end = top + Math.ceil(this.scroller.clientHeight / ROW_HEIGHT) + ROWS_AROUND;
    const last = Math.min(total, this.printed ?? end);
    const { found } = this;
    if (found.load) await found.load(first, last);
    if (found !== this.found) return;
    const focused = this.body.contains(document.activeElement);
    const lines = [];
    for (let place = first; place < last; place++) lines.push(this.line(place));
    const gap = (rows) => {
      const line = make("tr", { class: "space", "aria-hidden": "true" }, make("td", { colspan: this.columns.length }));
      line.style.height = `${rows * ROW_HEIGHT}px`;
      return rows > 0 && !this.printed ? line : null;
    };
    this.body.replaceChildren(...[gap(first), ...lines, gap(total - last)].filter(Boolean));
    if (!total) this.body.append(make("tr", {}, make("td", { colspan: this.columns.length, class: "quiet" }, "no such label")));
    if (focused) (this.button(this.at) ?? this.scroller).focus({ preventScroll: true });
  }

  button(place) {
    return this.body.querySelector(`tr[data-place="${place}"] button`);
  }

  line(place) {
    const row = this.found.row(place);
    const cells = this.columns.map(({ order, number }) =>
      make("td", { class: number ? "number" : order }, this.cell(order, row, place)),
    );
    return make("tr", { "aria-rowindex": place + 2, "data-place": place }, ...cells);
  }

  cell(order, row, place) {
    if (order === "status") return make("span", {}, dress(this.page, make("i", { class: "swatch", "aria-hidden": "true" }), row.face, row.margin), ` ${this.page.faces[row.face].words}`);
    if (order === "label")
      return make("button", { type: "button", class: "link", title: row.name, tabindex: place === this.at ? 0 : -1 }, row.name);
    if (order === "site") return make("span", { title: row.site }, shortSite(row.site));
    const value = row[order];
    return NUMBERS.includes(order) ? (order === "margin" ? exact(Number.isNaN(value) ? null : value) : figure(value)) : String(value);
  }

  /** Put the keyboard on a row, and the row into view. */
  async focus(place) {
    this.at = Math.max(0, Math.min(place, Math.min(this.found.total, MOST_ROWS) - 1));
    const top = this.at * ROW_HEIGHT;
    const room = this.scroller.clientHeight - 2 * ROW_HEIGHT;
    if (top < this.scroller.scrollTop) this.scroller.scrollTop = top;
    else if (top > this.scroller.scrollTop + room) this.scroller.scrollTop = top - room;
    await this.draw();
    this.button(this.at)?.focus({ preventScroll: true });
  }
}

/** The words of a look: those of its face without what tells faces of one look apart. */
function lookWords(page, face) {
  return page.faces[face].words.replace(", bitwise", "").replace(/^.*excused$/, "excused");
}

/** The last two parts of a call site's path. */
function shortSite(site) {
  return site.split("/").slice(-2).join("/");
}
