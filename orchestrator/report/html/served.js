"use strict";
// The page on a server: its parts, rows and labels are asked for, and not in the page.

async function ask(target) {
  const answer = await fetch(target);
  if (!answer.ok) throw new Error(await answer.text());
  return answer;
}

unpack = async (id, asText) => {
  const answer = await ask(`/part/${id.replace("-data", "")}`);
  return asText ? answer.text() : answer.arrayBuffer();
};

loadDetails = async (label) => indexDetails(await (await ask(`/label?number=${label}`)).json());

const CHUNK = 200;

/** Rows by query, a chunk of them at a time. */
class ServerRows {
  constructor(page) {
    this.page = page;
    this.columnOf = new Map(page.columns.flatMap(({ ranks }, column) => ranks.map((rank) => [rank, column])));
  }

  async find({ words, looks, columns, order, descending }) {
    const query = new URLSearchParams({ words, looks: [...looks].join(","), columns, order, descending });
    const chunks = new Map();
    const fetchChunk = async (number) => {
      query.set("first", number * CHUNK);
      query.set("last", (number + 1) * CHUNK);
      const found = await (await ask(`/rows?${query}`)).json();
      chunks.set(number, found.rows);
      return found;
    };
    const { total, counts } = await fetchChunk(0);
    const load = async (first, last) => {
      for (let number = Math.floor(first / CHUNK); number * CHUNK < last; number++)
        if (!chunks.has(number)) await fetchChunk(number);
    };
    const row = (place) => this.row(chunks.get(Math.floor(place / CHUNK))[place % CHUNK]);
    return { total, counts: new Map(Object.entries(counts)), load, row };
  }

  row([label, rank, face, ...values]) {
    const [margin, relL2, own] = values.map((value) => (value === "inf" ? Infinity : (value ?? NaN)));
    return rowOf(this.page, label, this.columnOf.get(rank), { face, rank, margin, relL2, own });
  }
}

makeRows = (page) => new ServerRows(page);
