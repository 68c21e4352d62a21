import { useEffect, useRef } from 'preact/hooks';
import { model } from '../chat/conversations';
import { speeds } from '../chat/speed';
import { bytes, number, t } from '../i18n';
import { can, inMemory, licenceOf, models, refreshMemory } from '../models';
import { address } from '../route';
import { Icon } from './icon';

/** The model that answers: with size, licence and speed. */
export function ModelPicker() {
  const menu = useRef<HTMLDetailsElement>(null);
  const writers = (models.value ?? []).filter(({ name }) => can(name, 'completion'));
  const isThere = writers.some(({ name }) => name === model.value);
  const first = writers[0]?.name;
  useEffect(() => {
    if (!isThere && first) model.value = first;
  }, [isThere, first]);
  if (models.value !== null && writers.length === 0) {
    return (
      <a class="button" href={address('models')}>
        {t('get-model')}
      </a>
    );
  }
  const choose = (name: string) => {
    model.value = name;
    const details = menu.current;
    if (details) details.open = false;
    details?.querySelector('summary')?.focus();
  };
  return (
    <details
      class="menu models"
      ref={menu}
      onToggle={(event) => event.currentTarget.open && void refreshMemory()}
      onFocusOut={(event) => {
        const { currentTarget: details, relatedTarget } = event;
        if (!(relatedTarget instanceof Node && details.contains(relatedTarget))) details.open = false;
      }}
      onKeyDown={(event) => {
        if (event.key !== 'Escape' || !event.currentTarget.open) return;
        event.preventDefault();
        event.currentTarget.open = false;
        event.currentTarget.querySelector('summary')?.focus();
      }}
    >
      <summary aria-label={`${t('choose-model')}: ${model.value}`}>
        <span class="name">{short(model.value) || t('loading')}</span>
        <Icon name="down" />
      </summary>
      <div role="group" aria-label={t('choose-model')}>
        {writers.map(({ name, size, details }) => {
          const speed = speeds.value[name];
          const facts = [
            details?.parameter_size, details?.quantization_level, bytes(size), licenceOf(name),
            speed === undefined ? t('not-measured') : t('tokens-per-second', { speed: number(speed, speed < 10 ? 1 : 0) }),
          ];
          return (
            <button key={name} type="button" aria-pressed={name === model.value} onClick={() => choose(name)}>
              <span class="name">
                {short(name)}
                {inMemory.value.some((loaded) => loaded.name === name) && <span class="badge">{t('in-memory')}</span>}
              </span>
              <span class="facts">{facts.filter(Boolean).join(' · ')}</span>
            </button>
          );
        })}
      </div>
    </details>
  );
}

/** A name without the tag that every model has. */
export const short = (name: string): string => name.replace(/:latest$/, '');
