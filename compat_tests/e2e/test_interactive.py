"""What a person types into: IPython, kernels of Jupyter, JupyterLab, Textual, prompt_toolkit."""

from __future__ import annotations

import json
import re
import signal

import loops
import pytest
from commands import Command, free_port
from terminal import Terminal

CLASS = re.escape(loops.CLASS)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Let IPython and Jupyter keep their files out of the user's home."""
    found = {"HOME": str(tmp_path), "IPYTHONDIR": str(tmp_path / "ipython"), "JUPYTER_DATA_DIR": str(tmp_path / "data")}
    found |= {"JUPYTER_CONFIG_DIR": str(tmp_path / "config"), "JUPYTER_RUNTIME_DIR": str(tmp_path / "run")}
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


def test_ipython_awaits_on_the_loop(home):
    pytest.importorskip("IPython", reason="IPython is not installed: pip install ipython")
    with Terminal(loops.module("IPython", "--simple-prompt", "--no-banner", "--colors=NoColor"), home) as shell:
        shell.wait_for(r"In \[1\]: ")
        shell.type("import asyncio, loops\n")
        shell.wait_for(r"In \[2\]: ")
        shell.type("await asyncio.sleep(0.01); print('on', loops.class_name() + '.')\n")
        shell.wait_for(rf"on {CLASS}\.")
        shell.wait_for(r"In \[3\]: ")
        shell.type("exit\n")
        assert shell.end() == 0


def test_ipython_s_prompt_runs_beside_the_loop(home):
    """The prompt of a terminal is prompt_toolkit's, in a thread or a loop of its own."""
    pytest.importorskip("IPython", reason="IPython is not installed: pip install ipython")
    with Terminal(loops.module("IPython", "--no-banner", "--colors=NoColor"), home) as shell:
        shell.wait_for(r"In \[1\]:")
        shell.type("import asyncio, loops; await asyncio.sleep(0.01); print('on', loops.class_name() + '.')\r")
        shell.wait_for(rf"on {CLASS}\.")
        shell.wait_for(r"In \[2\]:")
        shell.type("exit\r")
        assert shell.end() == 0


CELLS = """
import asyncio, loops, nest_asyncio2
nest_asyncio2.apply()
async def inner():
    await asyncio.sleep(0.01)
    return loops.class_name()
found = [loops.class_name(), asyncio.run(inner()), await inner()]
print(*found)
"""


@pytest.mark.skipif(loops.NAME == "uvloop", reason="nest_asyncio2 replaces Python methods, of which uvloop's has none")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_kernel_with_nested_runs(home, tmp_path):
    pytest.importorskip("ipykernel", reason="ipykernel is not installed: pip install ipykernel")
    pytest.importorskip("nest_asyncio2", reason="nest-asyncio2 is not installed: pip install nest-asyncio2")
    from jupyter_client import BlockingKernelClient

    connection = tmp_path / "connection.json"
    with Command(loops.module("ipykernel_launcher", "-f", str(connection)), tmp_path, env=home) as kernel:
        kernel.wait_for("To connect another client")
        client = BlockingKernelClient(connection_file=str(connection))
        client.load_connection_file()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=60)
            shown = []
            reply = client.execute_interactive(
                CELLS, timeout=60, output_hook=lambda message: shown.append(message["content"].get("text", ""))
            )
            assert reply["content"]["status"] == "ok", reply["content"]
            assert "".join(shown).split() == [loops.CLASS] * 3
            client.shutdown()
            assert kernel.end() == 0
        finally:
            client.stop_channels()


EXTENSION = """
import json
import loops
from jupyter_server.base.handlers import JupyterHandler

class Loop(JupyterHandler):
    async def get(self):
        self.finish(json.dumps({"loop": loops.class_name()}))

def _jupyter_server_extension_points():
    return [{"module": "loop_extension"}]

def _load_jupyter_server_extension(server):
    server.web_app.add_handlers(".*", [("/loop", Loop)])
"""


@pytest.mark.timeout(180)
def test_jupyterlab_runs_a_kernel(run, home, tmp_path, monkeypatch):
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed: pip install jupyterlab")
    aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is not installed: pip install aiohttp")
    (tmp_path / "loop_extension.py").write_text(EXTENSION)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    spec = tmp_path / "data" / "kernels" / "under-test"
    spec.mkdir(parents=True)
    argv = loops.module("ipykernel_launcher", "-f", "{connection_file}")
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "under test", "language": "python"}))
    port = free_port()
    options = ["--no-browser", "--allow-root", f"--ServerApp.port={port}", "--IdentityProvider.token=secret"]
    options += ["--ServerApp.jpserver_extensions={'loop_extension': True}", "--ServerApp.port_retries=0"]

    async def main():
        headers = {"Authorization": "token secret"}
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=headers) as http:
            async with http.get("/loop") as answer:
                assert await answer.json(content_type=None) == {"loop": loops.CLASS}
            async with http.get("/lab") as answer:
                assert answer.status == 200
            async with http.post("/api/kernels", json={"name": "under-test"}) as answer:
                kernel = (await answer.json())["id"]
            async with http.ws_connect(f"/api/kernels/{kernel}/channels?session_id=one") as ws:
                header = {
                    "msg_id": "m1",
                    "msg_type": "execute_request",
                    "session": "one",
                    "username": "",
                    "version": "5",
                }
                content = {"code": "import loops; print(loops.class_name())", "silent": False, "store_history": False}
                content |= {"user_expressions": {}, "allow_stdin": False, "stop_on_error": True}
                message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
                await ws.send_json({**message, "channel": "shell", "buffers": []})
                async for said in ws:
                    told = said.json()
                    if told["msg_type"] == "stream" and told["parent_header"].get("msg_id") == "m1":
                        break
                assert told["content"]["text"].strip() == loops.CLASS
            async with http.delete(f"/api/kernels/{kernel}") as answer:
                assert answer.status == 204

    with Command(loops.module("jupyterlab", *options), tmp_path, env=home) as server:
        server.wait_for(rf"http://(localhost|127.0.0.1):{port}/lab", limit=90)
        run(main())
        assert server.end(signal.SIGTERM) == 0
        assert "Traceback" not in server.output(), server.output()


def test_textual(home):
    pytest.importorskip("textual", reason="Textual is not installed: pip install textual")
    with Terminal(loops.module("textual_app"), home) as app:
        app.wait_for(rf"COUNTED on {CLASS}\.")
        app.type("q")
        app.wait_for(rf"left {CLASS}\.")
        assert app.end() == 0


def test_prompt_toolkit(home):
    pytest.importorskip("prompt_toolkit", reason="prompt_toolkit is not installed: pip install prompt_toolkit")
    with Terminal(loops.module("prompt_app"), home) as app:
        app.wait_for("say:")
        app.wait_for(rf"(?s)tick on {CLASS}\..*tick on {CLASS}\.")
        app.type("hello\r")
        app.wait_for(rf"said hello on {CLASS}\.")
        assert app.end() == 0
