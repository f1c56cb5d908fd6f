// A circuit: nodes layer above layer, edges above a threshold between them.
import { dom } from "../core/dom";
import { number } from "../core/format";
import { choice } from "../core/parts";
import { view } from "../core/stage";
import { type GraphFacts, Network, fromSlider, neighbour, toSlider } from "../graph/data";
import { type Marks, marks } from "../graph/nodes";
import { COLOURS, painter } from "../graph/paint";
import { type Plan, plan } from "../graph/place";
import { type Told, table, target, weight } from "../graph/table";

const ARROWS = ["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight"];
const LATER = 250; // milliseconds of rest before the kernel hears of a threshold

export default view<GraphFacts>("graph", (stage) => {
  let network: Network;
  let laid: Plan;
  let drawn: Marks;
  let shown: number[] = [];
  let among = new Set<number>(); // the same, to look up
  let inside = new Set<number>();
  let pinned = new Set<number>();
  let threshold = 0;
  let cursor: number | null = null;
  let pointed: number | null = null;
  let later: ReturnType<typeof setTimeout> | undefined;

  const under = dom("canvas", { class: "hl-canvas", "aria-hidden": "true" });
  const over = dom("canvas", { class: "hl-over-edges", "aria-hidden": "true" });
  const [paintUnder, paintOver] = [painter(under, stage.signal), painter(over, stage.signal)];
  const field = dom("div", {
    class: "hl-graph-field",
    tabindex: 0,
    role: "application",
    "aria-roledescription": "graph",
    "aria-label":
      "graph: left and right go along a layer, up and down along the strongest edge, Enter chooses, P pins, Escape clears",
  });
  const sheet = dom("div", { class: "hl-graph-sheet" }, under, over);
  const panel = dom("div", { class: "hl-graph-panel", tabindex: 0, role: "region", "aria-label": "edges" });
  const counts = dom("span", { class: "hl-counts" });
  const more = dom("p", { class: "hl-tell", hidden: true });
  const legend = dom("p", { class: "hl-quiet hl-legend" });
  field.append(sheet);
  stage.body.append(dom("div", { class: "hl-graph" }, field, panel), legend, more);

  const slider = dom("input", { type: "range", min: 0, max: 1000, "aria-label": "threshold of |weight|" });
  const exact = dom("input", {
    type: "number",
    min: 0,
    step: "any",
    "aria-label": "threshold of |weight|, exactly",
  });
  const unpin = dom("button", { class: "hl-button", type: "button" }, "Clear pins");
  const pinButton = dom(
    "button",
    { class: "hl-button", type: "button", title: "Pin the chosen node (key P)" },
    "Pin",
  );

  const option = (name: string): string => String(stage.options()[name] ?? "");
  const focus = (): number | null => pointed ?? cursor ?? chosen();
  const chosen = (): number | null => {
    const { node, layer, head } = stage.selection();
    const found = network.nodes.findIndex((one) =>
      node === undefined
        ? layer !== undefined &&
          head !== undefined &&
          one.kind === "head" &&
          one.layer === layer &&
          one.index === head
        : one.name === node,
    );
    return found < 0 ? null : found;
  };

  const describe = (node: number): string => {
    const { into, out } = network.around(node, among);
    const first = (edges: number[], from: boolean): string => {
      const i = edges[0];
      if (i === undefined) return "";
      const other = from ? network.nodes[network.start[i]!]!.says : target(network, i, stage.facts().inlets);
      return `, strongest ${from ? "from" : "to"} ${other} ${weight(network.weight[i]!)}`;
    };
    const pins = pinned.has(node) ? " · pinned" : "";
    return `${network.nodes[node]!.says}: edges ${into.length} in${first(into, true)} · ${out.length} out${first(out, false)}${pins}`;
  };

  const told = (): Told => {
    const at = focus();
    if (at === null) return { caption: "all that are shown", parts: [{ title: "strongest", edges: shown }] };
    const { into, out } = network.around(at, among);
    return {
      caption: network.nodes[at]!.says,
      parts: [
        { title: "in", edges: into },
        { title: "out", edges: out },
      ],
    };
  };

  /** What hangs on the node that is looked at: its edges in front, the table, the line below. */
  const light = (): void => {
    const at = focus();
    const { into, out } = at === null ? { into: [], out: [] } : network.around(at, among);
    const near = new Set([...into.map((i) => network.start[i]!), ...out.map((i) => network.stop[i]!)]);
    sheet.classList.toggle("hl-lit", at !== null);
    paintOver(network, laid, [...into, ...out]);
    for (const [i, mark] of drawn.nodes.entries()) {
      mark.classList.toggle("hl-near", i === at || near.has(i));
      mark.classList.toggle("hl-cursor-node", i === cursor);
      mark.classList.toggle("hl-chosen", i === chosen());
      mark.classList.toggle("hl-pinned", pinned.has(i));
      mark.classList.toggle("hl-alone", !inside.has(i));
    }
    drawn.drawing.classList.toggle("hl-hide", option("isolated") === "hide");
    panel.replaceChildren(table(network, told(), stage.facts().inlets, stage.facts().unit));
    stage.say(at === null ? "" : describe(at));
    pinButton.disabled = (cursor ?? chosen()) === null;
    pinButton.textContent = pinned.has(cursor ?? chosen() ?? -1) ? "Unpin" : "Pin";
    unpin.hidden = pinned.size === 0;
  };

  const cut = (): void => {
    shown = network.shown(threshold, option("part") === "pinned" && pinned.size ? pinned : null);
    among = new Set(shown);
    inside = new Set(shown.flatMap((i) => [network.start[i]!, network.stop[i]!]));
    counts.textContent = `${shown.length} of ${network.size} edges, ${inside.size} of ${network.nodes.length} nodes`;
    paintUnder(network, laid, shown);
    light();
  };

  const lay = (): void => {
    const { rows, tokens } = stage.facts();
    const wide = (stage.body.clientWidth || 860) - (stage.body.clientWidth < 720 ? 4 : 300);
    laid = plan(network, rows, tokens, Math.max(260, wide), option("layout") !== "right");
    drawn = marks(network, laid);
    sheet.style.width = `${laid.width}px`;
    sheet.style.height = `${laid.height}px`;
    sheet.replaceChildren(under, over, drawn.drawing);
    cut();
  };

  /** What the slider and the box say of the threshold; the one that it came from is left as it is. */
  const controls = (from?: HTMLInputElement): void => {
    if (from !== slider) slider.value = String(toSlider(threshold, network.most));
    if (from !== exact) exact.value = String(Number(threshold.toPrecision(4)));
    slider.setAttribute("aria-valuetext", `${number(threshold)} ${stage.facts().unit}`.trim());
  };
  const setThreshold = (value: number, from: HTMLInputElement): void => {
    threshold = Number.isFinite(value) && value > 0 ? value : 0;
    controls(from);
    cut();
    clearTimeout(later);
    later = setTimeout(() => {
      later = undefined;
      stage.option("threshold", threshold);
    }, LATER);
  };

  const pin = (node: number): void => {
    if (!pinned.delete(node)) pinned.add(node);
    tellPins();
  };
  const tellPins = (): void => {
    const nodes = [...pinned].map((i) => network.nodes[i]!.name);
    cut();
    stage.ask("pin", { nodes }).catch(() => undefined); // without a kernel they stay on the page
  };
  const choose = (node: number | null): void => {
    if (node === null) {
      stage.select(null);
      return;
    }
    const { name, layer, index, kind, pos } = network.nodes[node]!;
    const words = new Set(stage.facts().axes.map((axis) => axis.name));
    stage.select({
      node: name,
      layer,
      ...(words.has("head") && { head: kind === "head" ? index : null }),
      ...(words.has("pos") && { pos }),
    });
  };

  const at = (event: Event): number | null => {
    const group = (event.target as Element | null)?.closest?.("[data-node]");
    return group ? Number(group.getAttribute("data-node")) : null;
  };
  const on = <E extends Event>(to: EventTarget, name: string, heard: (event: E) => void): void =>
    to.addEventListener(name, heard as EventListener, { signal: stage.signal });
  on(sheet, "pointerover", (event) => {
    const found = at(event);
    if (found === pointed) return;
    pointed = found;
    light();
  });
  on(sheet, "pointerleave", () => {
    if (pointed === null) return;
    pointed = null;
    light();
  });
  on<MouseEvent>(sheet, "click", (event) => {
    const found = at(event);
    if (found === null) return;
    cursor = null;
    if (event.shiftKey) pin(found);
    else choose(found);
  });
  on<KeyboardEvent>(field, "keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const here = cursor ?? chosen();
    const acts: Record<string, () => void> = {
      Enter: () => here !== null && choose(here),
      " ": () => here !== null && choose(here),
      p: () => here !== null && pin(here),
      P: () => here !== null && pin(here),
      Escape: () => {
        cursor = null;
        choose(null);
        light();
      },
    };
    if (ARROWS.includes(event.key)) {
      const start = shown[0] === undefined ? 0 : network.start[shown[0]]!;
      const key = laid.upward ? event.key : TURNED[event.key]!;
      cursor = here === null ? start : neighbour(network, here, key, among);
      pointed = null;
      const stays = here !== null && cursor === here;
      light();
      see(cursor);
      if (stays) stage.say(`${describe(here)} · nothing further that way`);
    } else if (acts[event.key]) acts[event.key]!();
    else return;
    event.preventDefault();
  });
  on(field, "blur", () => {
    cursor = null;
    light();
  });
  on(slider, "input", () => setThreshold(fromSlider(Number(slider.value), network.most), slider));
  on(exact, "change", () => setThreshold(Number(exact.value), exact));
  on(pinButton, "click", () => {
    const node = cursor ?? chosen();
    if (node !== null) pin(node);
  });
  on(unpin, "click", () => {
    pinned = new Set();
    tellPins();
  });

  /** Scroll so that a node is in sight, without moving the page. */
  const see = (node: number): void => {
    const { x, y } = laid.spots[node]!;
    const edge = 60;
    if (x - edge < field.scrollLeft) field.scrollLeft = x - edge;
    if (x + edge > field.scrollLeft + field.clientWidth) field.scrollLeft = x + edge - field.clientWidth;
    if (y - edge < field.scrollTop) field.scrollTop = y - edge;
    if (y + edge > field.scrollTop + field.clientHeight) field.scrollTop = y + edge - field.clientHeight;
  };

  let width = 0;
  const watch = new ResizeObserver(() => {
    if (!network || stage.body.clientWidth === width) return;
    width = stage.body.clientWidth;
    lay();
  });
  watch.observe(stage.body);
  const end = (): void => {
    watch.disconnect();
    clearTimeout(later);
  };
  stage.signal.addEventListener("abort", end, { once: true });

  const tools = (): void => {
    const choices = [
      choice("isolated", ["dim", "hide"], option("isolated"), (one) => stage.option("isolated", one)),
      choice("layers", ["up", "right"], option("layout"), (one) => stage.option("layout", one)),
      choice("part", ["all", "pinned"], option("part"), (one) => stage.option("part", one)),
    ];
    const cutting = stage.facts().measured ? [dom("label", {}, "|weight| ≥", slider, exact)] : [];
    stage.tools.replaceChildren(...cutting, counts, ...choices, pinButton, unpin);
  };
  const swatch = (name: string, colour: string, dash: string): HTMLElement => {
    const line = dom("i", { "aria-hidden": "true" });
    line.style.borderTop = `3px ${dash} ${colour}`;
    return dom("span", {}, line, name);
  };

  return {
    draw() {
      const facts = stage.facts();
      network = Network.of(facts, stage.arrays());
      pinned = new Set(facts.pinned.map((name) => network.nodes.findIndex((one) => one.name === name)));
      [cursor, pointed] = [null, null];
      threshold = Number(stage.options().threshold ?? 0);
      legend.replaceChildren(
        ...(facts.measured
          ? [
              swatch("above zero", COLOURS.positive, "solid"),
              swatch("below zero", COLOURS.negative, "dashed"),
              dom("span", {}, `width: |weight| up to ${number(network.most)} ${facts.unit}`.trim()),
            ]
          : [swatch("a path that is open, not measured", COLOURS.unknown, "dotted")]),
        dom("span", {}, facts.note),
      );
      more.hidden = !facts.left_out;
      more.textContent = facts.left_out;
      tools();
      controls();
      lay();
    },
    selected() {
      light();
    },
    optioned() {
      tools();
      if (!later) threshold = Number(stage.options().threshold ?? 0);
      controls();
      if (laid.upward !== (option("layout") !== "right")) lay();
      else cut();
    },
  };
});

const TURNED: Record<string, string> = {
  ArrowRight: "ArrowUp",
  ArrowLeft: "ArrowDown",
  ArrowUp: "ArrowLeft",
  ArrowDown: "ArrowRight",
};
