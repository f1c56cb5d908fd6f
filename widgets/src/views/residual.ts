// The residual stream: its length, what is written into it, the way along a direction; one map at a time.
import type { NumberArray } from "../core/arrays";
import type { Scale } from "../core/codes";
import { type Layer, heatmap } from "../core/heatmap";
import type { AxisFacts, Facts } from "../core/model";
import { choice } from "../core/parts";
import { view } from "../core/stage";

interface MapFacts {
  name: string;
  value: string;
  unit: string;
  note: string;
  scale: Scale;
  rows: AxisFacts;
  /** The layer of each row; null for what stands before all layers. */
  layers: (number | null)[];
}

interface ResidualFacts extends Facts {
  maps: MapFacts[];
}

export default view<ResidualFacts>("residual", (stage) => {
  let arrays: Record<string, NumberArray>;
  const map = (): MapFacts => {
    const { maps } = stage.facts();
    return maps.find(({ name }) => name === stage.options().show) ?? maps[0]!;
  };
  const layer = (): Layer => {
    const { name, layers, rows, ...rest } = map();
    const columns = stage.facts().axes.find((one) => one.name === "pos")!;
    return {
      ...rest,
      rows,
      columns,
      values: arrays[name]!.data as Float32Array,
      colours: arrays[`${name}.colours`]!.data as Uint8Array,
      select: ({ row, column }) => ({
        site: rows.keys[row]!,
        pos: columns.keys[column]!,
        layer: layers[row] ?? null,
      }),
      chosen() {
        const { site, layer: at, pos } = stage.selection();
        const row = site === undefined ? layers.indexOf((at as number) ?? -1) : rows.keys.indexOf(site);
        return { row, column: pos === undefined ? -1 : columns.keys.indexOf(pos) };
      },
    };
  };
  const tools = () => {
    const names = stage.facts().maps.map(({ name }) => name);
    return names.length > 1 ? [choice("show", names, map().name, (one) => stage.option("show", one))] : [];
  };
  const scene = heatmap(stage, layer, () => ({ strongest: 0, runs: false }), tools);
  return {
    ...scene,
    draw() {
      arrays = stage.arrays();
      return scene.draw();
    },
  };
});
