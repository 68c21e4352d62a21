/** What a piece of code is; `plain` is left as it is. */
export type Ink = 'plain' | 'comment' | 'text' | 'number' | 'keyword' | 'name';

export interface Stroke {
  ink: Ink;
  text: string;
}

interface Language {
  comments: string[];
  strings: string[];
  keywords: string;
}

const C = String.raw`\/\/[^\n]*|\/\*[\s\S]*?(?:\*\/|$)`;
const HASH = '#[^\\n]*';
const DOUBLE = String.raw`"(?:[^"\\\n]|\\.)*"?`;
const SINGLE = String.raw`'(?:[^'\\\n]|\\.)*'?`;
const BACK = '`(?:[^`\\\\]|\\\\[\\s\\S])*`?';
const TRIPLE = String.raw`"""[\s\S]*?(?:"""|$)|'''[\s\S]*?(?:'''|$)`;

const LANGUAGES: Record<string, Language> = {
  js: {
    comments: [C], strings: [DOUBLE, SINGLE, BACK],
    keywords: 'as async await break case catch class const continue default delete do else enum export extends false finally for from function if implements import in instanceof interface let new null of return static super switch this throw true try type typeof undefined var void while yield',
  },
  python: {
    comments: [HASH], strings: [TRIPLE, DOUBLE, SINGLE],
    keywords: 'and as assert async await break class continue def del elif else except False finally for from global if import in is lambda match None nonlocal not or pass raise return self True try while with yield',
  },
  rust: {
    comments: [C], strings: [DOUBLE, String.raw`'(?:[^'\\\n]|\\.)'`],
    keywords: 'as async await break const continue crate dyn else enum extern false fn for if impl in let loop match mod move mut pub ref return self Self static struct super trait true type unsafe use where while',
  },
  go: {
    comments: [C], strings: [DOUBLE, SINGLE, BACK],
    keywords: 'break case chan const continue default defer else fallthrough false for func go goto if import interface map nil package range return select struct switch true type var',
  },
  c: {
    comments: [C], strings: [DOUBLE, SINGLE],
    keywords: 'abstract auto bool boolean break case catch char class const constexpr continue default delete do double else enum extends extern false final float for friend goto if implements import include inline int interface long namespace new null nullptr operator override package private protected public return short signed sizeof static struct super switch template this throw throws true try typedef typename union unsigned using var virtual void volatile while',
  },
  sh: {
    comments: [HASH], strings: [DOUBLE, SINGLE],
    keywords: 'case do done elif else esac exit export fi for function if in local return set then unset until while',
  },
  sql: {
    comments: ['--[^\\n]*', C], strings: [SINGLE, DOUBLE],
    keywords: 'all alter and as asc begin between by case commit create delete desc distinct drop else end exists from group having in index inner insert into is join key left like limit not null on or order outer primary references right rollback select set table then union unique update values view when where with',
  },
  data: { comments: [HASH], strings: [DOUBLE, SINGLE], keywords: 'false null true yes no on off' },
  json: { comments: [], strings: [DOUBLE], keywords: 'false null true' },
  css: { comments: [String.raw`\/\*[\s\S]*?(?:\*\/|$)`], strings: [DOUBLE, SINGLE], keywords: 'important media supports import from to' },
  html: { comments: ['<!--[\\s\\S]*?(?:-->|$)'], strings: [DOUBLE, SINGLE], keywords: '' },
};

const OTHER_NAMES: Record<string, string> = {
  javascript: 'js', jsx: 'js', ts: 'js', tsx: 'js', typescript: 'js', mjs: 'js', py: 'python', rs: 'rust', golang: 'go',
  cpp: 'c', 'c++': 'c', h: 'c', java: 'c', cs: 'c', csharp: 'c', kotlin: 'c', swift: 'c', bash: 'sh', shell: 'sh',
  console: 'sh', zsh: 'sh', yaml: 'data', yml: 'data', toml: 'data', ini: 'data', jsonl: 'json', xml: 'html', svg: 'html',
};

/** Longer code is left plain: it would be read anew with every token of a stream. */
const LONGEST = 40_000;

const compiled = new Map<string, RegExp>();

function pattern(name: string): RegExp | null {
  const known = compiled.get(name);
  if (known) return known;
  const language = LANGUAGES[name];
  if (!language) return null;
  const { comments, strings, keywords } = language;
  const parts = [
    `(?<comment>${comments.length > 0 ? comments.join('|') : '(?!)'})`,
    `(?<text>${strings.join('|')})`,
    String.raw`(?<number>\b(?:0[xob][\da-f_]+|\d[\d_]*(?:\.\d+)?(?:e[+-]?\d+)?)\w*\b)`,
    `(?<keyword>${keywords === '' ? '(?!)' : `\\b(?:${keywords.replaceAll(' ', '|')})\\b`})`,
    name === 'html' ? String.raw`(?<name><\/?[\w:-]+|\/?>)` : String.raw`(?<name>\b[A-Za-z_]\w*(?=\s*\())`,
    String.raw`[A-Za-z_]\w*`,
  ];
  const made = new RegExp(parts.join('|'), name === 'sql' ? 'gi' : 'g');
  compiled.set(name, made);
  return made;
}

/** Code in pieces that are drawn in different inks; joined they are the code again. */
export function highlight(code: string, language: string): Stroke[] {
  const expression = code.length > LONGEST ? null : pattern(OTHER_NAMES[language] ?? language);
  if (!expression) return [{ ink: 'plain', text: code }];
  const out: Stroke[] = [];
  const add = (ink: Ink, text: string) => {
    const last = out.at(-1);
    if (last?.ink === ink) last.text += text;
    else if (text !== '') out.push({ ink, text });
  };
  let end = 0;
  for (const match of code.matchAll(expression)) {
    add('plain', code.slice(end, match.index));
    const found = Object.entries(match.groups ?? {}).find(([, text]) => text !== undefined);
    add((found?.[0] as Ink | undefined) ?? 'plain', match[0]);
    end = match.index + match[0].length;
  }
  add('plain', code.slice(end));
  return out;
}
