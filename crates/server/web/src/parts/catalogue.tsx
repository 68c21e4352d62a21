import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { catalogue, type Offered } from '../api/models';
import { bytes, number, t } from '../i18n';
import { models } from '../models';
import { dismiss, fetchModel, progress, pulls } from '../pulls';
import { Icon } from './icon';
import { short } from './model_picker';
import { Trouble } from './trouble';
import { useDoing } from './doing';

/** The models that can be fetched by their names. */
export function Catalogue() {
  const offered = useSignal<Offered[] | null>(null);
  const words = useSignal('');
  const name = useSignal('');
  const doing = useDoing();
  const read = () =>
    doing.begin(async () => {
      offered.value = await catalogue();
    });
  useEffect(() => void read(), []);
  const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = (offered.value ?? []).filter((each) => {
    const text = `${each.name} ${each.summary} ${each.licence}`.toLowerCase();
    return wanted.every((word) => text.includes(word));
  });
  const here = new Set((models.value ?? []).map((each) => short(each.name)));
  return (
    <section aria-labelledby="catalogue-title">
      <h2 id="catalogue-title">{t('catalogue')}</h2>
      <div class="finders">
        <label class="search">
          <Icon name="search" />
          <span class="unseen">{t('search-catalogue')}</span>
          <input
            type="search"
            placeholder={t('search-catalogue')}
            value={words.value}
            onInput={(event) => (words.value = event.currentTarget.value)}
          />
        </label>
        <form
          class="inline"
          onSubmit={(event) => {
            event.preventDefault();
            if (name.value.trim() !== '') void fetchModel(name.value.trim());
            name.value = '';
          }}
        >
          <input
            aria-label={t('fetch-name')}
            aria-describedby="fetch-hint"
            placeholder={t('fetch-by-name')}
            value={name.value}
            onInput={(event) => (name.value = event.currentTarget.value)}
          />
          <button type="submit" disabled={name.value.trim() === ''}>
            {t('fetch')}
          </button>
        </form>
      </div>
      <p id="fetch-hint" class="aside">
        {t('fetch-hint')}
      </p>
      {doing.error.value !== null && <Trouble error={doing.error.value} onRetry={() => void read()} />}
      {offered.value !== null && found.length === 0 && <p class="empty">{t('nothing-found')}</p>}
      <ul class="offers">
        {found.map((each) => {
          const isFetching = pulls.value.some((pull) => pull.name === each.name && !pull.isDone && pull.error === null);
          const size = each.parameters >= 1e9 ? `${number(each.parameters / 1e9, 1)}B` : `${number(each.parameters / 1e6, 0)}M`;
          return (
            <li key={each.name}>
              <div>
                <h3>{each.name}</h3>
                <p>{each.summary}</p>
                <p class="facts">{[each.parameters > 0 && size, bytes(each.size), each.licence].filter(Boolean).join(' · ')}</p>
                {each.terms && <p class="aside">{each.terms}</p>}
              </div>
              {here.has(each.name) ? (
                <span class="badge">{t('already-here')}</span>
              ) : (
                <button
                  type="button"
                  disabled={isFetching}
                  onClick={() => void fetchModel(each.name)}
                  aria-label={t('fetch-this', { name: each.name })}
                >
                  <Icon name="download" />
                  {t('fetch')}
                </button>
              )}
            </li>
          );
        })}
      </ul>
    </section>
  );
}

/** What is being fetched, and how far it is. */
export function Pulls() {
  return (
    <ul class="pulls">
      {pulls.value.map((pull) => {
        const part = progress(pull);
        return (
          <li key={pull.name} class="card">
            <div class="row">
              <strong>{pull.isDone ? t('fetched', { name: pull.name }) : t('fetching', { name: pull.name })}</strong>
              <span class="space" />
              {pull.isDone ? (
                <button type="button" class="quiet small" onClick={() => dismiss(pull.name)} aria-label={t('close')} title={t('close')}>
                  <Icon name="close" />
                </button>
              ) : (
                pull.error === null && (
                  <button type="button" onClick={pull.stop} aria-label={`${t('cancel')}: ${pull.name}`}>
                    {t('cancel')}
                  </button>
                )
              )}
            </div>
            {!pull.isDone && pull.error === null && (
              <>
                <progress aria-label={t('fetching', { name: pull.name })} {...(part === null ? {} : { value: part })} max={1} />
                <p class="facts">
                  {pull.step?.status}
                  {pull.step?.total
                    ? ` · ${t('fetch-progress', { completed: bytes(pull.step.completed ?? 0), total: bytes(pull.step.total) })}`
                    : ''}
                </p>
              </>
            )}
            {pull.error !== null && <Trouble error={pull.error} onRetry={() => void fetchModel(pull.name)} />}
          </li>
        );
      })}
    </ul>
  );
}
