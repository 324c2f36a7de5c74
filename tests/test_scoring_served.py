"""A served reward against a small server that answers as vLLM and others do; the table of check-reward."""

from __future__ import annotations

import _thread
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import tiny

from ratekit.errors import InputError, WorkError
from ratekit.scoring import make_reward, read_reward


def reward_of(prompt, response):
    return len(prompt) - 0.25 * len(response)


class Server(BaseHTTPRequestHandler):
    """Gives `reward_of`; a response with "lost" in it gets an answer without a score, one with "nan" a NaN."""

    seen: list = []  # noqa: RUF012

    def do_GET(self):
        self._say({"data": [{"id": "the-model"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append((self.path, body, self.headers.get("Authorization")))
        if self.path == "/classify":
            prompt, response = body["messages"][0]["content"], body["messages"][-1]["content"]
            answer = {"data": [{"index": 0, "label": "LABEL_0", "probs": [reward_of(prompt, response)]}]}
        elif self.path == "/score":
            prompt, response = body["text_1"], body["text_2"]
            answer = {"data": [{"index": 0, "score": reward_of(prompt, response)}]}
        elif self.path == "/predict":
            ((prompt, response),) = body["inputs"]
            answer = [[{"label": "LABEL_0", "score": reward_of(prompt, response)}]]
        else:
            return self._say({"error": "no such endpoint"}, 404)
        if "secret" in response:
            return self._say({"error": "wrong key"}, 401)
        if "lost" in response:
            answer = {"data": []}
        if "nan" in response:
            answer = json.loads(json.dumps(answer).replace(str(reward_of(prompt, response)), "NaN"))
        self._say(answer)

    def _say(self, what, status=200):
        text = json.dumps(what).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def base():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


PROMPTS, RESPONSES = ["Why?", "Why is the sky blue?"] * 10, [f"Because {i}." for i in range(20)]


@pytest.mark.parametrize("endpoint", ["classify", "score", "predict"])
def test_rewards_come_back_in_order(base, endpoint):
    reward = make_reward(f"served:{base}/{endpoint}")
    wanted = [reward_of(p, r) for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    np.testing.assert_array_equal(reward(PROMPTS, RESPONSES), wanted)


def test_the_raw_output_is_asked_for_and_the_model_is_named(base):
    Server.seen.clear()
    make_reward(f"served:{base}/classify")(["Why?"], ["So."])
    _, body, _ = Server.seen[-1]
    assert body["model"] == "the-model"
    assert body["use_activation"] is False
    assert body["messages"] == [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]


def test_a_key_comes_from_the_environment_and_is_in_no_name(base, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-test")
    reward = make_reward(f"served:{base}/classify")
    reward(["Why?"], ["So."])
    assert Server.seen[-1][2] == "Bearer key-of-the-test"
    assert "key-of-the-test" not in str(reward.fingerprint) + reward.name


def test_a_line_break_behind_the_key_is_left_out_and_what_is_no_key_is_refused(base, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-test\n")
    assert make_reward(f"served:{base}/score")(["Why?"], ["So."]) == [reward_of("Why?", "So.")]
    assert Server.seen[-1][2] == "Bearer key-of-the-test"
    monkeypatch.setenv("OPENAI_API_KEY", "two words")
    with pytest.raises(InputError, match="OPENAI_API_KEY holds a space"):
        make_reward(f"served:{base}/score")(["Why?"], ["So."])


def test_what_fails_is_null_and_the_rest_is_scored(base):
    scores = make_reward(f"served:{base}/score")
    got = scores.scores(["Why?"] * 4, ["So.", "lost", "  ", "nan"])
    assert got.statuses == ["ok", "failed", "empty", "not_finite"]
    assert np.isnan(got.rewards).tolist() == [False, True, True, True]


# --- what is read of an answer, and what is refused ---------------------------------------------------------


def answered(endpoint, answer):
    from ratekit.scoring.served import ENDPOINTS

    return ENDPOINTS[endpoint][1](answer)


@pytest.mark.parametrize(
    ("endpoint", "answer", "reward"),
    [
        ("classify", {"data": [{"probs": [-2.5]}]}, -2.5),
        ("classify", {"data": [{"probs": [-1, 3], "label": "POSITIVE", "num_classes": 2}]}, 3),
        ("classify", {"data": [{"probs": [4, -3], "label": "NEGATIVE", "num_classes": 2}]}, -3),
        ("classify", [{"embedding": [1.25]}], 1.25),  # SGLang's
        ("pooling", {"data": [{"data": [0.75]}]}, 0.75),
        ("score", {"data": [{"score": 2}]}, 2),
        ("predict", [[{"label": "LABEL_0", "score": 0.5}]], 0.5),
        (
            "predict",
            [{"label": "NEGATIVE", "score": 4.0}, {"label": "POSITIVE", "score": -4.0}],
            -4.0,
        ),  # sorted by score
        ("get_reward", {"rewards": [1.5]}, 1.5),
    ],
)
def test_the_one_number_is_read(endpoint, answer, reward):
    assert answered(endpoint, answer) == reward


@pytest.mark.parametrize(
    ("endpoint", "answer"),
    [
        ("classify", {"data": [{"probs": [1, 2], "label": "x"}]}),
        ("classify", {"data": [{"probs": [5, 1, 2, 3, 4], "label": "LABEL_0"}]}),
        ("classify", {"data": [{"probs": [True]}]}),
        ("classify", {"data": [{"probs": ["3.0"]}]}),
        ("classify", {"data": [{"probs": []}]}),
        ("classify", {"data": [{"probs": [1]}, {"probs": [2]}]}),
        ("classify", [{"embedding": [0.1, 0.2, 0.3]}]),
        ("pooling", {"data": [{"data": [[0.1, 0.2], [0.3, 0.4]]}]}),
        ("score", {"data": [{"score": None}]}),
        ("score", {"data": [{"score": 1}, {"score": 2}]}),
        ("predict", [[{"label": "A", "score": 2.0}, {"label": "B", "score": 1.0}]]),
        ("predict", []),
        ("get_reward", {"rewards": [1.0, 2.0]}),
        ("get_reward", {"rewards": 1.0}),
        ("classify", {"data": [{"probs": [1.0], "label": "LABEL_0", "num_classes": 2}]}),
        ("score", {"data": [{"score": 10**400}]}),
    ],
)
def test_anything_else_is_refused(endpoint, answer):
    with pytest.raises((ValueError, LookupError, TypeError, AttributeError, OverflowError)):
        answered(endpoint, answer)


class Other(Server):
    """Serves `models` under /v1; what it gives is `scale` times the response's words, or a refusal."""

    models, scale, refusal, label = ("m-a",), 1.0, None, None

    def do_GET(self):
        known = self.path == "/v1/models" and self.models
        return self._say({"data": [{"id": m} for m in self.models]}) if known else self._say({"detail": "No"}, 404)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append((self.path, body, None))
        if self.refusal:
            return self._say(self.refusal, 400)
        text = body["query"][0] if "query" in body else body.get("text") or body["messages"][-1]["content"]
        reward = self.scale * len(text.split())
        if self.label:
            return self._say({"data": [{"probs": [reward], "label": self.label(reward)}]})
        self._say({"rewards": [reward]} if "query" in body else {"data": [{"probs": [reward]}]})


@pytest.fixture
def other():
    handler = type("Handler", (Other,), {"seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield handler, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def rows(n=3):
    from datasets import Dataset

    columns = {"prompt_id": list("abc")[:n], "prompt": [[{"role": "user", "content": "Why?"}]] * n}
    return Dataset.from_dict({**columns, "response": ["So.", "So so.", "So so so."][:n]})


def scored(url, **options):
    import ratekit as rk

    return [r[0] for r in rk.score(rows(), f"served:{url}", name="r", progress=False, **options)["reward/r"]]


def test_another_model_behind_the_address_gets_no_kept_scores(other, tmp_path, caplog):
    handler, base = other
    url = f"{base}/v1/classify"
    assert scored(url, cache=tmp_path) == [1, 2, 3]
    n_asked = len(handler.seen)
    assert scored(url, cache=tmp_path) == [1, 2, 3]
    assert len(handler.seen) == n_asked
    handler.models, handler.scale = ("m-b",), -10.0
    assert scored(url, cache=tmp_path) == [-10, -20, -30]
    handler.models = ()  # it does not say what it serves: nothing tells it from another
    with caplog.at_level("WARNING", "ratekit"):
        assert scored(f"{base}/get_reward", cache=tmp_path) == [-20, -30, -40]
    assert "nothing says which model" in caplog.text


def test_several_models_are_named(other):
    handler, base = other
    handler.models = ("m-a", "m-b")
    with pytest.raises(InputError, match="serves m-a, m-b; name one"):
        scored(f"{base}/classify")
    assert scored(f"{base}/classify,m-b") == [1, 2, 3]
    assert handler.seen[-1][1]["model"] == "m-b"
    with pytest.raises(InputError, match="does not serve 'm-c'; it serves m-a, m-b"):
        scored(f"{base}/classify,m-c")


@pytest.mark.parametrize(
    "refusal",
    [{"error": {"message": "Field required: input"}}, {"message": "Field required: input"},
     {"detail": [{"msg": "Field required: input", "loc": ["body"]}]}],
)  # fmt: skip
def test_the_servers_own_words_are_kept(other, refusal):
    handler, base = other
    handler.refusal = refusal
    with pytest.raises(WorkError, match="3 failed \\(the server said: Field required: input\\)"):
        scored(f"{base}/classify")


def test_an_answer_of_the_likeliest_class_alone_is_refused(other):
    handler, base = other
    for label, said in (
        (lambda reward: "NEGATIVE" if reward > 2 else "POSITIVE", "its one output is that of NEGATIVE"),
        (lambda reward: f"LABEL_{int(reward > 2)}", "that of LABEL_[01] for one text and of LABEL_[01] for another"),
    ):
        handler.label = staticmethod(label)
        with pytest.raises(InputError, match=f"is no reward model: .*{said}; it answered"):
            scored(f"{base}/classify")
    handler.label = staticmethod(lambda reward: "LABEL_0")
    assert scored(f"{base}/classify") == [1, 2, 3]


def test_a_number_that_no_float_holds_is_one_null(other):
    handler, base = other
    handler.scale = 10**400
    with pytest.raises(WorkError, match="3 failed \\(the answer has another shape"):
        scored(f"{base}/classify")


def test_scores_that_look_like_probabilities_are_said(other, caplog):
    handler, base = other
    handler.scale = 0.1
    with caplog.at_level("WARNING", "ratekit"):
        scored(f"{base}/classify")
    assert "every score lies between 0 and 1" in caplog.text
    caplog.clear()
    handler.scale = -0.1
    with caplog.at_level("WARNING", "ratekit"):
        scored(f"{base}/classify")
    assert "between 0 and 1" not in caplog.text


def test_text_in_a_chat_template_is_sent_where_a_tokenizer_is_named(other, tmp_path):
    handler, base = other
    tiny.tokenizer().save_pretrained(tmp_path)
    scored(f"{base}/classify,m-a,{tmp_path}")
    texts = {body["text"] for _, body, _ in handler.seen}
    assert "<s><|user|>\nWhy?<|eot|><|assistant|>\nSo.<|eot|>" in texts


def test_a_refused_key_and_a_server_that_is_not_there_are_one_line(base):
    with pytest.raises(WorkError, match="refused the key"):
        make_reward(f"served:{base}/score")(["Why?"], ["secret"])
    from ratekit.scoring.served import ServedReward

    gone = ServedReward("http://127.0.0.1:9/score", model="x", max_retries=0)
    with pytest.raises(WorkError, match=r"no answer from http://127.0.0.1:9"):
        gone(["Why?"], ["So."])


def stopping(handler, at, stop):
    """A server that is slow from its `at`-th request on, when it calls `stop`; it notes what it answered."""
    lock = threading.Lock()

    def post(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with lock:
            handler.seen.append(body["messages"][-1]["content"])
            n = len(handler.seen)
        if n == at:
            stop()
        if n >= at:
            time.sleep(0.3)
        if "refused" in body["messages"][-1]["content"]:
            return self._say({"error": "wrong key"}, 401)
        self._say({"data": [{"probs": [len(handler.seen)]}]})
        handler.sent.append(body["messages"][-1]["content"])

    handler.sent, handler.do_POST = [], post


@pytest.mark.commands
@pytest.mark.parametrize("stop", [KeyboardInterrupt, WorkError])
def test_what_was_answered_before_a_stop_is_kept(other, tmp_path, stop):
    from datasets import Dataset

    import ratekit as rk

    handler, base = other
    texts = [f"Response {i}." for i in range(200)]
    texts[90] = "refused" if stop is WorkError else "Response 90."
    stopping(handler, 90, _thread.interrupt_main if stop is KeyboardInterrupt else (lambda: None))

    def score():
        ds = Dataset.from_dict({"prompt": ["Why?"] * 200, "response": texts})
        rk.score(ds, f"served:{base}/classify", cache=tmp_path, progress=False)

    with pytest.raises(stop):
        score()
    first = list(handler.sent)
    assert 80 <= len(first) < 200
    handler.do_POST = Other.do_POST
    handler.seen.clear()
    texts[90] = "Response 90."
    score()
    again = [body["messages"][-1]["content"] for _, body, _ in handler.seen]
    assert sorted(again) == sorted({*texts} - {*first})


@pytest.mark.parametrize("name", ["served:example.org", "served:http://h/embed", "dpo:a/b", "judge:nothing"])
def test_a_wrong_form_says_how_it_is_written(name):
    with pytest.raises(InputError):
        make_reward(name)


def test_forms_are_found_before_any_work():
    assert read_reward("judge:org/model").places == ("org/model",)
    assert read_reward("dpo:a/b,c/d").places == ("a/b", "c/d")


# --- check-reward ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "gpt2", "deberta-v2"])
def test_a_good_model_passes(tmp_path, kind):
    from ratekit.scoring.check_reward import check_reward

    table = check_reward(tiny.save(tmp_path, kind))
    assert not (table["result"] == "FAIL").any(), table.to_string()
    sides = table.set_index("check").loc["padded on the left, as one by one"]
    assert (sides["result"] == "pass") == (kind == "llama"), "only rotary positions do not care where a text stands"


def test_faults_are_found(tmp_path):
    from ratekit.scoring.check_reward import check_reward

    lossy = tiny.TEMPLATE.replace("m['content']", "m['content'] | trim").replace("{{ bos_token }}", "<s><s>")
    path = tiny.save(tmp_path, "llama", tok=tiny.tokenizer(template=lossy))
    table = check_reward(path, reference=("Why?", "So.", 1234.5))
    failed = table[table["result"] == "FAIL"]
    assert "drops a line break" in " ".join(failed["seen"])
    assert "begin with <s> twice" in " ".join(failed["seen"])
    assert "1234.5 on the card" in " ".join(failed["seen"])


def test_a_reference_score_that_is_met_passes(tmp_path):
    from ratekit.scoring.check_reward import check_reward
    from ratekit.scoring.model import RewardModel

    reward = RewardModel(tiny.save(tmp_path, "llama"))
    score = float(reward(["Why?"], ["So."])[0])
    table = check_reward(reward, reference=("Why?", "So.", score))
    assert table.set_index("check").loc["the card's reference score", "result"] == "pass"


def test_the_command_exits_with_1_where_a_check_fails(tmp_path, capsys):
    from ratekit.cli import main

    lossy = tiny.TEMPLATE.replace("m['content']", "m['content'] | trim")
    path = tiny.save(tmp_path, "llama", tok=tiny.tokenizer(template=lossy))
    assert main(["check-reward", path, "--format", "json"]) == 1
    said = capsys.readouterr()
    assert {"check", "result", "seen"} == set(json.loads(said.out)[0])
    assert "failed" in said.err.splitlines()[-1]
    assert main(["check-reward", "no-such-model"]) == 2
