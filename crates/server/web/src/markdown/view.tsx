import { memo } from './memo';
import { useMemo } from 'preact/hooks';
import { t } from '../i18n';
import { CopyButton } from '../parts/copy';
import { blocks } from './blocks';
import { highlight } from './highlight';
import { inline } from './inline';
import { Mathematics } from './math';
import type { Block, Inline, Item } from './tree';

/** A text in Markdown. It becomes elements one by one; there is no way from it to HTML. */
export function Markdown({ text }: { text: string }) {
  const read = useMemo(() => blocks(text), [text]);
  return (
    <div class="prose">
      <Blocks of={read} />
    </div>
  );
}

const Blocks = ({ of }: { of: Block[] }) => (
  <>
    {of.map((block, i) => (
      <BlockView key={i} block={block} source={JSON.stringify(block)} />
    ))}
  </>
);

/** One block; drawn anew only when its source is another, so that a stream draws its last block alone. */
const BlockView = memo(
  ({ block }: { block: Block; source: string }) => draw(block),
  (before, after) => before.source === after.source,
);

function draw(block: Block) {
  switch (block.kind) {
    case 'heading': {
      // The page has its own first and second headings.
      const Tag = `h${Math.min(6, block.level + 2)}` as 'h3';
      return (
        <Tag class={`level-${block.level}`}>
          <Words text={block.text} />
        </Tag>
      );
    }
    case 'paragraph':
      return (
        <p>
          <Words text={block.text} />
        </p>
      );
    case 'code':
      return <Code language={block.language} text={block.text} />;
    case 'math':
      return <Mathematics source={block.text} display />;
    case 'quote':
      return (
        <blockquote>
          <Blocks of={block.children} />
        </blockquote>
      );
    case 'list':
      return block.start === null ? (
        <ul>{block.items.map(item)}</ul>
      ) : (
        <ol start={block.start}>{block.items.map(item)}</ol>
      );
    case 'table':
      return <Table of={block} />;
    case 'rule':
      return <hr />;
  }
}

/** An item whose only block is a paragraph is not set apart from its neighbours. */
function item({ done, children }: Item, i: number) {
  const [first, ...rest] = children;
  return (
    <li key={i} class={done === null ? undefined : 'task'}>
      {done !== null && <input type="checkbox" checked={done} disabled aria-label={t(done ? 'done' : 'open')} />}
      {first?.kind === 'paragraph' ? <Words text={first.text} /> : first && <Blocks of={[first]} />}
      <Blocks of={rest} />
    </li>
  );
}

function Table({ of }: { of: Extract<Block, { kind: 'table' }> }) {
  const place = (column: number) => {
    const alignment = of.alignments[column];
    return alignment ? `align-${alignment}` : undefined;
  };
  return (
    <div class="table" tabIndex={0} role="region" aria-label={t('table')}>
      <table>
        <thead>
          <tr>
            {of.head.map((cell, i) => (
              <th key={i} scope="col" class={place(i)}>
                <Words text={cell} />
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {of.rows.map((row, r) => (
            <tr key={r}>
              {row.map((cell, i) => (
                <td key={i} class={place(i)}>
                  <Words text={cell} />
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Code({ language, text }: { language: string; text: string }) {
  return (
    <figure class="code">
      <figcaption>
        <span>{language || t('code')}</span>
        <CopyButton text={text} />
      </figcaption>
      <pre tabIndex={0}>
        <code>
          {highlight(text, language).map((stroke, i) =>
            stroke.ink === 'plain' ? (
              stroke.text
            ) : (
              <span key={i} class={`ink-${stroke.ink}`}>
                {stroke.text}
              </span>
            ),
          )}
        </code>
      </pre>
    </figure>
  );
}

const Words = ({ text }: { text: string }) => <>{inline(text).map(word)}</>;

function word(of: Inline, i: number) {
  switch (of.kind) {
    case 'text':
      return of.text;
    case 'code':
      return <code key={i}>{of.text}</code>;
    case 'math':
      return <Mathematics key={i} source={of.text} />;
    case 'strong':
      return <strong key={i}>{of.children.map(word)}</strong>;
    case 'emphasis':
      return <em key={i}>{of.children.map(word)}</em>;
    case 'deleted':
      return <del key={i}>{of.children.map(word)}</del>;
    case 'link':
      return (
        <a key={i} href={of.href} target="_blank" rel="noopener noreferrer nofollow">
          {of.children.map(word)}
        </a>
      );
    case 'picture':
      return (
        <span key={i} class="no-picture">
          {t('picture-not-loaded', { text: of.text })}
        </span>
      );
    case 'break':
      return <br key={i} />;
  }
}
