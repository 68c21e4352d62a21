import type { ComponentChildren } from 'preact';
import { useId, useState } from 'preact/hooks';

export interface Tab {
  name: string;
  view: () => ComponentChildren;
}

/** Views of which one is shown: arrow keys move between their names (WAI-ARIA's tabs). */
export function Tabs({ label, tabs }: { label: string; tabs: Tab[] }) {
  const [chosen, setChosen] = useState(0);
  const id = useId();
  const View = tabs[chosen]?.view;
  const turn = (to: number) => {
    const next = (to + tabs.length) % tabs.length;
    setChosen(next);
    document.getElementById(`${id}-${next}`)?.focus();
  };
  return (
    <>
      <div
        class="tabs"
        role="tablist"
        aria-label={label}
        onKeyDown={(event) => {
          if (event.key === 'ArrowRight') turn(chosen + 1);
          else if (event.key === 'ArrowLeft') turn(chosen - 1);
          else if (event.key === 'Home') turn(0);
          else if (event.key === 'End') turn(tabs.length - 1);
          else return;
          event.preventDefault();
        }}
      >
        {tabs.map(({ name }, i) => (
          <button
            key={name}
            id={`${id}-${i}`}
            type="button"
            role="tab"
            aria-selected={i === chosen}
            aria-controls={`${id}-panel`}
            tabIndex={i === chosen ? 0 : -1}
            onClick={() => setChosen(i)}
          >
            {name}
          </button>
        ))}
      </div>
      <div id={`${id}-panel`} role="tabpanel" aria-labelledby={`${id}-${chosen}`} class="tabpanel">
        {View && <View key={chosen} />}
      </div>
    </>
  );
}
