import { defineConfig } from 'vite';

/** Where the built page calls to while it is developed: the mock, or a real server. */
const server = process.env.RHETOR_SERVER ?? 'http://127.0.0.1:11500';

export default defineConfig({
  base: '/',
  build: {
    target: 'es2022',
    outDir: 'dist',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    sourcemap: false,
    chunkSizeWarningLimit: 400,
  },
  server: { proxy: { '/v1': server, '/api': server, '/tokenize': server, '/health': server } },
});
