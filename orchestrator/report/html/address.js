"use strict";
// The address names what is open: #label=...&task=...&occurrence=...&rank=...

/** Write the open label and rank into the address; null for none. */
function writeAddress(page, label, column) {
  const wanted = new URLSearchParams();
  if (label !== null) {
    wanted.set("label", page.labels.name[label]);
    wanted.set("task", page.labels.task[label]);
    if (page.labels.occurrence[label]) wanted.set("occurrence", page.labels.occurrence[label]);
    wanted.set("rank", page.columns[column].ranks[0]);
  }
  const hash = label === null ? "" : `#${wanted}`;
  if (location.hash !== hash) history.replaceState(null, "", hash || location.pathname + location.search);
}

/** Return the label and column that the address names: null for none, a text on what is not there. */
function readAddress(page) {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const name = wanted.get("label");
  if (name === null) return null;
  const { labels } = page;
  const number = (key) => Number(wanted.get(key) ?? 0);
  const fits = (label) =>
    (!wanted.has("task") || labels.task[label] === number("task")) && labels.occurrence[label] === number("occurrence");
  const label = labels.name.findIndex((each, i) => each === name && fits(i));
  if (label < 0) return `The address names a label that this report does not have: ${name}`;
  const column = wanted.has("rank") ? page.columns.findIndex(({ ranks }) => ranks.includes(number("rank"))) : null;
  return column === -1 ? `The address names a rank that this report does not have: ${number("rank")}` : { label, column };
}
