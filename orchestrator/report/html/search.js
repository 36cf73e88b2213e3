"use strict";
// The search box: labels by a part of their name.

const MOST_FOUND = 30;

/** Wire the search box; `open(label)` is called for the one that is chosen. */
function listenSearch(page, open) {
  const query = document.getElementById("query");
  const found = document.getElementById("found");
  const every = [...page.columns.keys()];
  const close = () => {
    found.hidden = true;
  };

  const search = () => {
    const wanted = query.value.trim().toLowerCase();
    if (!wanted) return close();
    const hits = [];
    let more = 0;
    page.labels.name.forEach((name, label) => {
      if (!name.toLowerCase().includes(wanted)) return;
      if (hits.length < MOST_FOUND) hits.push(label);
      else more++;
    });
    const items = hits.map((label) => {
      const { face } = page.figures.worst([label], every);
      const button = make(
        "button",
        { type: "button", class: "" },
        dress(page, make("b", { class: "swatch" }), face, 0),
        make("span", {}, labelName(page, label)),
        make("i", {}, `task ${page.labels.task[label]}`),
      );
      button.addEventListener("click", () => {
        close();
        open(label);
      });
      return make("li", {}, button);
    });
    const rest = more
      ? `and ${more.toLocaleString("en")} more: type more of the name`
      : hits.length
        ? ""
        : "no such label";
    found.replaceChildren(...items, ...(rest ? [make("li", { class: "quiet" }, rest)] : []));
    found.hidden = false;
  };

  query.addEventListener("input", search);
  query.addEventListener("focus", search);
  document.getElementById("search").addEventListener("keydown", (event) => {
    const buttons = [...found.querySelectorAll("button")];
    const at = buttons.indexOf(document.activeElement);
    if (event.key === "Escape") {
      close();
      query.value = "";
      query.focus();
      close();
    } else if (event.key === "ArrowDown") (buttons[at + 1] ?? query).focus();
    else if (event.key === "ArrowUp") (buttons[at - 1] ?? query).focus();
    else if (event.key === "Enter" && at < 0 && buttons.length) buttons[0].click();
    else return;
    event.preventDefault();
  });
  document.addEventListener("pointerdown", (event) => {
    if (!event.target.closest("#search")) close();
  });
}
