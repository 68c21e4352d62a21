import type { Token } from './chat';
import { ApiError, errorIn, postJson, send } from './http';
import { events } from './lines';

/** The probabilities of a completion as `/v1/completions` has them: a token's is `null` if nothing stands before it. */
export interface WireLogprobs {
  tokens: string[];
  token_logprobs: (number | null)[];
  top_logprobs?: (Record<string, number> | null)[] | null;
}

interface WireCompletion {
  choices?: { text?: string; logprobs?: WireLogprobs | null; finish_reason?: string | null }[];
  usage?: { prompt_tokens: number; completion_tokens: number } | null;
}

/** A part of a completion. */
export interface Written {
  text: string;
  tokens: Token[];
}

/** Tokens with their alternatives, the likeliest first; a token with nothing before it has the probability 1. */
export function tokensOf(logprobs: WireLogprobs | null | undefined): Token[] {
  return (logprobs?.tokens ?? []).map((text, i) => {
    const others = Object.entries(logprobs?.top_logprobs?.[i] ?? {});
    return {
      text,
      logprob: logprobs?.token_logprobs[i] ?? 0,
      others: others.map(([other, logprob]) => ({ text: other, logprob })).sort((a, b) => b.logprob - a.logprob),
    };
  });
}

const written = (body: WireCompletion): Written => {
  const choice = body.choices?.[0];
  return { text: choice?.text ?? '', tokens: tokensOf(choice?.logprobs) };
};

/** What follows a text, or lies between it and `suffix`; piece by piece. */
export async function* complete(fields: Record<string, unknown>, signal: AbortSignal): AsyncGenerator<Written> {
  const response = await send('/v1/completions', { ...fields, stream: true }, signal);
  if (!response.body) return;
  for await (const data of events(response.body)) {
    if (data === '[DONE]') return;
    const body = JSON.parse(data) as WireCompletion;
    const error = errorIn(body);
    if (error) throw new ApiError(200, error.message, error.field);
    yield written(body);
  }
}

/** A text with its own probabilities, and what follows it, at once. */
export async function echo(fields: Record<string, unknown>, signal: AbortSignal): Promise<Written> {
  return written(await postJson<WireCompletion>('/v1/completions', { ...fields, echo: true }, signal));
}

/** A vector for each text. */
export async function embed(model: string, input: string[], signal: AbortSignal): Promise<{ vectors: number[][]; tokens: number }> {
  const body = await postJson<{ data: { index: number; embedding: number[] }[]; usage?: { prompt_tokens?: number } }>(
    '/v1/embeddings', { model, input, encoding_format: 'float' }, signal,
  );
  const data = [...body.data].sort((a, b) => a.index - b.index);
  return { vectors: data.map(({ embedding }) => embedding), tokens: body.usage?.prompt_tokens ?? 0 };
}

/** The cosine of the angle between two vectors; 0 if one of them is 0. */
export function cosine(a: number[], b: number[]): number {
  let [product, lengthA, lengthB] = [0, 0, 0];
  a.forEach((x, i) => {
    const y = b[i] ?? 0;
    product += x * y;
    lengthA += x * x;
    lengthB += y * y;
  });
  return lengthA > 0 && lengthB > 0 ? product / Math.sqrt(lengthA * lengthB) : 0;
}

/** A token of a text: its text, or its bytes if they are no text alone. */
export interface Piece {
  id: number;
  piece: string | number[];
}

export const tokenize = async (model: string, content: string, signal: AbortSignal): Promise<Piece[]> =>
  (await postJson<{ pieces?: Piece[] }>('/tokenize', { model, content, with_pieces: true }, signal)).pieces ?? [];
