"""The OpenAPI document against the running service: requests made from it, answers held against it."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from server import start_server

pytest.importorskip("schemathesis")

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)


@pytest.fixture
def server(one_layer_dir):
    with start_server(one_layer_dir, queue=64) as server:
        yield server


@pytest.mark.long
def test_every_answer_to_requests_made_from_the_document_is_documented(server, tmp_path):
    command = [Path(sys.executable).with_name("schemathesis"), "run", f"{server.url}/openapi.json"]
    options = ["--checks", ",".join(CHECKS), "--max-examples", "8", "--seed", "1", "--no-color", "--workers", "1"]
    options += ["--request-timeout", "120"]  # seconds; a busy machine takes more than the default of 10
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=900
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_every_operation_has_a_summary_and_its_problems_have_examples(server):
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    for path, operations in paths.items():
        for method, operation in operations.items():
            assert operation["summary"], path
            for status, response in operation["responses"].items():
                assert response["description"], (path, status)
                problem = response.get("content", {}).get("application/problem+json")
                if method == "post" and int(status) >= 400:
                    assert problem["examples"], (path, status)
