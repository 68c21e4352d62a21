import { useSignal } from '@preact/signals';
import { cosine, embed } from '../api/playground';
import { number, t } from '../i18n';
import { can, models } from '../models';
import { ModelField } from './model_field';
import { Trouble } from './trouble';
import { useDoing } from './doing';

const SAMPLE = 'A cat sleeps on the sofa.\nThe kitten is napping on the couch.\nInterest rates rose again.\n利率再次上升。';

/** More texts make a table that nobody reads. */
const MOST = 12;

/** How near texts are to each other, as a model for embeddings has it. */
export function EmbeddingBench() {
  const model = useSignal('');
  const text = useSignal(SAMPLE);
  const found = useSignal<{ texts: string[]; vectors: number[][]; tokens: number } | null>(null);
  const doing = useDoing();
  const isAny = (models.value ?? []).some(({ name }) => can(name, 'embedding'));
  if (models.value !== null && !isAny) return <p class="empty">{t('no-embedding-model')}</p>;
  const run = () =>
    doing.begin(async (signal) => {
      const texts = text.value.split('\n').map((line) => line.trim()).filter(Boolean).slice(0, MOST);
      if (texts.length > 0) found.value = { texts, ...(await embed(model.value, texts, signal)) };
    });
  return (
    <form
      class="bench"
      onSubmit={(event) => {
        event.preventDefault();
        void run();
      }}
    >
      <ModelField value={model} what="embedding" />
      <label>
        {t('texts-one-a-line')}
        <textarea rows={5} value={text.value} onInput={(event) => (text.value = event.currentTarget.value)} />
      </label>
      <div class="actions">
        <button type="submit" class="primary" disabled={doing.isBusy.value || model.value === '' || text.value.trim() === ''}>
          {t('compare')}
        </button>
      </div>
      {doing.error.value !== null && <Trouble error={doing.error.value} onRetry={() => void run()} />}
      {found.value && <Matrix of={found.value} />}
    </form>
  );
}

/** The colour of a similarity: 0 to 9. */
const shade = (value: number) => Math.max(0, Math.min(9, Math.floor(value * 10)));

function Matrix({ of: { texts, vectors, tokens } }: { of: { texts: string[]; vectors: number[][]; tokens: number } }) {
  return (
    <section class="result">
      <div class="table" tabIndex={0} role="region" aria-label={t('cosine-matrix')}>
        <table class="matrix">
          <caption>{t('cosine-matrix')}</caption>
          <thead>
            <tr>
              <td />
              {texts.map((text, i) => (
                <th key={i} scope="col" title={text}>
                  <span class="unseen">{t('text-number', { number: i + 1 })}: </span>
                  {i + 1}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {texts.map((text, row) => (
              <tr key={row}>
                <th scope="row">
                  {row + 1}. {text}
                </th>
                {texts.map((_, column) => {
                  const value = cosine(vectors[row] ?? [], vectors[column] ?? []);
                  return (
                    <td key={column} class={`shade-${shade(value)}`}>
                      {number(value, 2)}
                    </td>
                  );
                })}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p class="facts">{t('dimensions', { count: number(vectors[0]?.length ?? 0), tokens: number(tokens) })}</p>
    </section>
  );
}
