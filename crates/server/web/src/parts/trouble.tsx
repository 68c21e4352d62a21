import { ApiError } from '../api/http';
import { t } from '../i18n';
import { Icon } from './icon';

/** An error in words that help: what happened, what the server said, another try. */
export function Trouble({ error, onRetry }: { error: unknown; onRetry?: (() => void) | undefined }) {
  const [status, message] =
    error instanceof ApiError ? [error.status, error.message] : [null, error instanceof Error ? error.message : String(error)];
  const retryAfter = error instanceof ApiError ? error.retryAfter : null;
  return (
    <div class="trouble" role="alert">
      <Icon name="warning" />
      <div>
        <p>
          <strong>{t(status === 0 ? 'server-unreachable' : status === 401 ? 'key-wanted' : 'something-wrong')}</strong>
        </p>
        {status !== 0 && message !== '' && <p class="said">{message}</p>}
        {retryAfter !== null && <p>{t('retry-after', { seconds: retryAfter })}</p>}
      </div>
      {onRetry && (
        <button type="button" onClick={onRetry}>
          {t('retry')}
        </button>
      )}
    </div>
  );
}

/** An error as it was kept with a turn: its status, then its words. */
export function kept(text: string): ApiError {
  const [, status = '0', message = text] = /^(\d+) ([\s\S]*)$/.exec(text) ?? [];
  return new ApiError(Number(status), message);
}
