import { render } from 'preact';
render(<main>rhetor</main>, document.getElementById('page')!);
