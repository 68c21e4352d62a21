import { useId, useRef, useState } from 'preact/hooks';
import type { Token } from '../api/chat';
import { number, t } from '../i18n';

/** Upper bounds of the probabilities of each colour but the last. */
const BOUNDS = [0.2, 0.4, 0.6, 0.8, 0.95];

/** The colour of a token: 0 for those that the model hardly believed in. */
const colour = (logprob: number) => BOUNDS.filter((bound) => Math.exp(logprob) > bound).length;

const percent = (logprob: number) => {
  const value = Math.exp(logprob) * 100;
  return number(value, value < 1 ? 3 : 1);
};

/** A token with its blanks visible. */
const visible = (text: string) => text.replace(/ /g, '␣').replace(/\n/g, '↵').replace(/\t/g, '⇥');

/** Tokens coloured by how sure the model was; hover or arrow keys show what else it might have written. */
export function Probabilities({ tokens }: { tokens: Token[] }) {
  const [at, setAt] = useState<number | null>(null);
  const [left, setLeft] = useState(0);
  const [top, setTop] = useState(0);
  const place = useRef<HTMLDivElement>(null);
  const id = useId();
  const token = at === null ? undefined : tokens[at];
  const point = (index: number | null) => {
    setAt(index);
    const found = index === null ? null : place.current?.querySelectorAll<HTMLElement>('[data-token]')[index];
    if (!found || !place.current) return;
    const box = found.getClientRects()[0] ?? found.getBoundingClientRect();
    const field = place.current.getBoundingClientRect();
    setLeft(Math.max(0, Math.min(box.left - field.left, field.width - 260)));
    setTop(box.bottom - field.top + 6);
  };
  return (
    <div
      class="probabilities"
      ref={place}
      tabIndex={0}
      role="group"
      aria-label={t('probabilities')}
      aria-describedby={id}
      onMouseLeave={() => point(null)}
      onBlur={() => point(null)}
      onMouseOver={(event) => {
        const index = (event.target as HTMLElement).dataset['token'];
        if (index !== undefined) point(Number(index));
      }}
      onKeyDown={(event) => {
        const move = event.key === 'ArrowRight' ? 1 : event.key === 'ArrowLeft' ? -1 : 0;
        if (event.key === 'Escape' && at !== null) {
          event.preventDefault();
          point(null);
        }
        if (move === 0) return;
        event.preventDefault();
        point(at === null ? 0 : Math.max(0, Math.min(tokens.length - 1, at + move)));
      }}
    >
      <p class="tokens">
        {tokens.map((each, i) => (
          <span key={i} data-token={i} class={`p${colour(each.logprob)}${i === at ? ' pointed' : ''}`}>
            {each.text}
          </span>
        ))}
      </p>
      <p id={id} class="aside">
        {t('probabilities-hint')}
      </p>
      {token && (
        <div class="alternatives" role="status" style={{ left: `${left}px`, top: `${top}px` }}>
          <p>{t('token-probability', { token: visible(token.text), percent: percent(token.logprob) })}</p>
          {token.others.length > 0 && (
            <table>
              <caption class="unseen">{t('alternatives')}</caption>
              <tbody>
                {token.others.map((other, i) => (
                  <tr key={i} class={other.text === token.text ? 'same' : undefined}>
                    <th scope="row">{visible(other.text)}</th>
                    <td>
                      <meter min={0} max={1} value={Math.exp(other.logprob)} aria-hidden="true" />
                    </td>
                    <td class="number">{percent(other.logprob)} %</td>
                  </tr>
                ))}
              </tbody>
            </table>
          )}
        </div>
      )}
    </div>
  );
}
