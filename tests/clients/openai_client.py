"""OpenAI's own client for Python against a rhetor server: RHETOR_BIN is the program, RHETOR_HOME its store."""

import base64
import http.server
import json
import math
import struct
import tempfile
import threading
import time
import urllib.request

import openai
from openai import OpenAI
from pydantic import BaseModel

import tiny_coder
from serving import Server, Tests

CHAT = "smollm2-135m-instruct"
EMBEDDER = "all-minilm-l6-v2"
HELLO = [{"role": "user", "content": "Say hello to the world."}]
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    },
}
test = Tests()


def fails(error, call, **said):
    """Calls, and expects a refusal whose fields are as `said`."""
    try:
        call()
    except error as caught:
        for name, value in said.items():
            assert getattr(caught, name) == value, (name, getattr(caught, name), str(caught))
        return caught
    raise AssertionError(f"no {error.__name__}")


@test
def chat_answers_and_counts(client):
    answer = client.chat.completions.create(model=CHAT, messages=HELLO, max_tokens=12, seed=1)
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")
    choice = answer.choices[0]
    assert choice.message.role == "assistant" and choice.message.content
    assert choice.message.refusal is None and choice.finish_reason in ("stop", "length")
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.completion_tokens <= 12 and usage.prompt_tokens_details.cached_tokens >= 0
    assert usage.truncated_tokens == 0
    assert answer._request_id, "no x-request-id"


@test
def a_stream_says_what_one_piece_says(client):
    ask = dict(model=CHAT, messages=HELLO, max_tokens=16, seed=7, temperature=0.8)
    whole = client.chat.completions.create(**ask)
    chunks = list(client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[0].choices[0].delta.content == ""
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason


@test
def several_answers_have_seeds_of_their_own(client):
    ask = dict(model=CHAT, messages=HELLO, max_tokens=10, seed=5, temperature=1.5)
    three = client.chat.completions.create(**ask, n=3)
    assert [choice.index for choice in three.choices] == [0, 1, 2]
    texts = [choice.message.content for choice in three.choices]
    again = client.chat.completions.create(**ask, n=3)
    assert texts == [choice.message.content for choice in again.choices]
    second = client.chat.completions.create(**{**ask, "seed": 6})
    assert second.choices[0].message.content == texts[1], "completion i has the seed + i"
    streamed = {}
    for chunk in client.chat.completions.create(**ask, n=3, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] = streamed.get(choice.index, "") + (choice.delta.content or "")
    assert [streamed[i] for i in range(3)] == texts


@test
def an_answer_ends_before_a_stop_string(client):
    ask = dict(model=CHAT, messages=HELLO, max_tokens=24, temperature=0)
    whole = client.chat.completions.create(**ask).choices[0].message.content
    stop = whole[4:7]
    cut = client.chat.completions.create(**ask, stop=["\0 never", stop]).choices[0]
    assert cut.message.content == whole[: whole.index(stop)] and cut.finish_reason == "stop"


@test
def log_probabilities_come_for_each_token(client):
    ask = dict(model=CHAT, messages=HELLO, max_tokens=6, temperature=0, logprobs=True, top_logprobs=3)
    answer = client.chat.completions.create(**ask)
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens
    for token in content:
        assert len(token.top_logprobs) == 3 and token.logprob <= 0
        assert abs(token.logprob - token.top_logprobs[0].logprob) < 1e-5, "greedy takes the likeliest"
        assert bytes(token.bytes).decode(errors="replace") == token.token
    streamed = []
    for chunk in client.chat.completions.create(**ask, stream=True):
        if chunk.choices and chunk.choices[0].logprobs:
            streamed += chunk.choices[0].logprobs.content
    assert [token.token for token in streamed] == [token.token for token in content]
    # A bias forbids a token.
    first = content[0].token
    ids = json.load(post(client, "/tokenize", {"model": CHAT, "content": first, "add_special": False}))["tokens"]
    other = client.chat.completions.create(**ask, logit_bias={str(ids[0]): -100})
    assert other.choices[0].logprobs.content[0].token != first


@test
def tools_are_called_and_answered(client):
    messages = [{"role": "user", "content": "What is 3 plus 4? Use the tool."}]
    ask = dict(model=CHAT, tools=[ADD], max_tokens=96, temperature=0)
    first = client.chat.completions.create(**ask, messages=messages, tool_choice="required")
    choice = first.choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    call = choice.message.tool_calls[0]
    arguments = json.loads(call.function.arguments)
    assert call.function.name == "add" and set(arguments) == {"a", "b"}
    assert all(isinstance(value, int) for value in arguments.values())
    messages += [choice.message, {"role": "tool", "tool_call_id": call.id, "content": str(sum(arguments.values()))}]
    second = client.chat.completions.create(**ask, messages=messages, tool_choice="none")
    assert second.choices[0].message.content and not second.choices[0].message.tool_calls


@test
def a_named_tool_is_called_in_a_stream_too(client):
    other = json.loads(json.dumps(ADD).replace('"add"', '"subtract"'))
    named = {"type": "function", "function": {"name": "subtract"}}
    ask = dict(model=CHAT, messages=HELLO, tools=[ADD, other], tool_choice=named, max_tokens=96, seed=3)
    whole = client.chat.completions.create(**ask, parallel_tool_calls=False)
    call = whole.choices[0].message.tool_calls[0]
    assert call.function.name == "subtract" and len(whole.choices[0].message.tool_calls) == 1
    with client.chat.completions.stream(**ask, parallel_tool_calls=False) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert final.choices[0].message.tool_calls[0].function.arguments == call.function.arguments
    assert final.choices[0].finish_reason == "tool_calls"


@test
def tools_may_be_left_alone(client):
    answer = client.chat.completions.create(model=CHAT, messages=HELLO, tools=[ADD], max_tokens=12, seed=2)
    assert answer.choices[0].finish_reason in ("stop", "length", "tool_calls")
    none = client.chat.completions.create(model=CHAT, messages=HELLO, tools=[ADD], tool_choice="none", max_tokens=8)
    assert none.choices[0].message.tool_calls is None


class City(BaseModel):
    name: str
    country: str
    inhabitants: int


@test
def an_answer_is_parsed_into_a_class(client):
    messages = [{"role": "user", "content": "Describe Paris: name, country, number of inhabitants."}]
    answer = client.chat.completions.parse(
        model=CHAT, messages=messages, response_format=City, max_tokens=120, temperature=0
    )
    city = answer.choices[0].message.parsed
    assert isinstance(city, City) and isinstance(city.inhabitants, int), city
    assert answer.constraint == "json_schema" and answer.usage.constrained_tokens > 0
    loose = client.chat.completions.create(
        model=CHAT, messages=messages, response_format={"type": "json_object"}, max_tokens=120, temperature=0
    )
    if loose.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(loose.choices[0].message.content), dict)
    ask = dict(model=CHAT, messages=messages, max_tokens=40, temperature=0)
    year = client.chat.completions.create(**ask, extra_body={"guided_regex": "[12][0-9]{3}"})
    assert year.choices[0].message.content.isdigit() and len(year.choices[0].message.content) == 4
    gbnf = client.chat.completions.create(**ask, extra_body={"grammar": 'root ::= "yes" | "no"'})
    assert gbnf.choices[0].message.content in ("yes", "no") and gbnf.constraint == "gbnf"
    # An answer that is cut is no JSON, and says so.
    call = lambda: client.chat.completions.parse(model=CHAT, messages=messages, response_format=City, max_tokens=3)
    fails(openai.LengthFinishReasonError, call)


@test
def embeddings_come_in_base64_and_as_numbers(client):
    texts = ["The cat sits on the mat.", "A cat is sitting on a mat.", "Stocks fell sharply on Monday."]
    by_default = client.embeddings.create(model=EMBEDDER, input=texts)
    as_floats = client.embeddings.create(model=EMBEDDER, input=texts, encoding_format="float")
    raw = client.embeddings.with_raw_response.create(model=EMBEDDER, input=texts, encoding_format="base64")
    packed = json.loads(raw.text)["data"]
    for i, text in enumerate(texts):
        a, b = by_default.data[i].embedding, as_floats.data[i].embedding
        assert len(a) == 384 and by_default.data[i].index == i
        assert max(abs(x - y) for x, y in zip(a, b)) < 1e-6
        c = struct.unpack("<384f", base64.b64decode(packed[i]["embedding"]))
        assert max(abs(x - y) for x, y in zip(b, c)) < 1e-6
        alone = client.embeddings.create(model=EMBEDDER, input=text).data[0].embedding
        assert max(abs(x - y) for x, y in zip(a, alone)) < 1e-6, "a vector does not depend on its neighbours"
    dot = lambda x, y: sum(p * q for p, q in zip(x, y))
    vectors = [item.embedding for item in as_floats.data]
    assert dot(vectors[0], vectors[1]) > 0.8 > 0.3 > dot(vectors[0], vectors[2])
    short = client.embeddings.create(model=EMBEDDER, input=texts[0], dimensions=64).data[0].embedding
    assert len(short) == 64 and abs(math.sqrt(dot(short, short)) - 1) < 1e-5
    assert by_default.usage.prompt_tokens == by_default.usage.total_tokens > 3 * 5
    fails(openai.BadRequestError, lambda: client.embeddings.create(model=EMBEDDER, input=""), param="input")
    fails(openai.BadRequestError, lambda: client.embeddings.create(model=CHAT, input="a"))
    long = lambda **more: client.embeddings.create(model=EMBEDDER, input="word " * 1000, **more)
    fails(openai.BadRequestError, long, code="context_length_exceeded")
    cut = long(extra_body={"overflow": "truncate"})
    assert cut.usage.truncated_tokens > 0 and cut.warnings


@test
def embeddings_of_many_callers_are_those_of_one(client):
    texts = [f"Sentence number {i} is about {word}." for i, word in enumerate(["rain", "bread", "iron"] * 4)]
    alone = client.embeddings.create(model=EMBEDDER, input=texts)
    found = {}

    def ask(i):
        found[i] = client.embeddings.create(model=EMBEDDER, input=[texts[i]]).data[0].embedding

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(texts))]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    for i in range(len(texts)):
        assert max(abs(x - y) for x, y in zip(found[i], alone.data[i].embedding)) < 1e-6


@test
def completions_continue_texts_as_they_are(client):
    ask = dict(model=CHAT, max_tokens=3, temperature=0)
    one = client.completions.create(**ask, prompt="The capital of France is")
    assert "Paris" in one.choices[0].text and one.object == "text_completion"
    many = client.completions.create(**ask, prompt=["The capital of France is", "One, two, three,"], n=2)
    assert [choice.index for choice in many.choices] == [0, 1, 2, 3]
    assert many.choices[0].text == many.choices[1].text == one.choices[0].text
    assert "four" in many.choices[2].text
    ids = json.load(post(client, "/tokenize", {"model": CHAT, "content": "The capital of France is"}))["tokens"]
    assert client.completions.create(**ask, prompt=ids).choices[0].text == one.choices[0].text
    streamed = client.completions.create(**ask, prompt="The capital of France is", stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed if chunk.choices) == one.choices[0].text
    best = client.completions.create(
        model=CHAT, prompt="Once", max_tokens=6, temperature=1.5, best_of=4, n=1, seed=3, logprobs=0
    )
    mean = lambda choice: sum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs)
    four = client.completions.create(
        model=CHAT, prompt="Once", max_tokens=6, temperature=1.5, n=4, seed=3, logprobs=0
    )
    assert best.choices[0].text == max(four.choices, key=mean).text
    assert len(best.choices) == 1 and best.usage.completion_tokens == four.usage.completion_tokens


@test
def an_echo_scores_its_prompt(client):
    prompt = "The capital of France is Paris"
    scored = client.completions.create(model=CHAT, prompt=prompt, max_tokens=0, echo=True, logprobs=1)
    choice = scored.choices[0]
    assert choice.text == prompt
    logprobs = choice.logprobs
    assert "".join(logprobs.tokens) == prompt
    assert len({len(logprobs.tokens), len(logprobs.token_logprobs), len(logprobs.text_offset)}) == 1
    for token, offset in zip(logprobs.tokens, logprobs.text_offset):
        assert prompt[offset:].startswith(token)
    body = {"model": CHAT, "context": "The capital of France is", "continuation": " Paris"}
    score = json.load(post(client, "/score", body))
    assert abs(score["logprob"] - logprobs.token_logprobs[-1]) < 1e-4
    more = client.completions.create(model=CHAT, prompt=prompt, max_tokens=2, echo=True, logprobs=1, temperature=0)
    assert more.choices[0].text.startswith(prompt)
    assert len(more.choices[0].logprobs.tokens) == len(logprobs.tokens) + more.usage.completion_tokens


@test
def a_hole_is_filled_by_those_who_can(client):
    call = lambda: client.completions.create(model=CHAT, prompt="def f(x):\n    return ", suffix="\n")
    caught = fails(openai.BadRequestError, call)
    assert "hole" in caught.message
    with tempfile.TemporaryDirectory() as home:
        tiny_coder.write(home)
        with Server(home=home) as server:
            coder = OpenAI(base_url=server.url + "/v1", api_key="none")
            ask = dict(model=tiny_coder.NAME, prompt="def f(x):", suffix="return y", max_tokens=8, seed=1)
            filled = coder.completions.create(**ask)
            # Each byte is a token here, and three tokens mark the parts.
            assert filled.usage.prompt_tokens == len(ask["prompt"] + ask["suffix"]) + 3
            assert filled.choices[0].finish_reason in ("stop", "length")
            streamed = coder.completions.create(**ask, stream=True)
            assert "".join(chunk.choices[0].text for chunk in streamed) == filled.choices[0].text
            fails(openai.BadRequestError, lambda: coder.completions.create(**ask, echo=True), param="suffix")


@test
def refusals_have_their_classes_and_fields(client):
    chat = lambda **more: lambda: client.chat.completions.create(
        **{"model": CHAT, "messages": HELLO, "max_tokens": 4, **more}
    )
    fails(openai.NotFoundError, chat(model="no-such-model"), code="model_not_found", param="model")
    fails(openai.NotFoundError, chat(model="../../etc/passwd"))
    fails(openai.BadRequestError, chat(temperature=3), param="temperature")
    fails(openai.BadRequestError, chat(messages=[]), param="messages")
    fails(openai.BadRequestError, chat(top_logprobs=2), param="top_logprobs")
    fails(openai.BadRequestError, chat(n=0), param="n")
    unknown = chat(extra_body={"colour": "red"})
    fails(openai.BadRequestError, unknown, param="colour", code="unknown_parameter")
    audio = chat(modalities=["text", "audio"])
    fails(openai.BadRequestError, audio, param="modalities", code="unsupported_parameter")
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]
    fails(openai.BadRequestError, chat(messages=picture))
    remote = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/x.png"}}]}]
    fails(openai.BadRequestError, chat(messages=remote))
    long = [{"role": "user", "content": "word " * 20000}]
    caught = fails(openai.BadRequestError, chat(messages=long), code="context_length_exceeded")
    assert sum(part.isdigit() for part in caught.message.replace(";", " ").split()) >= 2, caught.message
    stray = HELLO + [{"role": "tool", "tool_call_id": "call_x", "content": "1"}]
    fails(openai.BadRequestError, chat(messages=stray), param="messages[1].tool_call_id")
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}
    fails(openai.BadRequestError, chat(response_format=schema))


@test
def what_the_caller_got_wrong_is_asked_once(client):
    """The client tries again after 5xx and 429; nothing that the caller got wrong is either."""
    counted = []

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            counted.append(self.path)
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("x-broken"):
                status, reply = 503, b'{"error":{"message":"busy","type":"server_error","param":null,"code":null}}'
            else:
                ask = urllib.request.Request(str(client.base_url).rstrip("/") + self.path[3:], body, method="POST")
                try:
                    with urllib.request.urlopen(ask) as answer:
                        status, reply = answer.status, answer.read()
                except urllib.error.HTTPError as error:
                    status, reply = error.code, error.read()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_):
            pass

    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    through = OpenAI(base_url=f"http://127.0.0.1:{proxy.server_port}/v1", api_key="none")
    wrong = lambda: through.chat.completions.create(model=CHAT, messages=HELLO, temperature=9)
    fails(openai.BadRequestError, wrong)
    assert len(counted) == 1, counted
    counted.clear()
    busy = lambda: through.chat.completions.create(model=CHAT, messages=HELLO, extra_headers={"x-broken": "1"})
    fails(openai.InternalServerError, busy)
    assert len(counted) == 3, counted
    proxy.shutdown()


@test
def a_stream_that_is_broken_off_frees_its_place(client):
    stream = client.chat.completions.create(model=CHAT, messages=HELLO, max_tokens=2000, stream=True, seed=1,
                                            extra_body={"logit_bias": {"2": -100}})
    for i, _ in enumerate(stream):
        if i == 3:
            break
    stream.close()
    deadline = time.monotonic() + 20
    while running(client) > 0:
        assert time.monotonic() < deadline, "the broken-off request still runs"
        time.sleep(0.05)


@test
def models_are_listed_found_and_not_deleted(client):
    names = [model.id for model in client.models.list()]
    assert CHAT in names and EMBEDDER in names
    model = client.models.retrieve(CHAT)
    assert model.object == "model" and model.created > 0 and model.owned_by
    assert client.models.retrieve(CHAT + ":latest").id == CHAT
    fails(openai.NotFoundError, lambda: client.models.retrieve("nobody/nothing:9b"), code="model_not_found")
    fails(openai.PermissionDeniedError, lambda: client.models.delete(CHAT))
    assert CHAT in [model.id for model in client.models.list()]


@test
def a_response_is_made_kept_and_continued(client):
    first = client.responses.create(model=CHAT, input="My name is Ada.", instructions="Be brief.",
                                    max_output_tokens=20, temperature=0, metadata={"a": "b"})
    assert first.object == "response" and first.id.startswith("resp_") and first.output_text
    assert first.status in ("completed", "incomplete") and first.metadata == {"a": "b"}
    if first.status == "incomplete":
        assert first.incomplete_details.reason == "max_output_tokens"
    assert first.usage.total_tokens == first.usage.input_tokens + first.usage.output_tokens
    again = client.responses.retrieve(first.id)
    assert again.output_text == first.output_text and again.instructions == "Be brief."
    second = client.responses.create(model=CHAT, input="What is my name?", previous_response_id=first.id,
                                     max_output_tokens=20, temperature=0)
    by_hand = client.chat.completions.create(model=CHAT, max_tokens=20, temperature=0, messages=[
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "What is my name?"},
    ])
    assert second.output_text == by_hand.choices[0].message.content
    client.responses.delete(first.id)
    fails(openai.NotFoundError, lambda: client.responses.retrieve(first.id))
    gone = lambda: client.responses.create(model=CHAT, input="?", previous_response_id=first.id)
    fails(openai.NotFoundError, gone, param="previous_response_id")
    unkept = client.responses.create(model=CHAT, input="Hi", max_output_tokens=16, store=False)
    fails(openai.NotFoundError, lambda: client.responses.retrieve(unkept.id))


@test
def a_response_streams_in_order(client):
    ask = dict(model=CHAT, input="Count to five.", max_output_tokens=16, temperature=0)
    whole = client.responses.create(**ask)
    events = list(client.responses.create(**ask, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    names = [event.type for event in events if event.type != "response.output_text.delta"]
    end = "response.completed" if whole.status == "completed" else "response.incomplete"
    assert names == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
        "response.output_text.done", "response.content_part.done", "response.output_item.done", end,
    ]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == whole.output_text == events[-1].response.output_text
    with client.responses.stream(**ask) as stream:
        for _ in stream:
            pass
        if whole.status == "completed":
            assert stream.get_final_response().output_text == whole.output_text


@test
def a_response_calls_tools(client):
    flat = {"type": "function", "strict": True, **ADD["function"]}
    ask = dict(model=CHAT, tools=[flat], max_output_tokens=96, temperature=0)
    question = [{"role": "user", "content": "What is 3 plus 4?"}]
    first = client.responses.create(**ask, input=question, tool_choice="required")
    call = first.output[-1]
    assert call.type == "function_call" and call.name == "add"
    arguments = json.loads(call.arguments)
    output = {"type": "function_call_output", "call_id": call.call_id, "output": str(arguments["a"] + arguments["b"])}
    second = client.responses.create(**ask, input=[output], previous_response_id=first.id, tool_choice="none")
    stateless = client.responses.create(
        **ask, input=question + [item.model_dump() for item in first.output] + [output], tool_choice="none"
    )
    assert second.output_text == stateless.output_text
    names = [event.type for event in client.responses.create(**ask, input=question, tool_choice="required", stream=True)]
    assert "response.function_call_arguments.delta" in names and names[-1] == "response.completed"


@test
def a_response_is_parsed_into_a_class(client):
    answer = client.responses.parse(model=CHAT, input="Describe Rome.", text_format=City, max_output_tokens=120,
                                    temperature=0)
    assert isinstance(answer.output_parsed, City)


@test
def responses_refuse_what_they_cannot_do(client):
    ask = lambda **more: lambda: client.responses.create(**{"model": CHAT, "input": "Hi", **more})
    fails(openai.BadRequestError, ask(background=True), param="background")
    fails(openai.BadRequestError, ask(tools=[{"type": "web_search"}]), param="tools[0].type")
    fails(openai.BadRequestError, ask(include=["reasoning.encrypted_content"]), param="include")
    fails(openai.BadRequestError, ask(conversation="conv_1"), param="conversation")


@test
def langchain_asks_too(client):
    try:
        from langchain_openai import ChatOpenAI
    except ImportError:
        return "langchain-openai is not installed"
    chat = ChatOpenAI(model=CHAT, base_url=str(client.base_url), api_key="none", temperature=0, max_tokens=12)
    answer = chat.invoke("Say hello.")
    assert answer.content and answer.usage_metadata["output_tokens"] > 0
    pieces = list(chat.stream("Say hello."))
    assert "".join(piece.content for piece in pieces) == answer.content


def post(client, path, body):
    root = str(client.base_url).removesuffix("/v1/")
    request = urllib.request.Request(root + path, json.dumps(body).encode(), {"content-type": "application/json"})
    return urllib.request.urlopen(request)


def running(client):
    """Requests that the models work at."""
    text = urllib.request.urlopen(str(client.base_url).removesuffix("/v1/") + "/metrics").read().decode()
    lines = [line for line in text.splitlines() if line.startswith("rhetor_requests_in_flight")]
    assert lines, text[:2000]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines) - 1


if __name__ == "__main__":
    with Server() as server:
        test.run(OpenAI(base_url=server.url + "/v1", api_key="none", timeout=120))
