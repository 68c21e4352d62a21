/** Lines of each picture on a field of 24 by 24. */
const LINES = {
  chat: 'M4 6.500A2.500 2.500 0 0 1 6.500 4h11A2.500 2.500 0 0 1 20 6.500v7a2.500 2.500 0 0 1-2.500 2.500H12l-4.500 4v-4h-1A2.500 2.500 0 0 1 4 13.500z',
  flask: 'M10 3h4M10.500 3v6L5.200 18a2 2 0 0 0 1.700 3h10.200a2 2 0 0 0 1.700-3l-5.300-9V3M7.500 15h9',
  box: 'M12 3l8 4.500v9L12 21l-8-4.500v-9zM4 7.500l8 4.500 8-4.500M12 12v9',
  curve: 'M4 4v16h16M7.500 8c1.500 6 4 8.500 11.500 8.500',
  gear: 'M12 15.200a3.200 3.200 0 1 0 0-6.400 3.200 3.200 0 0 0 0 6.400zM12 3v2.500M12 18.500V21M3 12h2.500M18.500 12H21M5.600 5.600l1.800 1.800M16.600 16.600l1.800 1.800M18.400 5.600l-1.800 1.800M7.400 16.600l-1.800 1.800',
  keyboard: 'M3.500 6.500h17v11h-17zM7 10h.01M10.300 10h.01M13.700 10h.01M17 10h.01M8 14h8',
  send: 'M12 19V5M6 11l6-6 6 6',
  stop: 'M7 7h10v10H7z',
  plus: 'M12 5v14M5 12h14',
  picture: 'M4 5h16v14H4zM4 16l4.500-4.500L13 16l2.500-2.500L20 18M15.500 9.500h.01',
  search: 'M10.500 17a6.500 6.500 0 1 0 0-13 6.500 6.500 0 0 0 0 13zM20 20l-4.800-4.800',
  copy: 'M9 9h11v11H9zM15 9V4H4v11h5',
  check: 'M5 12.500l4.500 4.500L19 7.500',
  again: 'M20 12a8 8 0 1 1-2.600-5.900M20 3.500V8h-4.500',
  pen: 'M4 20l.8-4L16.500 4.300a1.800 1.800 0 0 1 2.600 0l.6.6a1.800 1.800 0 0 1 0 2.600L8 19.200zM14.500 6.500l3 3',
  left: 'M14.500 6L8.500 12l6 6',
  right: 'M9.500 6l6 6-6 6',
  down: 'M6 9.500l6 6 6-6',
  close: 'M6 6l12 12M18 6L6 18',
  bin: 'M5 7h14M10 7V4.500h4V7M7 7l.8 12.500h8.400L17 7M10.500 11v5M13.500 11v5',
  sliders: 'M4 8h9M17 8h3M4 16h3M11 16h9M15 10a2 2 0 1 0 0-4 2 2 0 0 0 0 4zM9 18a2 2 0 1 0 0-4 2 2 0 0 0 0 4z',
  panel: 'M4 5h16v14H4zM9.500 5v14',
  more: 'M6 12h.01M12 12h.01M18 12h.01',
  tint: 'M12 4l5 6.200a6.400 6.400 0 1 1-10 0zM9 15a3.200 3.200 0 0 0 3 2.500',
  download: 'M12 4v11M7 10.500l5 5 5-5M5 20h14',
  warning: 'M12 4l9 15.500H3zM12 10v4.500M12 17h.01',
  tool: 'M14.500 6.500a4 4 0 0 0-5 5L4 17l3 3 5.500-5.500a4 4 0 0 0 5-5L15 12l-3-3z',
} as const;

export type IconName = keyof typeof LINES;

/** A picture beside words, or in a button that has a label. */
export const Icon = ({ name }: { name: IconName }) => (
  <svg class="icon" viewBox="0 0 24 24" width="20" height="20" aria-hidden="true" focusable="false">
    <path d={LINES[name]} />
  </svg>
);
