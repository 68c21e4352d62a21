"""Ollama's own client for Python against a rhetor server: RHETOR_BIN is the program, RHETOR_HOME its store."""

import glob
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

import ollama
from ollama import Client
from pydantic import BaseModel

from serving import Server, Tests

CHAT = "smollm2-135m-instruct"
EMBEDDER = "all-minilm-l6-v2"
HELLO = [{"role": "user", "content": "Say hello to the world."}]
SHORT = {"num_predict": 8, "seed": 1}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
test = Tests()


def fails(call, status, words):
    """Calls, and expects a refusal with this status whose text has these words."""
    try:
        call()
    except ollama.ResponseError as error:
        assert error.status_code == status, (error.status_code, error.error)
        assert words in error.error, error.error
        return error
    raise AssertionError("it was not refused")


def base_url(client):
    return str(client._client.base_url).rstrip("/")


def post(client, path, body):
    """The lines of a reply, each as it was parsed, and its headers."""
    request = urllib.request.Request(base_url(client) + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        return [json.loads(line) for line in reply.read().splitlines()], reply.headers


def loaded(client):
    return {model.model: model for model in client.ps().models}


@test
def generate_answers_and_counts(client):
    answer = client.generate(CHAT, "Say hello.", options=SHORT)
    assert answer.done and answer.done_reason in ("stop", "length") and answer.response
    assert answer.prompt_eval_count > 0 and 0 < answer.eval_count <= 8 and answer.total_duration > 0
    assert len(answer.context) > answer.prompt_eval_count - 2
    more = client.generate(CHAT, "Again.", context=answer.context, options=SHORT)
    assert more.prompt_eval_count > len(answer.context)


@test
def streams_say_what_whole_answers_say(client):
    whole = client.generate(CHAT, "Tell me of the sea.", options=SHORT)
    pieces = list(client.generate(CHAT, "Tell me of the sea.", options=SHORT, stream=True))
    assert "".join(piece.response for piece in pieces) == whole.response
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    whole = client.chat(CHAT, HELLO, options=SHORT)
    pieces = list(client.chat(CHAT, HELLO, options=SHORT, stream=True))
    assert "".join(piece.message.content for piece in pieces) == whole.message.content
    assert whole.message.role == "assistant" and pieces[-1].eval_count == whole.eval_count


@test
def a_stream_is_lines_of_json_and_nothing_else(client):
    lines, headers = post(client, "/api/chat", {"model": CHAT, "messages": HELLO, "options": SHORT})
    assert headers["Content-Type"] == "application/x-ndjson"
    assert all("message" in line and "done" in line for line in lines) and lines[-1]["done"]
    lines, headers = post(client, "/api/chat", {"model": CHAT, "messages": HELLO, "options": SHORT, "stream": False})
    assert headers["Content-Type"].startswith("application/json") and len(lines) == 1


@test
def log_probabilities_are_one_for_each_token(client):
    whole = client.generate(CHAT, "Hi", options=SHORT, logprobs=True, top_logprobs=2)
    assert len(whole.logprobs) == whole.eval_count and len(whole.logprobs[0].top_logprobs) == 2
    pieces = list(client.chat(CHAT, HELLO, options=SHORT, logprobs=True, stream=True))
    assert sum(len(piece.logprobs or []) for piece in pieces) == pieces[-1].eval_count
    fails(lambda: client.generate(CHAT, "Hi", logprobs=True, top_logprobs=21), 400, "top_logprobs")


@test
def raw_system_and_template_change_the_prompt(client):
    def shown(**body):
        body = {"model": CHAT, "prompt": "PROMPT", "stream": False, "_debug_render_only": True, **body}
        return post(client, "/api/generate", body)[0][0]["_debug_info"]["rendered_template"]

    assert shown(raw=True) == "PROMPT"
    assert "<|im_start|>system\nBE BRIEF<|im_end|>" in shown(system="BE BRIEF")
    assert shown(template="[{{ .System }}|{{ .Prompt }}]", system="S") == "[S|PROMPT]"
    fails(lambda: client.generate(CHAT, "x", raw=True, system="S"), 400, "raw mode")
    fails(lambda: client.generate(CHAT, "x", template="{{ .Prompt"), 400, "line 1")
    fails(lambda: client.generate(CHAT, "x", suffix="y"), 400, "insert")


@test
def an_answer_keeps_to_its_format(client):
    class City(BaseModel):
        name: str
        people: int

    options = {"seed": 1, "num_predict": 200, "temperature": 0}
    answer = client.chat(CHAT, [{"role": "user", "content": "Describe Rome as JSON."}], format=City.model_json_schema(), options=options)
    assert City.model_validate_json(answer.message.content)
    answer = client.generate(CHAT, "A JSON object with one key.", format="json", options={**options, "num_predict": 40})
    assert answer.response.lstrip().startswith("{")
    try:
        post(client, "/api/generate", {"model": CHAT, "prompt": "x", "format": "yaml"})
        raise AssertionError("it was not refused")
    except urllib.error.HTTPError as error:
        assert error.code == 400 and "invalid format" in json.loads(error.read())["error"]


@test
def tools_are_shown_and_what_they_return_is_read(client):
    def add(a: int, b: int) -> int:
        """Adds two numbers.

        Args:
            a: the first
            b: the second
        """
        return a + b

    asked = [{"role": "user", "content": "What is 2 + 3? Use the tool."}]
    first = client.chat(CHAT, asked, tools=[add], options={"seed": 3, "num_predict": 60, "temperature": 0})
    assert first.message.content or first.message.tool_calls
    for call in first.message.tool_calls or []:
        assert call.function.name == "add" and isinstance(call.function.arguments, dict)
    call = {"function": {"name": "add", "arguments": {"a": 2, "b": 3}}}
    told = asked + [{"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "tool_name": "add", "content": "5"}]
    second = client.chat(CHAT, told, tools=[add], options={"seed": 3, "num_predict": 30})
    assert second.message.content or second.message.tool_calls
    pieces = list(client.chat(CHAT, told, tools=[add], options=SHORT, stream=True))
    assert pieces[-1].done and pieces[-1].done_reason in ("stop", "length")


@test
def what_a_model_cannot_do_is_a_400(client):
    fails(lambda: client.generate(CHAT, "What is this?", images=[PIXEL]), 400, "vision")
    fails(lambda: client.chat(CHAT, [{"role": "user", "content": "?", "images": [PIXEL]}]), 400, "vision")
    fails(lambda: client.chat(CHAT, HELLO, think=True), 400, "thinking")
    assert client.chat(CHAT, HELLO, think=False, options=SHORT).message.content
    fails(lambda: client.embed(CHAT, "x"), 400, "embeddings")
    fails(lambda: client.generate(EMBEDDER, "x"), 400, "generate")


@test
def options_take_effect_or_are_refused_by_name(client):
    answer = client.generate(CHAT, "Count: 1, 2, 3,", raw=True, options={"temperature": 0, "stop": ["6"], "num_predict": 30})
    assert "6" not in answer.response and answer.done_reason == "stop", answer
    assert client.generate(CHAT, "Hi", options={**SHORT, "mirostat": 2, "num_gpu": 0, "num_thread": 0}).response
    for name, value in [("num_gpu", 99), ("num_keep", 4), ("mirostat", 1), ("use_mmap", False), ("colour", 1)]:
        fails(lambda: client.generate(CHAT, "x", options={name: value}), 400, f"options.{name}")


@test
def a_long_conversation_loses_its_oldest_turns_and_says_so(client):
    turns = [{"role": "user", "content": "word " * 100}, {"role": "assistant", "content": "yes"}] * 4
    body = {"model": CHAT, "messages": turns + HELLO, "stream": False, "options": {**SHORT, "num_ctx": 256}}
    reply = post(client, "/api/chat", body)[0][0]
    assert reply["truncated_tokens"] > 0 and reply["warnings"], reply
    try:
        post(client, "/api/chat", {**body, "truncate": False})
        raise AssertionError("it was not refused")
    except urllib.error.HTTPError as error:
        assert error.code == 400 and "256" in json.loads(error.read())["error"]


@test
def vectors_have_length_1(client):
    answer = client.embed(EMBEDDER, ["one", "two", ""])
    assert len(answer.embeddings) == 3 and answer.prompt_eval_count > 0
    for vector in answer.embeddings:
        assert abs(sum(x * x for x in vector) - 1) < 1e-4
    short = client.embed(EMBEDDER, "one", dimensions=16).embeddings[0]
    assert len(short) == 16 and abs(sum(x * x for x in short) - 1) < 1e-4
    assert client.embed(EMBEDDER, "").embeddings == []
    fails(lambda: client.embed(EMBEDDER, "word " * 2000, truncate=False), 400, "exceeds the context length")
    assert len(client.embeddings(EMBEDDER, "one").embedding) == len(answer.embeddings[0])


@test
def models_are_listed_and_shown(client):
    names = [model.model for model in client.list().models]
    assert f"{CHAT}:latest" in names
    shown = client.show(CHAT)
    assert shown.modelinfo["general.architecture"] == "llama" and "completion" in shown.capabilities
    assert "im_start" in shown.template and shown.details.format == "gguf"
    assert client.show(CHAT.upper() + ":LATEST").details == shown.details
    fails(lambda: client.show("nothing"), 404, "model 'nothing' not found")


@test
def models_come_and_go_as_keep_alive_says(client):
    name = f"{CHAT}:latest"
    assert client.generate(CHAT, "", keep_alive=-1).done_reason == "load"
    assert loaded(client)[name].expires_at.year > 2200
    client.generate(CHAT, "Hi", options={**SHORT, "num_ctx": 512})
    assert loaded(client)[name].context_length == 512
    client.generate(CHAT, "Hi", options={**SHORT, "num_ctx": 1024})
    assert loaded(client)[name].context_length == 1024
    assert client.generate(CHAT, "", keep_alive=0).done_reason == "unload"
    assert name not in loaded(client)
    assert client.chat(CHAT, [], keep_alive="2s").done_reason == "load"
    assert name in loaded(client)
    until = time.monotonic() + 30
    while name in loaded(client):
        assert time.monotonic() < until, "it did not go"
        time.sleep(0.2)


@test
def a_model_is_made_of_another_with_words_of_its_own(client):
    messages = [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "A pirate."}]
    steps = list(client.create("me/pirate:v1", from_=CHAT, system="You are a pirate.", stream=True,
                               parameters={"temperature": 0, "stop": ["ye"], "num_predict": 5}, messages=messages, license="Mine."))
    assert steps[-1].status == "success"
    shown = client.show("me/pirate:v1")
    assert "You are a pirate." in shown.modelfile and "PARAMETER stop ye" in shown.modelfile
    assert "MESSAGE assistant A pirate." in shown.modelfile and "Mine." in shown.license
    assert "temperature" in shown.parameters and shown.details.parent_model == CHAT
    answer = client.chat("me/pirate:v1", HELLO)
    assert answer.eval_count <= 5
    body = {"model": "me/pirate:v1", "messages": HELLO, "stream": False, "_debug_render_only": True}
    prompt = post(client, "/api/chat", body)[0][0]["_debug_info"]["rendered_template"]
    assert "You are a pirate." in prompt and "A pirate.<|im_end|>" in prompt
    client.create("go", from_=CHAT, template="<s>{{ .System }}|{{ .Prompt }}</s>", system="S")
    prompt = post(client, "/api/chat", {**body, "model": "go"})[0][0]["_debug_info"]["rendered_template"]
    assert prompt == "<s>S|Say hello to the world.</s>", prompt
    fails(lambda: client.create("bad", from_=CHAT, template="{{ if }}"), 400, "line 1")
    fails(lambda: client.create("bad", from_=CHAT, parameters={"colour": 1}), 400, "colour")
    fails(lambda: client.create("../bad", from_=CHAT), 400, "no model reference")
    fails(lambda: client.create("bad", from_="/etc/passwd"), 404, "not found")
    fails(lambda: client.create("bad"), 400, "neither 'from' or 'files'")
    for name in ("me/pirate:v1", "go"):
        assert client.delete(name).status == "success"


@test
def a_model_is_made_of_uploaded_files(client):
    gguf = os.path.realpath(glob.glob(os.path.join(os.environ["RHETOR_HOME"], "builtin", "*.gguf"))[0])
    digest = client.create_blob(gguf)
    assert digest.startswith("sha256:")
    client.create("uploaded", files={"model.gguf": digest})
    assert client.generate("uploaded", "Once upon a time", raw=True, options=SHORT).response
    fails(lambda: client.create("bad", files={"../model.gguf": digest}), 400, "refused")
    fails(lambda: client.create("bad", files={"/model.gguf": digest}), 400, "must be relative")
    fails(lambda: client.create("bad", files={"model.gguf": "sha256:../../etc/passwd"}), 400, "digest")
    fails(lambda: client.create("bad", files={"model.gguf": "sha256:" + "0" * 64}), 400, "not found")
    fails(lambda: client.create("bad", from_="uploaded", quantize="q4_K_M"), 400, "only supported for F16")
    url = base_url(client) + "/api/blobs/"
    for path, body, status in [("sha256:" + "0" * 64, b"x", 400), ("sha256:..%2f..%2fx", b"x", 400)]:
        try:
            urllib.request.urlopen(urllib.request.Request(url + path, body))
            raise AssertionError("it was not refused")
        except urllib.error.HTTPError as error:
            assert error.code == status, error.code
            said = json.loads(error.read())["error"]
            assert "digest" in said, said
    client.delete("uploaded")


@test
def a_model_is_copied_and_deleted(client):
    assert client.copy(CHAT, "second").status == "success"
    assert "second:latest" in [model.model for model in client.list().models]
    assert client.generate("SECOND", "Hi", options=SHORT).response
    fails(lambda: client.copy("nothing", "x"), 404, "not found")
    fails(lambda: client.copy(CHAT, "a/../b"), 400, "destination")
    assert client.delete("second").status == "success"
    fails(lambda: client.delete("second"), 404, "not found")
    assert client.generate(CHAT, "Hi", options=SHORT).response


@test
def pull_and_push_tell_how_far_they_are(client):
    steps = [step.status for step in client.pull(CHAT, stream=True)]
    assert steps[0] == "pulling manifest" and steps[-1] == "success"
    assert client.pull(CHAT).status == "success"
    fails(lambda: client.pull("no-such-model-anywhere"), 404, "no-such-model-anywhere")
    fails(lambda: list(client.pull("no-such-model-anywhere", stream=True)), -1, "no-such-model-anywhere")
    fails(lambda: client.pull("../../etc/passwd"), 400, "invalid model name")
    fails(lambda: client.push(CHAT), 501, "not pushed")


@test
def one_instance_pulls_from_another(client):
    client.create("traveller", from_=CHAT, system="You travel.", parameters={"num_predict": 4})
    home = tempfile.mkdtemp()
    try:
        with Server("--home", home) as other:
            host = base_url(client).removeprefix("http://")
            away = Client(host=other.url)
            assert away.list().models == []
            name = f"{host}/library/traveller"
            steps = list(away.pull(name, stream=True))
            assert steps[-1].status == "success" and any(step.digest for step in steps), steps
            assert "You travel." in away.show(name).modelfile
            here = client.chat("traveller", HELLO, options={"seed": 5}).message.content
            assert away.chat(name, HELLO, options={"seed": 5}).message.content == here
            checked = subprocess.run([os.environ["RHETOR_BIN"], "verify", "--home", home, name], capture_output=True, text=True)
            assert checked.returncode == 0, checked.stderr
    finally:
        shutil.rmtree(home)
        client.delete("traveller")


@test
def a_stream_can_be_left(client):
    pieces = client.chat(CHAT, [{"role": "user", "content": "Write a long story."}], stream=True, options={"num_predict": 2000})
    next(iter(pieces))
    pieces.close()
    until = time.monotonic() + 20
    # A model that is in use cannot be loaded with another context: once it can, the request is gone.
    client.generate(CHAT, "Hi", options={**SHORT, "num_ctx": 512})
    assert time.monotonic() < until


@test
def many_streams_at_once_say_what_each_says_alone(client):
    said, errors = {}, []

    def ask(i):
        return {"model": CHAT, "messages": [{"role": "user", "content": f"Count from {i}."}], "options": {"seed": i, "num_predict": 16}}

    def one(i):
        try:
            pieces = []
            for piece in client.chat(**ask(i), stream=True):
                pieces.append(piece.message.content)
                # Half of them are left while they speak.
                if i % 2 and len(pieces) == 3:
                    return
            said[i] = "".join(pieces)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and len(said) == 16, (errors, said)
    for i in (0, 14, 30):
        assert client.chat(**ask(i)).message.content == said[i]


@test
def errors_have_their_classes(client):
    fails(lambda: client.chat("nothing", HELLO), 404, "model 'nothing' not found")
    try:
        post(client, "/api/chat", {"model": "", "messages": HELLO})
        raise AssertionError("it was not refused")
    except urllib.error.HTTPError as error:
        assert error.code == 400 and json.loads(error.read())["error"] == "model is required"
    fails(lambda: client.generate("nothing", "x"), 404, "model 'nothing' not found")
    try:
        Client(host="http://127.0.0.1:9").list()
        raise AssertionError("nobody is there")
    except ConnectionError:
        pass
    request = urllib.request.Request(base_url(client) + "/api/tags", method="PUT")
    try:
        urllib.request.urlopen(request)
        raise AssertionError("it was not refused")
    except urllib.error.HTTPError as error:
        assert error.code == 405
    with urllib.request.urlopen(base_url(client) + "/") as reply:
        assert reply.read() == b"Ollama is running"
    for path in ("/", "/api/version", "/api/tags"):
        with urllib.request.urlopen(urllib.request.Request(base_url(client) + path, method="HEAD")) as reply:
            assert reply.status == 200


@test
def langchain_asks_as_ever(client):
    from langchain_ollama import ChatOllama

    model = ChatOllama(model=CHAT, base_url=base_url(client), temperature=0, num_predict=8)
    assert model.invoke("Say hello.").content


if __name__ == "__main__":
    os.environ.setdefault("RHETOR_HOME", str(pathlib.Path.home() / ".local/share/rhetor"))
    subprocess.run([os.environ["RHETOR_BIN"], "generate", "builtin", "--prompt", "x", "--max-tokens", "1"], capture_output=True)
    with Server() as server:
        test.run(Client(host=server.url))
