#!/usr/bin/env python3
"""Many clients at once against servers that speak OpenAI's `/v1/completions`, streamed. Needs Python 3.9 and nothing else.

    benches/serve_load.py load --seconds 300 \\
        --server 'rhetor=target/release/rhetor serve --listen 127.0.0.1:{port}' \\
        --server 'llama-server=llama-server -m MODEL.gguf -t 2 -tb 2 -np 64 -c 65536 --port {port}'

starts each server on a free port, asks it every request alone (the sequential figure, and what each must say), then lets
64 clients ask for `--seconds` in `--rounds` turns, the servers one after the other, and prints one table. A stream that
breaks, a reply with an error, or a text that differs from the one alone is counted; for `--strict NAME` any of them
makes the exit code 1.

    benches/serve_load.py restart --server 'rhetor=target/release/rhetor serve --listen 127.0.0.1:{port} --cache-dir {dir}'

asks a prompt with a long beginning, starts the server again, and asks again: the time to the first token, cold and after
the restart, and whether the text is the same.
"""
import argparse, asyncio, json, os, random, shlex, shutil, signal, socket, statistics, subprocess, sys, tempfile, time

WORDS = """time year people way day man thing woman life child world school state family student group country problem
hand part place case week company system program question work government number night point home water room mother area
money story fact month lot right study book eye job word business issue side kind head house service friend father power
hour game line end member law car city community name president team minute idea body information back parent face others
level office door health person art war history party result change morning reason research girl guy moment air teacher
force education""".split()


def words(seed, n):
    return " ".join(random.Random(seed).choices(WORDS, k=n))


def requests(n, model, extra):
    """The mixture: of each 8, 4 short prompts, 2 of some 200 words, 1 of 700, and 1 after a beginning that all such share."""
    shared = "You are a careful assistant. " + words(1, 500)
    made = []
    for i in range(n):
        kind = i % 8
        if kind < 4:
            prompt = f"Question {i}: {words(1000 + i, 12 + i % 20)}?\nAnswer:"
        elif kind < 6:
            prompt = f"Text {i}. {words(2000 + i, 200)}\nSummary:"
        elif kind == 6:
            prompt = f"Report {i}. {words(3000 + i, 700)}\nSummary:"
        else:
            prompt = f"{shared}\nQuestion {i}: {words(4000 + i, 20)}?\nAnswer:"
        body = {"model": model, "prompt": prompt, "max_tokens": 32 + 16 * (i % 7), "seed": i, "temperature": 0.8,
                "top_p": 0.95, "stream": True, "stream_options": {"include_usage": True}}
        made.append({**body, **extra})
    return made


class Reply:
    def __init__(self):
        self.text, self.tokens, self.cached = "", 0, 0
        self.first = self.error = None
        self.began = time.monotonic()


async def ask(port, body, path="/v1/completions"):
    """One streamed reply; whatever goes wrong is in its `error`."""
    reply = Reply()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode() + data)
        await writer.drain()
        status = int((await reader.readline()).split()[1])
        is_chunked = False
        while (line := await reader.readline()) not in (b"\r\n", b""):
            is_chunked |= line.lower().startswith(b"transfer-encoding:") and b"chunked" in line.lower()
        if status != 200:
            reply.error = f"status {status}: {(await reader.read(600))!r}"
        elif not is_chunked:
            reply.error = "the reply is no stream"
        else:
            await listen(reader, reply)
        writer.close()
    except (OSError, ValueError, KeyError, asyncio.IncompleteReadError) as error:
        reply.error = f"{type(error).__name__}: {error}"
    reply.ended = time.monotonic()
    return reply


async def listen(reader, reply):
    buffer, is_done, finish = b"", False, None
    while (size := int(await reader.readline(), 16)) > 0:
        buffer += await reader.readexactly(size)
        await reader.readexactly(2)
        while b"\n\n" in buffer.replace(b"\r\n", b"\n"):
            event, buffer = buffer.replace(b"\r\n", b"\n").split(b"\n\n", 1)
            if not event.startswith(b"data:"):
                continue
            data = event[5:].strip()
            if data == b"[DONE]":
                is_done = True
                continue
            data = json.loads(data)
            if "error" in data:
                reply.error = str(data["error"])
            for choice in data.get("choices", []):
                if choice.get("text"):
                    reply.first = reply.first or time.monotonic()
                    reply.text += choice["text"]
                finish = choice.get("finish_reason") or finish
            if data.get("usage"):
                reply.tokens = data["usage"]["completion_tokens"]
                reply.cached = (data["usage"].get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    if not reply.error and not (is_done and finish in ("stop", "length")):
        reply.error = f"the stream broke off: finish_reason {finish}, [DONE] {is_done}"


class Server:
    def __init__(self, spec, directory):
        self.name, self.command = spec.split("=", 1)
        self.directory = directory
        self.sequential = self.process = None
        self.replies, self.rss, self.seconds, self.tokens, self.wrong = [], [], 0.0, 0, 0

    async def start(self, body):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = self.command.format(port=self.port, dir=self.directory)
        self.log = open(os.path.join(self.directory, f"{self.name}.log"), "ab")
        self.process = subprocess.Popen(shlex.split(command), stdout=self.log, stderr=self.log)
        tiny = {**body, "prompt": "Hello", "max_tokens": 2}
        for _ in range(600):
            if self.process.poll() is not None:
                sys.exit(f"{self.name} ended with {self.process.returncode}; see {self.log.name}")
            reply = await ask(self.port, tiny)
            if not reply.error:
                return
            await asyncio.sleep(0.2)
        sys.exit(f"{self.name} does not answer: {reply.error}")

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def memory(self):
        try:
            with open(f"/proc/{self.process.pid}/status") as status:
                return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))
        except OSError:
            return 0.0

    async def alone(self, bodies):
        began = time.monotonic()
        replies = [await ask(self.port, body) for body in bodies]
        errors = [reply.error for reply in replies if reply.error]
        if errors:
            sys.exit(f"{self.name}, a request alone: {errors[0]}")
        self.sequential = sum(reply.tokens for reply in replies) / (time.monotonic() - began)
        self.expected = [reply.text for reply in replies]

    async def load(self, bodies, n_clients, seconds):
        began, turn = time.monotonic(), iter(range(1 << 60))
        first_rss = len(self.rss)

        async def client():
            while time.monotonic() - began < seconds:
                i = next(turn) % len(bodies)
                reply = await ask(self.port, bodies[i])
                self.replies.append(reply)
                self.wrong += not reply.error and reply.text != self.expected[i]

        async def watch():
            while True:
                self.rss.append(self.memory())
                await asyncio.sleep(0.5)

        n_before = len(self.replies)
        watcher = asyncio.create_task(watch())
        await asyncio.gather(*(client() for _ in range(n_clients)))
        watcher.cancel()
        self.seconds += time.monotonic() - began
        self.tokens += sum(reply.tokens for reply in self.replies[n_before:])
        self.rss_first = getattr(self, "rss_first", statistics.median(self.rss[first_rss:][: max(4, len(self.rss) // 5)]))

    def row(self, reference):
        good = [reply for reply in self.replies if not reply.error]
        waits = sorted(reply.first - reply.began for reply in good if reply.first)
        at = lambda share: waits[min(len(waits) - 1, int(share * len(waits)))] if waits else float("nan")
        rate = self.tokens / self.seconds
        return [self.name, len(self.replies), len(self.replies) - len(good), f"{len(good) - self.wrong}/{len(good)}",
                f"{rate:.0f}", f"{rate / self.sequential:.2f}", f"{rate / reference:.2f}", f"{at(0.5):.2f}",
                f"{at(0.99):.2f}", f"{self.rss_first:.0f}", f"{max(self.rss):.0f}"]


async def load(options, servers):
    bodies = requests(options.requests, options.model, json.loads(options.extra))
    for server in servers:
        await server.start(bodies[0])
        await server.alone(bodies)
        print(f"{server.name}: alone {server.sequential:.0f} tokens/s", file=sys.stderr)
    for turn in range(options.rounds):
        for server in servers:
            before = server.tokens, server.seconds
            await server.load(bodies, options.clients, options.seconds / options.rounds)
            rate = (server.tokens - before[0]) / (server.seconds - before[1])
            print(f"round {turn + 1}, {server.name}: {rate:.0f} tokens/s", file=sys.stderr)
    reference = servers[-1].tokens / servers[-1].seconds
    print(f"{options.clients} clients, {options.seconds:.0f} s each in {options.rounds} rounds, {options.requests} requests")
    head = ["server", "replies", "errors", "as alone", "tokens/s", "x sequential", f"x {servers[-1].name}",
            "first token p50 s", "p99 s", "RSS early MiB", "RSS most MiB"]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for server in servers:
        print("| " + " | ".join(str(cell) for cell in server.row(reference)) + " |")
        for error in sorted({reply.error for reply in server.replies if reply.error})[:5]:
            print(f"{server.name}: {error}", file=sys.stderr)
    bad = [s.name for s in servers if s.name in options.strict and (s.wrong or any(r.error for r in s.replies))]
    return f"not as it should be: {', '.join(bad)}" if bad else None


async def restart(options, servers):
    system = "You are a careful assistant. " + words(7, options.words)
    ask_for = lambda question: {"model": options.model, "prompt": f"{system}\n{question}\nAnswer:", "max_tokens": 24,
                                "seed": 1, "temperature": 0.0, "stream": True, "stream_options": {"include_usage": True}}
    print("| server | turn | first token s | cached tokens | x cold | same text |\n|---|---|---|---|---|---|")
    bad = None
    for server in servers:
        cold = warm = None
        for turn in range(options.rounds + 1):
            body = ask_for("Who is it that wrote this?")
            await server.start(body)
            reply = await ask(server.port, body)
            if reply.error:
                sys.exit(f"{server.name}: {reply.error}")
            wait = reply.first - reply.began
            cold = cold or (wait, reply.text)
            same = reply.text == cold[1]
            bad = bad or (None if same else f"{server.name}: another text after the restart")
            name = "cold" if turn == 0 else f"restart {turn}"
            print(f"| {server.name} | {name} | {wait:.3f} | {reply.cached} | {wait / cold[0]:.3f} | {same} |")
            server.stop()
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["load", "restart"])
    parser.add_argument("--server", action="append", required=True, metavar="NAME=COMMAND",
                        help="with {port} and {dir} in it; the last one is what the others are compared with")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=64, help="different requests")
    parser.add_argument("--words", type=int, default=2040, help="of the long beginning, for restart")
    parser.add_argument("--extra", default="{}", metavar="JSON", help="more fields for every request of load")
    parser.add_argument("--strict", action="append", default=[], metavar="NAME", help="a server that must make no mistake")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    directory = tempfile.mkdtemp(prefix="serve-load-")
    servers = [Server(spec, directory) for spec in options.server]
    try:
        failed = asyncio.run((load if options.what == "load" else restart)(options, servers))
    finally:
        for server in servers:
            server.stop()
    if failed:
        sys.exit(f"{failed}; logs in {directory}")
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()
