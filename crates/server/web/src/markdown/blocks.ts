import type { Alignment, Block, Item } from './tree';

/** How deep quotes and lists may be nested; what is deeper is a paragraph. */
const DEPTH = 8;

/** Reads a text as blocks: CommonMark's and GFM's usual ones. A fence that is not closed yet holds all that follows. */
export function blocks(source: string, depth = 0): Block[] {
  return read(source.replace(/\r\n?/g, '\n').split('\n'), depth);
}

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`\s]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$/;
const RULE = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(\s+|$)/;
const MATH = /^ {0,3}(\$\$|\\\[)(.*)$/;
const DIVIDER = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;

function read(lines: string[], depth: number): Block[] {
  const out: Block[] = [];
  let at = 0;
  const line = (i: number) => lines[i] ?? '';
  while (at < lines.length) {
    const current = line(at);
    let found: RegExpExecArray | null;
    if (current.trim() === '') {
      at += 1;
    } else if ((found = FENCE.exec(current))) {
      at = fence(lines, at, found, out);
    } else if ((found = HEADING.exec(current))) {
      out.push({ kind: 'heading', level: (found[1] as string).length, text: found[2] as string });
      at += 1;
    } else if (RULE.test(current)) {
      out.push({ kind: 'rule' });
      at += 1;
    } else if ((found = MATH.exec(current))) {
      at = math(lines, at, found, out);
    } else if (QUOTE.test(current) && depth < DEPTH) {
      const inside: string[] = [];
      while (at < lines.length && (QUOTE.test(line(at)) || continues(line(at), inside.at(-1)))) {
        inside.push(line(at).replace(QUOTE, ''));
        at += 1;
      }
      out.push({ kind: 'quote', children: read(inside, depth + 1) });
    } else if (ITEM.test(current) && depth < DEPTH) {
      at = list(lines, at, depth, out);
    } else if (current.includes('|') && DIVIDER.test(line(at + 1)) && line(at + 1).includes('-')) {
      at = table(lines, at, out);
    } else {
      const start = at;
      at += 1;
      while (at < lines.length && !interrupts(line(at))) at += 1;
      out.push({ kind: 'paragraph', text: lines.slice(start, at).map((l) => l.trimStart()).join('\n').trimEnd() });
    }
  }
  return out;
}

/** Whether a line without a mark goes on with the paragraph before it. */
const continues = (line: string, before: string | undefined) =>
  before !== undefined && before.trim() !== '' && !interrupts(line);

/** Whether a line ends the paragraph before it. */
function interrupts(line: string): boolean {
  if (line.trim() === '') return true;
  const item = ITEM.exec(line);
  const isItem = item !== null && item[3] !== '' && (/^[-*+]/.test(item[2] as string) || parseInt(item[2] as string, 10) === 1);
  return isItem || FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || MATH.test(line);
}

function fence(lines: string[], start: number, found: RegExpExecArray, out: Block[]): number {
  const mark = found[1] as string;
  const indent = (/^ */.exec(lines[start] as string)?.[0] ?? '').length;
  const close = new RegExp(`^ {0,3}${mark[0]}{${mark.length},}\\s*$`);
  let end = start + 1;
  while (end < lines.length && !close.test(lines[end] as string)) end += 1;
  const body = lines.slice(start + 1, end).map((line) => line.replace(new RegExp(`^ {0,${indent}}`), ''));
  out.push({ kind: 'code', language: (found[2] as string).toLowerCase(), text: body.join('\n') });
  return end + 1;
}

function math(lines: string[], start: number, found: RegExpExecArray, out: Block[]): number {
  const close = found[1] === '$$' ? '$$' : '\\]';
  const first = found[2] as string;
  if (first.includes(close)) {
    const [inside = '', ...after] = first.split(close);
    // Words behind the formula: it stands in running text.
    if (after.join(close).trim() !== '') {
      let end = start + 1;
      while (end < lines.length && !interrupts(lines[end] as string)) end += 1;
      out.push({ kind: 'paragraph', text: lines.slice(start, end).join('\n').trim() });
      return end;
    }
    out.push({ kind: 'math', text: inside.trim() });
    return start + 1;
  }
  let end = start + 1;
  while (end < lines.length && !(lines[end] as string).includes(close)) end += 1;
  const last = end < lines.length ? ((lines[end] as string).split(close)[0] as string) : '';
  out.push({ kind: 'math', text: [first, ...lines.slice(start + 1, end), last].join('\n').trim() });
  return end + 1;
}

function list(lines: string[], start: number, depth: number, out: Block[]): number {
  const first = ITEM.exec(lines[start] as string) as RegExpExecArray;
  const sign = (first[2] as string).at(-1) as string;
  const number = parseInt(first[2] as string, 10);
  const items: Item[] = [];
  let at = start;
  while (at < lines.length) {
    const found = ITEM.exec(lines[at] as string);
    if (!found || (found[2] as string).at(-1) !== sign || RULE.test(lines[at] as string)) break;
    const width = Math.min(found[0].length, (found[1] as string).length + (found[2] as string).length + 4) || 1;
    const inside = [(lines[at] as string).slice(found[0].length)];
    at += 1;
    for (; at < lines.length; at += 1) {
      const line = lines[at] as string;
      const indent = /^ */.exec(line)?.[0].length ?? 0;
      if (line.trim() === '') {
        // A blank line belongs to the item if what follows is indented.
        const next = lines[at + 1] ?? '';
        if (next.trim() === '' || /^ {2,}/.test(next)) inside.push('');
        else break;
      } else if (indent >= Math.min(width, 2) && (indent >= width || ITEM.test(line.trimStart()) || indent > 1)) {
        inside.push(line.slice(Math.min(indent, width)));
      } else if (continues(line, inside.at(-1)) && !ITEM.test(line)) inside.push(line);
      else break;
    }
    const box = /^\[([ xX])\]\s+/.exec(inside[0] as string);
    if (box) inside[0] = (inside[0] as string).slice(box[0].length);
    items.push({ done: box ? box[1] !== ' ' : null, children: read(inside, depth + 1) });
    // A blank line between two items keeps the list together.
    if ((lines[at] ?? 'x').trim() === '' && ITEM.exec(lines[at + 1] ?? '')?.[2]?.at(-1) === sign) at += 1;
  }
  out.push({ kind: 'list', start: Number.isNaN(number) ? null : number, items });
  return at;
}

/** The cells of a row; a bar within code or behind a backslash divides nothing. */
function cells(line: string): string[] {
  const inside = line.trim().replace(/^\|/, '').replace(/\|$/, '');
  const out: string[] = [];
  let cell = '';
  let isCode = false;
  for (let i = 0; i < inside.length; i += 1) {
    const sign = inside[i] as string;
    if (sign === '\\' && inside[i + 1] === '|') {
      cell += '|';
      i += 1;
    } else if (sign === '|' && !isCode) {
      out.push(cell.trim());
      cell = '';
    } else {
      if (sign === '`') isCode = !isCode;
      cell += sign;
    }
  }
  return [...out, cell.trim()];
}

function table(lines: string[], start: number, out: Block[]): number {
  const head = cells(lines[start] as string);
  const alignments = cells(lines[start + 1] as string).map((cell): Alignment => {
    const [left, right] = [cell.startsWith(':'), cell.endsWith(':')];
    return left && right ? 'center' : right ? 'right' : left ? 'left' : null;
  });
  let end = start + 2;
  const rows: string[][] = [];
  while (end < lines.length && (lines[end] as string).includes('|') && !FENCE.test(lines[end] as string)) {
    const row = cells(lines[end] as string).slice(0, head.length);
    rows.push([...row, ...Array<string>(head.length - row.length).fill('')]);
    end += 1;
  }
  out.push({ kind: 'table', alignments, head, rows });
  return end;
}
