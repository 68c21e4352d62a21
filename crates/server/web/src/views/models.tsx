import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { remove, type Installed } from '../api/models';
import { model } from '../chat/conversations';
import { speeds } from '../chat/speed';
import { bytes, number, t } from '../i18n';
import { can, contextOf, inMemory, licenceOf, models, problem, refresh } from '../models';
import { Catalogue, Pulls } from '../parts/catalogue';
import { Confirm } from '../parts/dialog';
import { ModelDetails } from '../parts/model_details';
import { short } from '../parts/model_picker';
import { Trouble } from '../parts/trouble';
import { go } from '../route';

/** The models of this machine, and those that can be fetched. */
export function ModelsView() {
  const showing = useSignal<string | null>(null);
  const deleting = useSignal<Installed | null>(null);
  const error = useSignal<unknown>(null);
  useEffect(() => void refresh(), []);
  const erase = async (name: string) => {
    error.value = null;
    try {
      await remove(name);
    } catch (caught) {
      error.value = caught;
    }
    await refresh();
  };
  return (
    <div class="sheet">
      <h1>{t('models')}</h1>
      <Pulls />
      {problem.value !== null && <Trouble error={problem.value} onRetry={() => void refresh()} />}
      {error.value !== null && <Trouble error={error.value} />}
      <section aria-labelledby="installed-title">
        <h2 id="installed-title">{t('installed')}</h2>
        {models.value === null && <p class="empty">{t('loading')}</p>}
        {models.value?.length === 0 && problem.value === null && <p class="empty">{t('installed-none')}</p>}
        <ul class="cards">
          {(models.value ?? []).map((each) => (
            <ModelCard key={each.name} of={each} onShow={() => (showing.value = each.name)} onDelete={() => (deleting.value = each)} />
          ))}
        </ul>
      </section>
      <Catalogue />
      {showing.value && <ModelDetails name={showing.value} onClose={() => (showing.value = null)} />}
      {deleting.value && (
        <Confirm
          title={t('delete-model', { name: short(deleting.value.name) })}
          text={t('delete-model-text', { size: bytes(deleting.value.size) })}
          verb={t('delete')}
          onYes={() => deleting.value && void erase(deleting.value.name)}
          onClose={() => (deleting.value = null)}
        />
      )}
    </div>
  );
}

function ModelCard({ of, onShow, onDelete }: { of: Installed; onShow: () => void; onDelete: () => void }) {
  const { name, size, details } = of;
  const context = contextOf(name);
  const speed = speeds.value[name];
  const facts: [string, string | undefined][] = [
    [t('parameters'), details?.parameter_size],
    [t('quantization'), details?.quantization_level],
    [t('size-on-disk'), bytes(size)],
    [t('context'), context === null ? undefined : number(context)],
    [t('family'), details?.family],
    [t('licence'), licenceOf(name)],
  ];
  return (
    <li class="card">
      <h3>
        {short(name)}
        {inMemory.value.some((loaded) => loaded.name === name) && <span class="badge">{t('in-memory')}</span>}
      </h3>
      {speed !== undefined && <p class="facts">{t('tokens-per-second', { speed: number(speed, 1) })}</p>}
      <dl>
        {facts
          .filter(([, value]) => value)
          .map(([word, value]) => (
            <div key={word}>
              <dt>{word}</dt>
              <dd>{value}</dd>
            </div>
          ))}
      </dl>
      <div class="actions">
        {can(name, 'completion') && (
          <button
            type="button"
            onClick={() => {
              model.value = name;
              go('chat');
            }}
            aria-label={`${t('chat-with')}: ${short(name)}`}
          >
            {t('chat-with')}
          </button>
        )}
        <button type="button" class="quiet" onClick={onShow} aria-label={t('details-of', { name: short(name) })}>
          {t('details')}
        </button>
        <button type="button" class="quiet" onClick={onDelete} aria-label={`${t('delete')}: ${short(name)}`}>
          {t('delete')}
        </button>
      </div>
    </li>
  );
}
