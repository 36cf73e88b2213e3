"use strict";
// Words with a meaning, told under a pointer or the keyboard's focus; and texts that a click copies.

function listenTerms() {
  const tip = document.getElementById("tip");
  const meanings = new Map(
    [...document.querySelectorAll("#words dt")].map((term) => [term.textContent, term.nextElementSibling.textContent]),
  );
  const hide = () => {
    tip.hidden = true;
  };
  const show = (event) => {
    const of = event.target.closest?.("[data-term]");
    const meaning = of && meanings.get(of.dataset.term);
    if (!meaning) return hide();
    tip.textContent = meaning;
    (document.querySelector("dialog[open]") ?? document.body).append(tip); // a dialog lies above all else
    of.setAttribute("aria-describedby", "tip");
    tip.hidden = false;
    const box = of.getBoundingClientRect();
    const below = box.bottom + tip.offsetHeight + 8 < innerHeight;
    tip.style.left = `${Math.max(8, Math.min(box.left, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${below ? box.bottom + 6 : box.top - tip.offsetHeight - 6}px`;
  };
  document.addEventListener("pointerover", show);
  document.addEventListener("focusin", show);
  document.addEventListener("focusout", hide);
  document.addEventListener("scroll", hide, true);
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
}

/** A word with a meaning that Tab reaches. */
function term(words, name = words) {
  return make("span", { class: "term", tabindex: 0, "data-term": name }, words);
}

function listenCopies() {
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const done = await copy(button.dataset.copy);
    document.getElementById("copied").textContent = done ? `Copied: ${button.dataset.copy}` : "The browser does not let this page copy.";
    button.classList.add(done ? "done" : "failed");
    setTimeout(() => button.classList.remove("done", "failed"), 1200);
  });
}

async function copy(words) {
  try {
    await navigator.clipboard.writeText(words);
    return true;
  } catch {
    const field = make("textarea", { readonly: "" });
    field.value = words;
    (document.querySelector("dialog[open]") ?? document.body).append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}
