// Search and filter the rows, and save a figure as SVG. The page is whole without it.
"use strict";
const rows = [...document.querySelectorAll(".example")];
const search = document.querySelector(".find");
if (search) {
  const fields = search.querySelectorAll("input, select");
  const told = search.querySelector("output");
  const show = () => {
    const [words, attribute, side] = [...fields].map((f) => f.value);
    const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !(wanted.every((w) => text.includes(w)) && (!attribute || row.dataset.attribute === attribute)
        && (!side || row.dataset.side === side));
    }
    told.textContent = rows.filter((r) => !r.hidden).length + " of " + rows.length + " rows";
  };
  for (const f of fields) f.addEventListener("input", show);
  search.hidden = false;
  show();
}
for (const figure of document.querySelectorAll("figure")) {
  const picture = figure.querySelector("img[src^='data:image/svg']");
  if (!picture) continue;
  const link = document.createElement("a");
  link.href = picture.src;
  link.download = picture.alt.toLowerCase().replace(/[^a-z0-9]+/g, "-").slice(0, 40) + ".svg";
  link.textContent = "SVG";
  figure.querySelector("figcaption").append(" ", link);
}
