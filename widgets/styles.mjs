// The style sheet of one view: of the shared sheet, the rules that its module can use, for its own elements only.
//
// Each instance of a view carries its sheet, so it should hold no other view's rules; and since a page keeps the sheets of
// all its views, none may reach into another's elements: their order on the page would then matter.

const CLASS = /\.(hl-[\w-]+)/g;

/** Rules of a minified sheet: `[selector, body]`, a body holding rules of its own where the selector starts with `@`. */
function* rules(css) {
  for (let at = 0; at < css.length; ) {
    const open = css.indexOf("{", at);
    if (open < 0) return;
    let close = open + 1;
    for (let depth = 1; depth > 0; close++) depth += css[close] === "{" ? 1 : css[close] === "}" ? -1 : 0;
    yield [css.slice(at, open), css.slice(open + 1, close - 1)];
    at = close;
  }
}

/** The parts of a selector list; commas in brackets do not part it. */
const selectors = (text) => text.split(/,(?![^([]*[)\]])/);

/** The rules of a sheet that a view's module has classes for, bound to elements of that view. */
export function stylesFor(css, kind, module) {
  const words = new Set(module.match(/hl-[\w-]+/g));
  const stems = [...module.matchAll(/(hl-[\w-]*-)\$\{/g)].map(([, stem]) => stem);
  const known = (name) => words.has(name) || stems.some((stem) => name.startsWith(stem));
  let found = "";
  for (const [selector, body] of rules(css)) {
    if (selector.startsWith("@")) {
      const inside = stylesFor(body, kind, module);
      if (inside) found += `${selector}{${inside}}`;
      continue;
    }
    const kept = selectors(selector).filter((one) =>
      [...one.matchAll(CLASS)].every(([, name]) => known(name)),
    );
    const bound = kept.map((one) => one.replaceAll(".hooklab-view", `.hooklab-view[data-view=${kind}]`));
    if (bound.length) found += `${bound.join(",")}{${body}}`;
  }
  return found;
}
