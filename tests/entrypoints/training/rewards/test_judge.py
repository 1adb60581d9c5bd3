"""A judge behind HTTP: a server of our own on this machine, which answers, fails, dawdles and says too much."""

import base64
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from PIL import Image
from transformers import BertConfig, BertModel, BertTokenizer

from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.stop import StopFlag, Stopped
from entrypoints.training.rewards import asking
from entrypoints.training.rewards.asking import JudgeError
from entrypoints.training.rewards.bertscore import BertScore
from entrypoints.training.rewards.judge import JudgedAlignment
from entrypoints.training.rewards.rewards import Opened, Rewards
from orchestrator.contract.rewards import RewardUse

CPU = torch.device("cpu")
COLOURS = ["red", "green", "blue", "white", "black"]


@dataclass
class Judge:
    """A server; `answer` is called for each request, in a thread of its own."""

    answer: Callable[["Handler"], None]
    port: int = 0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/judge?model=small"


class Handler(BaseHTTPRequestHandler):
    judge: Judge

    def do_POST(self) -> None:
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.judge.bodies.append({**self.body, "path": self.path, "type": self.headers["Content-Type"]})
        self.judge.answer(self)

    def say(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def say_json(self, value: object) -> None:
        self.say(json.dumps(value).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[Handler], None]], Judge]]:
    monkeypatch.setattr(asking, "FIRST_WAIT", 0.01)
    servers: list[tuple[ThreadingHTTPServer, Judge]] = []

    def start(answer: Callable[[Handler], None]) -> Judge:
        judge = Judge(answer)
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"judge": judge}))
        judge.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        servers.append((server, judge))
        return judge

    yield start
    for server, judge in servers:
        judge.over.set()
        server.shutdown()
        server.server_close()


def judged(
    judge: Judge, *, texts: Path | None = None, check_stop: Callable[[], None] = lambda: None, **settings: Any
) -> Any:
    """Return the scores of five images of one colour each."""
    use = RewardUse(name="prompt-alignment", url=judge.url, **settings)
    reward = JudgedAlignment(use, texts, CPU, check_stop)
    images = [Image.new("RGB", (8, 8), colour) for colour in COLOURS]
    return Rewards([Opened(use, reward)]).of(images, [f"a {colour} dog" for colour in COLOURS], [0] * 5).total


def brightness(handler: Handler) -> None:
    """Answer with the brightness of the image: it has arrived, and the answers belong to their images."""
    with Image.open(BytesIO(base64.b64decode(handler.body["image"], validate=True))) as image:
        assert image.format == "PNG"
        level = sum(image.convert("RGB").getpixel((3, 3)))
    handler.say_json({"score": level / 765, "text": "ignored beside a score"})


def test_each_image_is_asked_about_with_its_prompt_and_scored_in_order(serve: Any) -> None:
    judge = serve(brightness)
    assert judged(judge, question="What is it?") == pytest.approx([255 / 765, 128 / 765, 255 / 765, 1, 0])
    assert sorted(body["prompt"] for body in judge.bodies) == sorted(f"a {colour} dog" for colour in COLOURS)
    assert {body["question"] for body in judge.bodies} == {"What is it?"}
    assert {body["path"] for body in judge.bodies} == {"/judge?model=small"}
    assert {body["type"] for body in judge.bodies} == {"application/json"}


def test_a_server_that_fails_is_asked_again(serve: Any) -> None:
    asked: dict[str, int] = {}

    def answer(handler: Handler) -> None:
        prompt = handler.body["prompt"]
        asked[prompt] = asked.get(prompt, 0) + 1
        match asked[prompt]:
            case 1:
                handler.say(b"busy", 503)
            case 2:
                handler.say(b"slower", 429)
            case 3:
                handler.connection.close()  # no answer at all
            case 4:
                handler.send_response(200)
                handler.send_header("Content-Length", "100")
                handler.end_headers()
                handler.wfile.write(b'{"score":')  # an answer that is cut
            case _:
                handler.say_json({"score": 0.5})

    judge = serve(answer)
    assert judged(judge) == [0.5] * 5
    assert set(asked.values()) == {5}


REFUSED: dict[str, tuple[Callable[[Handler], None], str]] = {
    "no JSON": (lambda handler: handler.say(b"<html>"), "its answer is no JSON"),
    "no object": (lambda handler: handler.say_json([0.5]), "its answer is no object"),
    "nothing said": (lambda handler: handler.say_json({"verdict": "good"}), "neither a number"),
    "empty words": (lambda handler: handler.say_json({"text": "  "}), "neither a number"),
    "score in words": (lambda handler: handler.say_json({"score": "high"}), "neither a number"),
    "truth": (lambda handler: handler.say_json({"score": True}), "neither a number"),
    "not a number": (lambda handler: handler.say(b'{"score": NaN}'), "neither a number"),
    "beyond all floats": (lambda handler: handler.say(b'{"score": 1' + b"0" * 400 + b"}"), "neither a number"),
    "nested": (lambda handler: handler.say(b"[" * 100_000), "its answer is no JSON"),
    "huge": (lambda handler: handler.say(b" " * 1_500_000), "longer than 1000000 bytes"),
    "words without a model": (lambda handler: handler.say_json({"text": "a dog"}), "name its folder: path"),
    "not there": (lambda handler: handler.say(b"", 404), "it answers 404"),
    "elsewhere": (lambda handler: handler.say(b"", 302, Location="http://127.0.0.1:1/x"), "sends on to http://127.0"),
}


@pytest.mark.parametrize(("answer", "told"), REFUSED.values(), ids=REFUSED)
def test_an_answer_that_says_nothing_is_refused_at_once(
    answer: Callable[[Handler], None], told: str, serve: Any
) -> None:
    judge = serve(answer)
    with pytest.raises(TrainingError) as raised:
        judged(judge)
    assert told in raised.value.message
    assert '"prompt-alignment"' in raised.value.message
    prompts = [body["prompt"] for body in judge.bodies]
    assert len(prompts) == len(set(prompts))  # none was asked about twice


def drip(handler: Handler) -> None:
    """Send a byte now and then, for ever, each within any timeout of a socket."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    while not handler.judge.over.wait(0.05):
        try:
            handler.wfile.write(b" ")
        except OSError:
            return


def drip_headers(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.0 200 OK\r\n")
    while not handler.judge.over.wait(0.05):
        try:
            handler.wfile.write(b"X")
        except OSError:
            return


def silent(handler: Handler) -> None:
    handler.judge.over.wait()


@pytest.mark.parametrize("answer", [drip, drip_headers, silent])
def test_a_slow_server_is_left_at_the_deadline(answer: Callable[[Handler], None], serve: Any) -> None:
    judge = serve(answer)
    began = time.monotonic()
    with pytest.raises(TrainingError, match=r"no answer within 0\.3 seconds"):
        judged(judge, deadline_seconds=0.3)
    assert time.monotonic() - began < 30  # and not for ever


def test_nobody_there(serve: Any) -> None:
    judge = serve(brightness)
    judge.port = 1
    with pytest.raises(TrainingError, match=r"no answer within 0\.2 seconds; the last attempt: ConnectionRefusedError"):
        judged(judge, deadline_seconds=0.2)


@contextmanager
def never_accepting() -> Iterator[int]:
    """Return the port of a server whose queue is full: whoever connects waits."""
    with socket.socket() as server, ExitStack() as queue:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            waiting = queue.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield server.getsockname()[1]


def test_an_address_that_does_not_answer_leaves_time_for_the_next(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = serve(brightness)
    with never_accepting() as silent_port:
        ports = (silent_port, judge.port)
        addresses = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port)) for port in ports]
        monkeypatch.setattr(asking.socket, "getaddrinfo", lambda *_, **__: addresses)
        assert asking.Asking(judge.url, 4).ask(json.dumps({"image": _white()}).encode())


def test_a_family_of_addresses_that_this_machine_lacks_is_passed_over(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = serve(brightness)
    families = (9999, socket.AF_INET)
    addresses = [(family, socket.SOCK_STREAM, 0, "", ("127.0.0.1", judge.port)) for family in families]
    monkeypatch.setattr(asking.socket, "getaddrinfo", lambda *_, **__: addresses)
    assert asking.Asking(judge.url, 4).ask(json.dumps({"image": _white()}).encode())


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/ä", "http://127.0.0.1:{port}/?q=ä", "https://a..b/"])
def test_a_url_that_cannot_be_asked_is_refused_at_once(serve: Any, url: str) -> None:
    judge = serve(brightness)
    with pytest.raises(JudgeError, match="url cannot be asked"):
        asking.Asking(url.format(port=judge.port), 60).ask(b"{}")


def _white() -> str:
    png = BytesIO()
    Image.new("RGB", (8, 8), "white").save(png, "PNG")
    return base64.b64encode(png.getvalue()).decode()


def self_signed(folder: Path) -> ssl.SSLContext:
    """Return what serves with a certificate that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    certificate = builder.sign(key, hashes.SHA256())
    private = serialization.PrivateFormat.PKCS8
    text = key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption())
    path = folder / "server.pem"
    path.write_bytes(text + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


def test_a_certificate_that_is_not_valid_is_refused_at_once(tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = self_signed(tmp_path).wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    use = RewardUse(name="prompt-alignment", url=f"https://127.0.0.1:{server.server_address[1]}/")
    try:
        with pytest.raises(JudgeError, match="its certificate is not valid"):
            asking.Asking(str(use.url), 5).ask(b"{}")
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("answer", [drip, drip_headers, silent])
def test_a_slow_server_behind_tls_is_left_at_the_deadline(
    answer: Callable[[Handler], None], serve: Any, tmp_path: Path
) -> None:
    judge = serve(answer)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"judge": judge}))
    server.socket = self_signed(tmp_path).wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    asked = asking.Asking(f"https://127.0.0.1:{server.server_address[1]}/", 1)
    asked.context.check_hostname = False
    asked.context.load_verify_locations(tmp_path / "server.pem")
    try:
        with pytest.raises(JudgeError, match="no answer within 1 seconds"):
            asked.ask(json.dumps({"image": _white()}).encode())
    finally:
        judge.over.set()
        server.shutdown()
        server.server_close()
    assert judge.bodies  # it came as far as that


def test_a_server_that_does_not_shake_hands_is_left_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        asked = asking.Asking(f"https://127.0.0.1:{server.getsockname()[1]}/", 0.3)
        with pytest.raises(JudgeError, match=r"no answer within 0\.3 seconds"):
            asked.ask(b"{}")


def test_where_it_is_not_required_an_image_without_an_answer_counts_as_0(serve: Any) -> None:
    def answer(handler: Handler) -> None:
        if "green" in handler.body["prompt"]:
            handler.say(b"", 404)
        else:
            handler.say_json({"score": 2})

    assert judged(serve(answer), required=False) == [2, 0, 2, 2, 2]


def test_a_job_that_is_asked_to_stop_asks_for_no_more_images(serve: Any) -> None:
    stop = StopFlag()

    def answer(handler: Handler) -> None:
        stop.asked = True
        handler.say_json({"score": 1})

    with pytest.raises(Stopped):
        judged(serve(answer), check_stop=stop.check)


# Words.


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of random weights, which tells words apart by their embeddings."""
    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "the", "image", "contains", "a", "dog", "cat", "red"]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def test_recall_matches_each_token_of_the_reference_to_its_nearest(text_model: Path) -> None:
    score = BertScore(text_model, CPU)
    assert score.layer == 3
    assert score.recall("a red dog", "a red dog") == pytest.approx(1)
    assert score.recall("a red dog", "a red dog.") > score.recall("a red dog", "cat")
    assert score.recall("a dog", "the image contains a dog") > score.recall("the image contains a dog", "a dog")
    assert score.recall("", "a dog") == 0
    model, tokenizer = score.model, score.tokenizer
    states = []
    for text in ("a dog", "red cat the"):
        tokens = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**tokens, output_hidden_states=True).hidden_states[3][0, 1:-1]  # without [CLS] and [SEP]
        states.append(hidden)
    wanted, given = states
    cosines = torch.nn.functional.cosine_similarity(wanted[:, None], given[None], dim=-1)
    assert score.recall("a dog", "red cat the") == pytest.approx(float(cosines.max(dim=1).values.mean()), abs=1e-6)


def test_words_are_compared_with_the_prompt(serve: Any, text_model: Path) -> None:
    def answer(handler: Handler) -> None:
        right = "red" in handler.body["prompt"]
        handler.say_json({"text": "the image contains a red dog." if right else "cat"})

    scores = judged(serve(answer), texts=text_model)
    assert scores[0] == pytest.approx(1, abs=1e-5)
    assert max(scores[1:]) < scores[0] - 0.01


def test_a_text_model_without_its_weights_is_refused(text_model: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((text_model / name).read_bytes())
    with pytest.raises(OSError, match="safetensors"):
        BertScore(tmp_path, CPU)
