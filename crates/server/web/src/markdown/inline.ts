import type { Inline } from './tree';
import { safeAddress } from './links';

/** How deep emphasis and links may be nested; what is deeper stays as it is written. */
const DEPTH = 12;

/** Characters within which a mark must be closed: hostile text costs no more than its length times this. */
const REACH = 4000;

const ENTITIES: Record<string, string> = {
  amp: '&', lt: '<', gt: '>', quot: '"', apos: "'", nbsp: '\u00a0', copy: '©', mdash: '—', ndash: '–', hellip: '…',
};

/** Reads running text: code, emphasis, links, mathematics. HTML stays the text that it is. */
export function inline(source: string, depth = 0): Inline[] {
  const out: Inline[] = [];
  let text = '';
  let at = 0;
  const flush = () => {
    if (text !== '') out.push({ kind: 'text', text });
    text = '';
  };
  while (at < source.length) {
    const found = depth < DEPTH ? piece(source, at, depth) : null;
    if (found) {
      if (typeof found.piece === 'string') text += found.piece;
      else {
        flush();
        out.push(found.piece);
      }
      at = found.end;
    } else {
      text += source[at];
      at += 1;
    }
  }
  flush();
  return out;
}

interface Found {
  piece: Inline | string;
  end: number;
}

/** The piece that begins at `at`, if any does. */
function piece(source: string, at: number, depth: number): Found | null {
  switch (source[at]) {
    case '\\':
      return escape(source, at);
    case '`':
      return code(source, at);
    case '$':
      return dollars(source, at);
    case '*':
    case '_':
    case '~':
      return emphasis(source, at, depth);
    case '!':
      return source[at + 1] === '[' ? picture(source, at) : null;
    case '[':
      return link(source, at, depth);
    case '<':
      return pointed(source, at);
    case '&':
      return entity(source, at);
    case '\n':
      return { piece: { kind: 'break' }, end: at + 1 };
    case ' ':
      return spaces(source, at);
    case 'h':
      return bare(source, at);
    default:
      return null;
  }
}

function escape(source: string, at: number): Found | null {
  const next = source[at + 1] ?? '';
  const close = next === '(' ? '\\)' : next === '[' ? '\\]' : null;
  if (close) {
    const end = source.indexOf(close, at + 2);
    if (end > 0) return { piece: { kind: 'math', text: source.slice(at + 2, end).trim() }, end: end + 2 };
  }
  if (next === '\n') return { piece: { kind: 'break' }, end: at + 2 };
  return /[!-/:-@[-`{-~]/.test(next) ? { piece: next, end: at + 2 } : null;
}

function code(source: string, at: number): Found | null {
  const fence = /^`+/.exec(source.slice(at, at + 32))?.[0] ?? '`';
  let end = at + fence.length;
  for (;;) {
    end = source.indexOf(fence, end);
    if (end < 0) return { piece: fence, end: at + fence.length };
    if (source[end + fence.length] !== '`' && source[end - 1] !== '`') break;
    while (source[end] === '`') end += 1;
  }
  let text = source.slice(at + fence.length, end).replace(/\n/g, ' ');
  if (text.startsWith(' ') && text.endsWith(' ') && text.trim() !== '') text = text.slice(1, -1);
  return { piece: { kind: 'code', text }, end: end + fence.length };
}

/** `$x$` is mathematics unless spaces or digits say that it is about money (the rule of Pandoc). */
function dollars(source: string, at: number): Found | null {
  if (source[at + 1] === '$') {
    const end = source.indexOf('$$', at + 2);
    if (end < 0) return null;
    return { piece: { kind: 'math', text: source.slice(at + 2, end).trim() }, end: end + 2 };
  }
  if (/\s/.test(source[at + 1] ?? ' ')) return null;
  const last = Math.min(source.length, at + REACH);
  for (let end = at + 1; end < last && source[end] !== '\n'; end += 1) {
    if (source[end] === '\\') end += 1;
    else if (source[end] === '$') {
      if (/\s/.test(source[end - 1] ?? ' ') || /\d/.test(source[end + 1] ?? '')) return null;
      return { piece: { kind: 'math', text: source.slice(at + 1, end) }, end: end + 1 };
    }
  }
  return null;
}

const isWord = (character: string | undefined) => character !== undefined && /[\p{L}\p{N}]/u.test(character);

function emphasis(source: string, at: number, depth: number): Found | null {
  const sign = source[at] as string;
  const run = source[at + 1] === sign ? sign + sign : sign;
  if (sign === '~' && run.length < 2) return null;
  const start = at + run.length;
  if (/\s/.test(source[start] ?? ' ') || (sign === '_' && isWord(source[at - 1]))) return null;
  let end = start;
  for (;;) {
    end = source.indexOf(run, end);
    if (end < 0 || end > at + REACH) return null;
    const after = end + run.length;
    const isSplit = run.length === 1 && (source[after] === sign || source[end - 1] === sign);
    const closes = !/\s/.test(source[end - 1] ?? ' ') && source[end - 1] !== '\\' && end > start;
    if (closes && !isSplit && !(sign === '_' && isWord(source[after]))) {
      // In `**a *b***` the outer pair ends last.
      const shift = run.length === 2 && source[after] === sign ? 1 : 0;
      const kind = sign === '~' ? 'deleted' : run.length === 2 ? 'strong' : 'emphasis';
      const children = inline(source.slice(start, end + shift), depth + 1);
      return { piece: { kind, children }, end: after + shift };
    }
    end += run.length === 1 && isSplit ? 2 : 1;
  }
}

/** The end of the bracket that opens at `at`, or -1. */
function closing(source: string, at: number, open: string, close: string): number {
  let level = 0;
  const last = Math.min(source.length, at + REACH);
  for (let i = at; i < last; i += 1) {
    if (source[i] === '\\') i += 1;
    else if (source[i] === open) level += 1;
    else if (source[i] === close) {
      level -= 1;
      if (level === 0) return i;
    }
  }
  return -1;
}

/** The address in `(address "title")` that opens at `at`. */
function target(source: string, at: number): { address: string; end: number } | null {
  if (source[at] !== '(') return null;
  const end = closing(source, at, '(', ')');
  if (end < 0) return null;
  const inside = source.slice(at + 1, end).trim();
  const address = /^<([^<>\n]*)>/.exec(inside)?.[1] ?? /^\S*/.exec(inside)?.[0] ?? '';
  return { address, end: end + 1 };
}

function link(source: string, at: number, depth: number): Found | null {
  const end = closing(source, at, '[', ']');
  if (end < 0) return null;
  const goal = target(source, end + 1);
  if (!goal) return null;
  const children = inline(source.slice(at + 1, end), depth + 1);
  const href = safeAddress(goal.address);
  // A link that leads nowhere safe keeps its words and shows its address.
  if (href === null) return { piece: source.slice(at + 1, end) + ` (${goal.address})`, end: goal.end };
  return { piece: { kind: 'link', href, children }, end: goal.end };
}

/** Pictures are never fetched: their description is shown. */
function picture(source: string, at: number): Found | null {
  const end = closing(source, at + 1, '[', ']');
  if (end < 0) return null;
  const goal = target(source, end + 1);
  if (!goal) return null;
  return { piece: { kind: 'picture', text: source.slice(at + 2, end) || goal.address }, end: goal.end };
}

function pointed(source: string, at: number): Found | null {
  const found = /^<((?:https?:\/\/|mailto:)[^\s<>]+)>/i.exec(source.slice(at, at + 2048));
  const href = found && safeAddress(found[1] as string);
  if (!found || !href) return null;
  const children: Inline[] = [{ kind: 'text', text: found[1] as string }];
  return { piece: { kind: 'link', href, children }, end: at + found[0].length };
}

function entity(source: string, at: number): Found | null {
  const found = /^&(#x[0-9a-f]{1,6}|#\d{1,7}|[a-z]{2,8});/i.exec(source.slice(at, at + 12));
  if (!found) return null;
  const name = found[1] as string;
  const end = at + found[0].length;
  if (name.startsWith('#')) {
    const number = /^#x/i.test(name) ? parseInt(name.slice(2), 16) : parseInt(name.slice(1), 10);
    const isWhole = number > 0 && number <= 0x10ffff && !(number >= 0xd800 && number < 0xe000);
    return { piece: isWhole ? String.fromCodePoint(number) : '\ufffd', end };
  }
  const character = ENTITIES[name];
  return character === undefined ? null : { piece: character, end };
}

/** Two spaces at the end of a line break it, and so does the end of the line alone: models mean what they write. */
function spaces(source: string, at: number): Found | null {
  const end = /^ +\n/.exec(source.slice(at, at + 80));
  return end ? { piece: { kind: 'break' }, end: at + end[0].length } : null;
}

/** An address in the text that no brackets mark. */
function bare(source: string, at: number): Found | null {
  if (isWord(source[at - 1])) return null;
  const found = /^https?:\/\/[^\s<>"'`\\|*]+/i.exec(source.slice(at, at + 2048));
  if (!found) return null;
  let text = found[0].replace(/[.,;:!?，。；：！？]+$/u, '');
  if (text.endsWith(')') && !text.includes('(')) text = text.slice(0, -1);
  const href = safeAddress(text);
  return href ? { piece: { kind: 'link', href, children: [{ kind: 'text', text }] }, end: at + text.length } : null;
}
