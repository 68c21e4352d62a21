import { ApiError, errorIn, send } from './http';
import { events } from './lines';

/** A token that was written, and those that might have been. `logprob` in nats. */
export interface Token {
  text: string;
  logprob: number;
  others: { text: string; logprob: number }[];
}

export interface ToolCall {
  name: string;
  arguments: string;
}

export interface Usage {
  prompt: number;
  completion: number;
  cached: number;
}

/** What one event of a stream adds. */
export interface Delta {
  text: string;
  thinking: string;
  toolCalls: { index: number; name: string; arguments: string }[];
  tokens: Token[];
  finish: string | null;
  usage: Usage | null;
  warnings: string[];
}

export type Part = { type: 'text'; text: string } | { type: 'image_url'; image_url: { url: string } };

export interface Message {
  role: 'system' | 'user' | 'assistant';
  content: string | Part[];
}

interface WireToken {
  token: string;
  logprob: number;
  top_logprobs?: { token: string; logprob: number }[];
}

interface WireChunk {
  choices?: {
    delta?: {
      content?: string | null;
      reasoning?: string | null;
      reasoning_content?: string | null;
      tool_calls?: { index: number; function?: { name?: string; arguments?: string } }[];
    };
    logprobs?: { content?: WireToken[] | null } | null;
    finish_reason?: string | null;
  }[];
  usage?: {
    prompt_tokens: number;
    completion_tokens: number;
    prompt_tokens_details?: { cached_tokens?: number };
  } | null;
  warnings?: unknown[];
}

/** What one event says; throws what the server says that went wrong. */
export function deltaOf(data: string): Delta {
  const chunk = JSON.parse(data) as WireChunk;
  const error = errorIn(chunk);
  if (error) throw new ApiError(200, error.message, error.field);
  const choice = chunk.choices?.[0];
  const delta = choice?.delta;
  const usage = chunk.usage;
  return {
    text: delta?.content ?? '',
    thinking: delta?.reasoning ?? delta?.reasoning_content ?? '',
    toolCalls: (delta?.tool_calls ?? []).map((call) => ({
      index: call.index,
      name: call.function?.name ?? '',
      arguments: call.function?.arguments ?? '',
    })),
    tokens: (choice?.logprobs?.content ?? []).map((token) => ({
      text: token.token,
      logprob: token.logprob,
      others: (token.top_logprobs ?? []).map((other) => ({ text: other.token, logprob: other.logprob })),
    })),
    finish: choice?.finish_reason ?? null,
    usage: usage
      ? {
          prompt: usage.prompt_tokens,
          completion: usage.completion_tokens,
          cached: usage.prompt_tokens_details?.cached_tokens ?? 0,
        }
      : null,
    warnings: (chunk.warnings ?? []).map((warning) =>
      typeof warning === 'string' ? warning : (errorIn({ error: warning })?.message ?? JSON.stringify(warning)),
    ),
  };
}

/** The answer to a conversation, piece by piece. `options` are fields of the request besides model and messages. */
export async function* chat(
  model: string,
  messages: Message[],
  options: Record<string, unknown>,
  signal: AbortSignal,
): AsyncGenerator<Delta> {
  const body = { model, messages, stream: true, stream_options: { include_usage: true }, ...options };
  const response = await send('/v1/chat/completions', body, signal);
  if (!response.body) throw new ApiError(response.status, 'the reply has no body');
  for await (const data of events(response.body)) {
    if (data === '[DONE]') return;
    yield deltaOf(data);
  }
}
