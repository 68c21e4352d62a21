import { useEffect, useRef, useState } from 'preact/hooks';
import { t } from './i18n';
import { Announcements } from './parts/announce';
import { Icon, type IconName } from './parts/icon';
import { Shortcuts } from './parts/shortcuts';
import { address, page, PAGES, type Page } from './route';
import { ChatView } from './views/chat';
import { ModelsView } from './views/models';
import { PlaygroundView } from './views/playground';
import { SettingsView } from './views/settings';
import { TrainingView } from './views/training';
import iconUrl from './icon.svg';

const VIEWS: Record<Page, { icon: IconName; view: () => preact.JSX.Element }> = {
  chat: { icon: 'chat', view: ChatView },
  playground: { icon: 'flask', view: PlaygroundView },
  models: { icon: 'box', view: ModelsView },
  training: { icon: 'curve', view: TrainingView },
  settings: { icon: 'gear', view: SettingsView },
};

/** The frame: the way between the pages, and the page itself. */
export function Shell() {
  const [showsKeys, setShowsKeys] = useState(false);
  const main = useRef<HTMLElement>(null);
  const isFirst = useRef(true);
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if ((event.ctrlKey || event.metaKey) && event.key === '/') {
        event.preventDefault();
        setShowsKeys(true);
      }
    };
    addEventListener('keydown', onKey);
    return () => removeEventListener('keydown', onKey);
  }, []);
  useEffect(() => {
    document.title = `${t(page.value)} · rhetor`;
    // A reader that follows a link hears the page that it led to.
    if (!isFirst.current) main.current?.focus({ preventScroll: true });
    isFirst.current = false;
  }, [page.value]);
  const View = VIEWS[page.value].view;
  return (
    <div class="shell">
      <a
        class="skip"
        href="#content"
        onClick={(event) => {
          event.preventDefault();
          main.current?.focus();
        }}
      >
        {t('skip-to-content')}
      </a>
      <header class="top">
        <a class="brand" href={address('chat')}>
          <img src={iconUrl} alt="" width="26" height="26" />
          <span>rhetor</span>
        </a>
        <nav aria-label={t('main-navigation')}>
          {PAGES.map((name) => (
            <a key={name} href={address(name)} aria-current={page.value === name ? 'page' : undefined}>
              <Icon name={VIEWS[name].icon} />
              <span>{t(name)}</span>
            </a>
          ))}
        </nav>
        <button class="quiet help" type="button" onClick={() => setShowsKeys(true)} aria-label={t('shortcuts')} title={t('shortcuts')}>
          <Icon name="keyboard" />
        </button>
      </header>
      <main id="content" ref={main} tabIndex={-1} class={`page-${page.value}`}>
        <View />
      </main>
      <Announcements />
      {showsKeys && <Shortcuts onClose={() => setShowsKeys(false)} />}
    </div>
  );
}
