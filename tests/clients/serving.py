"""A rhetor server of one's own, and a count of what passed."""

import os
import signal
import subprocess
import sys
import traceback


class Server:
    """`rhetor serve` on a free port, stopped at the end."""

    def __init__(self, *arguments, home=None):
        binary = os.environ["RHETOR_BIN"]
        environment = {**os.environ, "RHETOR_HOME": home} if home else None
        self.process = subprocess.Popen(
            [binary, "serve", "--listen", "127.0.0.1:0", *arguments],
            env=environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        self.url = None
        for line in self.process.stderr:
            if "listens on " in line:
                self.url = line.split("listens on ")[1].split()[0]
                break
        if self.url is None:
            raise RuntimeError(f"{binary} serve ended with {self.process.wait()} before it listened")
        # What it says later must not fill the pipe.
        self.log = open(os.devnull, "w")
        import threading

        threading.Thread(target=self._drain, daemon=True).start()

    def _drain(self):
        for line in self.process.stderr:
            if os.environ.get("SERVER_LOG"):
                sys.stderr.write(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


class Tests:
    """Functions that are run one after another."""

    def __init__(self):
        self.functions = []

    def __call__(self, function):
        self.functions.append(function)
        return function

    def run(self, *arguments):
        """Runs all, prints `N passed, N failed`, and exits non-zero if any failed."""
        failed = skipped = 0
        wanted = sys.argv[1:]
        functions = [f for f in self.functions if not wanted or f.__name__ in wanted]
        for function in functions:
            try:
                reason = function(*arguments)
            except Exception:
                failed += 1
                print(f"FAILED {function.__name__}")
                traceback.print_exc(file=sys.stdout)
                continue
            if isinstance(reason, str):
                skipped += 1
                print(f"skipped {function.__name__}: {reason}")
            else:
                print(f"ok {function.__name__}")
        print(f"{len(functions) - failed - skipped} passed, {failed} failed, {skipped} skipped")
        sys.exit(1 if failed else 0)
