// Builds what is on the page. Text goes in as text: nothing here can turn a string into markup.

export const by = (id) => document.getElementById(id);

/** An element with attributes (`on…`: a listener; false or null: left out) and children. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) {
      node.setAttribute(name, value);
    }
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** Replace a node's children. */
export function fill(node, ...children) {
  node.replaceChildren(...children.flat().filter((child) => child !== null));
}

/** Say something in a node, unless it says so already: a screen reader is told of changes only. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Fill a table. Heads: texts, a leading ">" before those of numbers. Rows: texts or nodes. */
export function table(node, caption, heads, rows) {
  const number = heads.map((head) => (head.startsWith(">") ? "number" : null));
  const texts = heads.map((head) => head.replace(/^>/, ""));
  const cell = (content, at) => at === 0
    ? el("th", { scope: "row", class: "long" }, content)
    : el("td", { class: number[at] ?? "long" }, content);
  fill(
    node,
    el("caption", {}, caption),
    el("thead", {}, el("tr", {}, texts.map((text, at) =>
      el("th", { scope: "col", class: number[at] }, text)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map(cell)))),
  );
}

/** A figure with its name, and a line below. */
export function tile(name, value, more = "") {
  return el("div", { class: "tile" }, el("p", { class: "name" }, name),
    el("p", { class: "value" }, value), el("p", { class: "more" }, more));
}

/** A state in words, with a sign and a colour. */
export const state = (kind, text) => el("span", { class: `state ${kind}` }, text);
