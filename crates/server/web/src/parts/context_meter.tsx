import { live } from '../chat/answer';
import { current, model } from '../chat/conversations';
import { path } from '../chat/tree';
import { number, t } from '../i18n';
import { contextOf } from '../models';

/** How much of the model's context the conversation takes, by the count of its last answer. */
export function ContextMeter() {
  const conversation = current.value;
  const answered = conversation ? path(conversation).filter((turn) => turn.usage).at(-1) : undefined;
  const writing = live.value?.conversation === conversation?.id ? live.value?.turn.usage : undefined;
  const usage = writing ?? answered?.usage;
  if (!usage) return null;
  const used = usage.prompt + usage.completion;
  const limit = contextOf(model.value);
  if (limit === null) return <span class="meter">{t('context-used-unknown', { used: number(used) })}</span>;
  const label = t('context-used', { used: number(used), limit: number(limit) });
  const part = Math.min(1, used / limit);
  return (
    <span class="meter" title={label}>
      <svg viewBox="0 0 20 20" width="20" height="20" role="img" aria-label={label} class={part > 0.85 ? 'full' : undefined}>
        <circle cx="10" cy="10" r="7.5" />
        <circle cx="10" cy="10" r="7.5" class="part" pathLength="100" stroke-dasharray={`${part * 100} 100`} transform="rotate(-90 10 10)" />
      </svg>
      <span aria-hidden="true">{number(part * 100)} %</span>
    </span>
  );
}
