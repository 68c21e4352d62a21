import { render } from 'preact';
import { open } from './chat/conversations';
import { refresh } from './models';
import { Shell } from './shell';
import './style/base.css';
import './style/shell.css';
import './style/controls.css';
import './style/sides.css';
import './style/chat.css';
import './style/turn.css';
import './style/prose.css';
import './style/pages.css';
import './style/training.css';

void open();
void refresh();
const place = document.getElementById('page');
if (place) render(<Shell />, place);
