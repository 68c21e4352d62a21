// @vitest-environment jsdom
import { render } from 'preact';
import { beforeEach, describe, expect, it } from 'vitest';
import { blocks } from '../src/markdown/blocks';
import { highlight } from '../src/markdown/highlight';
import { inline } from '../src/markdown/inline';
import { safeAddress } from '../src/markdown/links';
import { Markdown } from '../src/markdown/view';

let place: HTMLElement;
beforeEach(() => {
  place = document.createElement('div');
});

/** The page's elements for a text. */
function drawn(text: string): HTMLElement {
  render(<Markdown text={text} />, place);
  return place;
}

const HOSTILE = [
  '<script>alert(1)</script>',
  '<img src=x onerror=alert(1)>',
  '<svg/onload=alert(1)>',
  '<iframe srcdoc="<script>alert(1)</script>"></iframe>',
  '<a href="javascript:alert(1)">x</a>',
  '[x](javascript:alert(1))',
  '[x](JaVaScRiPt:alert(1))',
  '[x](java\tscript:alert(1))',
  '[x](&#106;avascript:alert(1))',
  '[x](\u0001javascript:alert(1))',
  '[x](data:text/html,<script>alert(1)</script>)',
  '[x](vbscript:msgbox(1))',
  '[x](file:///etc/passwd)',
  '[x](blob:http://127.0.0.1/1)',
  '[x](//evil.example/x)',
  '[x](/api/delete)',
  '[x](#/settings)',
  '![x](http://evil.example/pixel.png)',
  '![x](data:image/svg+xml,<svg onload=alert(1)>)',
  '![](javascript:alert(1))',
  '<javascript:alert(1)>',
  '<https://a.example/"onmouseover="alert(1)>',
  '[a](https://a.example/"onclick="alert(1))',
  '[a](<javascript:alert(1)>)',
  '| <img src=x onerror=alert(1)> |\n|---|\n| <script>alert(1)</script> |',
  '```html\n<script>alert(1)</script>\n```',
  '```"><img src=x onerror=alert(1)>\nx\n```',
  '`<script>alert(1)</script>`',
  '# <style>*{display:none}</style>',
  '> <form action=//evil.example><input name=a></form>',
  '- <object data="javascript:alert(1)"></object>',
  '<math><mi xlink:href="data:x,<script>alert(1)</script>">',
  '[x]: javascript:alert(1)\n\n[x]',
  '<!-- --><base href="//evil.example">',
  '<meta http-equiv=refresh content="0;url=//evil.example">',
];

describe('hostile text', () => {
  const ALLOWED = new Set(
    'DIV P H3 H4 H5 H6 UL OL LI STRONG EM DEL CODE PRE SPAN A BR HR BLOCKQUOTE FIGURE FIGCAPTION BUTTON svg path TABLE THEAD TBODY TR TH TD INPUT'.split(' '),
  );
  it.each(HOSTILE)('makes no element and no address that does anything: %s', (text) => {
    for (const element of drawn(text).querySelectorAll('*')) {
      expect(ALLOWED).toContain(element.tagName);
      for (const { name, value } of element.attributes) {
        expect(name).not.toMatch(/^on|^src|^style$|^action$|^xlink/);
        if (name === 'href') {
          expect(value).toMatch(/^(https?|mailto):/);
          expect(element.getAttribute('rel')).toContain('noopener');
        }
      }
    }
  });

  it.each(HOSTILE)('is shown, not swallowed: %s', (text) => {
    expect(drawn(text).textContent).not.toBe('');
  });

  it('ends, whatever it nests', () => {
    for (const piece of ['[', '*', '**a ', '> ', '- ', '`', '$', '![', '_a', '|', '<', '&', '((', '\\[']) {
      expect(drawn(`${piece.repeat(5000)}\n\nthe end`).textContent).toContain('the end');
    }
  });
});

describe('addresses', () => {
  it('may be http, https and mailto only', () => {
    expect(safeAddress('https://a.example/b?c#d')).toBe('https://a.example/b?c#d');
    expect(safeAddress('mailto:a@b.example')).toBe('mailto:a@b.example');
    for (const address of ['javascript:1', ' javascript:1', 'java\nscript:1', 'ftp://a', 'a.example', '', 'https:', '\u200bjavascript:1']) {
      expect(safeAddress(address)).toBe(null);
    }
  });
});

describe('blocks', () => {
  const kinds = (text: string) => blocks(text).map((block) => block.kind);
  it('are told apart', () => {
    const text = '# a\n\ntext\nmore\n- b\n- c\n\n1. d\n\n> e\n\n---\n\n| f | g |\n|---|--:|\n| 1 | 2 |\n\n$$\nx\n$$\n\n```js\ny\n```';
    expect(kinds(text)).toEqual(['heading', 'paragraph', 'list', 'list', 'quote', 'rule', 'table', 'math', 'code']);
  });
  it('keep a fence open while it is being written', () => {
    expect(blocks('```py\nprint(1)\n\n# no heading')).toEqual([{ kind: 'code', language: 'py', text: 'print(1)\n\n# no heading' }]);
  });
  it('keep shorter fences within longer ones', () => {
    expect(blocks('````\n```\nx\n```\n````')).toEqual([{ kind: 'code', language: '', text: '```\nx\n```' }]);
  });
  it('nest lists, and keep the number a list begins with', () => {
    const [list] = blocks('3. a\n   - b\n     - c\n4. d');
    expect(list).toMatchObject({ kind: 'list', start: 3 });
    expect(drawn('- a\n  - b\n    - c').querySelectorAll('ul ul ul')).toHaveLength(1);
  });
  it('keep code within an item', () => {
    const items = drawn('1. run\n\n   ```sh\n   ls\n   ```\n\n2. look').querySelectorAll('ol > li');
    expect(items).toHaveLength(2);
    expect(items[0]?.querySelector('pre')?.textContent).toBe('ls');
  });
  it('know boxes', () => {
    const boxes = [...drawn('- [x] a\n- [ ] b').querySelectorAll('input')];
    expect(boxes.map((box) => box.checked)).toEqual([true, false]);
  });
  it('divide rows of a table at bars outside of code', () => {
    expect(blocks('| a | b |\n|:-:|---|\n| `x|y` | 1 \\| 2 |')).toEqual([
      { kind: 'table', alignments: ['center', null], head: ['a', 'b'], rows: [['`x|y`', '1 | 2']] },
    ]);
  });
});

describe('running text', () => {
  it('knows emphasis within words by stars, not by underlines', () => {
    expect(drawn('a*b*c snake_case_name **d *e***').innerHTML).toContain('a<em>b</em>c snake_case_name <strong>d <em>e</em></strong>');
  });
  it('tells money from mathematics', () => {
    expect(inline('from $5 to $10').map((piece) => piece.kind)).toEqual(['text']);
    expect(inline('let $x^2$ and \\(y\\)').filter((piece) => piece.kind === 'math')).toEqual([
      { kind: 'math', text: 'x^2' },
      { kind: 'math', text: 'y' },
    ]);
  });
  it('finds bare addresses without the stop behind them', () => {
    const [link] = drawn('See https://a.example/b_(c). And').querySelectorAll('a');
    expect(link?.getAttribute('href')).toBe('https://a.example/b_(c)');
  });
  it('leaves alone what is escaped or not closed', () => {
    expect(drawn('\\*a\\* **b `c').textContent).toBe('*a* **b `c');
  });
  it('never loads a picture', () => {
    expect(drawn('![a cat](https://a.example/cat.png)').querySelector('img')).toBe(null);
    expect(place.textContent).toContain('a cat');
  });
});

describe('highlighting', () => {
  it('gives the code back, letter by letter', () => {
    const code = 'def f(x):\n    """doc"""\n    return "a\\"b" + \'c\' + str(0x1f) # "end';
    for (const language of ['python', 'js', 'rust', 'c', 'sh', 'sql', 'json', 'html', 'css', 'yaml', 'go', 'none', '__proto__', 'constructor']) {
      expect(highlight(code, language).map((stroke) => stroke.text).join('')).toBe(code);
    }
  });
  it('knows comments, texts and words of a language', () => {
    const inks = new Map(highlight('fn main() { let x = "s"; } // done', 'rust').map(({ ink, text }) => [text, ink]));
    expect(inks.get('fn')).toBe('keyword');
    expect(inks.get('"s"')).toBe('text');
    expect(inks.get('// done')).toBe('comment');
  });
});
