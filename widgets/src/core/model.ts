// What a view knows of its widget: traits to read and set, messages to send, and nothing of the notebook around it.
export interface Model {
  get(name: string): unknown;
  set(name: string, value: unknown): void;
  save_changes(): void;
  send(content: unknown): void;
  on(event: string, heard: (...given: never[]) => void): void;
  off(event?: string | null, heard?: ((...given: never[]) => void) | null): void;
}

export type Key = string | number | boolean;
export type Selection = Record<string, Key>;
export type Options = Record<string, string | number | boolean>;

export interface AxisFacts {
  name: string;
  keys: Key[];
  labels: string[];
}

export interface Facts {
  kind: string;
  title: string;
  summary: string;
  arrays: Record<string, { kind: string; shape: number[]; at: number }>;
  axes: AxisFacts[];
}

/** Listen to a model for as long as the view lives. */
export function listen(
  model: Model,
  event: string,
  heard: (...given: never[]) => void,
  signal: AbortSignal,
): void {
  model.on(event, heard);
  signal.addEventListener("abort", () => model.off(event, heard), { once: true });
}
