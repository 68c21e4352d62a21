import { errorIn, ApiError, getJson, postJson, send } from './http';
import { objects } from './lines';

/** A model on this machine, as `/api/tags` has it. */
export interface Installed {
  name: string;
  size: number;
  modified_at?: string;
  digest?: string;
  details?: {
    family?: string;
    format?: string;
    parameter_size?: string;
    quantization_level?: string;
  };
}

/** What `/api/show` says of a model. */
export interface Details {
  license?: string;
  template?: string;
  system?: string;
  parameters?: string;
  capabilities?: string[];
  details?: Installed['details'];
  model_info?: Record<string, unknown>;
}

/** A model in memory, as `/api/ps` has it. */
export interface Loaded {
  name: string;
  size?: number;
  context_length?: number;
  expires_at?: string;
}

/** A model that can be fetched by its name. */
export interface Offered {
  name: string;
  summary: string;
  licence: string;
  /** Bytes on disk. */
  size: number;
  parameters: number;
  terms: string;
}

/** One line of a pull. */
export interface PullStep {
  status: string;
  digest?: string;
  total?: number;
  completed?: number;
}

export const installed = async (): Promise<Installed[]> =>
  (await getJson<{ models?: Installed[] }>('/api/tags')).models ?? [];

export const loaded = async (): Promise<Loaded[]> =>
  (await getJson<{ models?: Loaded[] }>('/api/ps')).models ?? [];

export const show = (model: string): Promise<Details> => postJson<Details>('/api/show', { model });

export const remove = (model: string): Promise<Response> =>
  send('/api/delete', { model }, undefined, 'DELETE');

/** The steps of fetching a model; throws what the server says that went wrong. */
export async function* pull(model: string, signal: AbortSignal): AsyncGenerator<PullStep> {
  const response = await send('/api/pull', { model, stream: true }, signal);
  if (!response.body) return;
  for await (const step of objects<PullStep>(response.body)) {
    const error = errorIn(step);
    if (error) throw new ApiError(200, error.message);
    yield step;
  }
}

/** The catalogue, whose rows may stand under `models`. */
export async function catalogue(): Promise<Offered[]> {
  const body = await getJson<{ models?: Record<string, unknown>[] }>('/api/catalog');
  return (body.models ?? []).map((row) => ({
    name: String(row['name'] ?? ''),
    summary: String(row['summary'] ?? ''),
    licence: String(row['licence'] ?? row['license'] ?? ''),
    size: Number(row['size'] ?? 0),
    parameters: Number(row['parameters'] ?? 0),
    terms: String(row['licence_terms'] ?? ''),
  }));
}

/** Tokens that a model can read at most, from what it says of itself; `null` if it says nothing. */
export function contextOf(details: Details | undefined): number | null {
  for (const [key, value] of Object.entries(details?.model_info ?? {})) {
    if (key.endsWith('.context_length') && typeof value === 'number' && value > 0) return value;
  }
  return null;
}
