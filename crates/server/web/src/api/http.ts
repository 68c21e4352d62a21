import { apiKey } from '../settings';
import { isRecord } from '../kept';

/** A refusal of the server, or a server that cannot be reached (status 0). */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
    /** The field that is wrong. */
    readonly field: string | null = null,
    /** Seconds after which another try makes sense. */
    readonly retryAfter: number | null = null,
  ) {
    super(message);
  }
}

/** The words of an error in either dialect: `{error: {message, param}}` or `{error: "text"}`. */
export function errorIn(body: unknown): { message: string; field: string | null } | null {
  if (!isRecord(body)) return null;
  const error = body['error'];
  if (typeof error === 'string' && error !== '') return { message: error, field: null };
  if (!isRecord(error)) return null;
  const { message, param } = error;
  return { message: String(message ?? 'error'), field: typeof param === 'string' ? param : null };
}

/** A reply whose status is good. */
export async function call(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  headers.set('Accept', 'application/json');
  if (apiKey.value !== '') headers.set('Authorization', `Bearer ${apiKey.value}`);
  let response: Response;
  try {
    response = await fetch(path, { ...init, headers });
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') throw error;
    throw new ApiError(0, error instanceof Error ? error.message : String(error));
  }
  if (response.ok) return response;
  const text = await response.text();
  let found: ReturnType<typeof errorIn> = null;
  try {
    found = errorIn(JSON.parse(text));
  } catch {
    // Not JSON: the text itself is what there is to show.
  }
  const retry = Number(response.headers.get('Retry-After'));
  throw new ApiError(
    response.status,
    found?.message ?? (text.slice(0, 400) || response.statusText),
    found?.field ?? null,
    Number.isFinite(retry) && retry > 0 ? retry : null,
  );
}

export async function getJson<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await call(path, signal ? { signal } : {});
  return (await response.json()) as T;
}

/** A request with a JSON body. */
export function send(path: string, body: unknown, signal?: AbortSignal, method = 'POST'): Promise<Response> {
  return call(path, {
    method,
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
    ...(signal ? { signal } : {}),
  });
}

export async function postJson<T>(path: string, body: unknown, signal?: AbortSignal): Promise<T> {
  return (await (await send(path, body, signal)).json()) as T;
}
