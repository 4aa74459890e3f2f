# ruff: noqa: RUF001 - the page writes that sign
"""The page in a browser: clicked through, also while the loop is stuck, in light and dark, narrow and wide."""

import json
import shutil

import pytest

from tests.debug.programs import Program
from tests.helpers.waiting import SECONDS

selenium = pytest.importorskip("selenium", reason="the page is clicked through by selenium")
pytest.importorskip("aiohttp", reason="the page needs aiohttp (goloop[web])")
from selenium import webdriver  # noqa: E402
from selenium.common.exceptions import StaleElementReferenceException, TimeoutException  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="no Chromium with its driver is installed (Debian: chromium-driver)"
)

VIEWS = {
    "overview": "Overview",
    "tasks": "Tasks and goroutines",
    "waits": "Who waits for whom",
    "time": "Time",
    "connections": "Connections",
    "dump": "Dump",
    "trace": "Trace",
}

# It has a page, 12 like tasks, 5 like goroutines, a circle of two locks and 3 connections. After a line of input its
# loop is stuck until the next one; after a third one it ends.
SERVICE = """
    import asyncio, sys, goloop
    from goloop import debug

    async def wait_for_work(queue):
        await queue.get()

    async def transfer(first, second):
        async with first:
            await asyncio.sleep(0)
            async with second:
                pass

    async def serve_client(reader, writer):
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    async def main():
        door = debug.serve(http="127.0.0.1:0")
        server = await asyncio.start_server(serve_client, "127.0.0.1", 0)
        queue, one, other, empty = asyncio.Queue(), asyncio.Lock(), asyncio.Lock(), goloop.Chan()
        things = [asyncio.create_task(wait_for_work(queue)) for _ in range(12)]
        things += [asyncio.create_task(transfer(one, other), name="pay in")]
        things += [asyncio.create_task(transfer(other, one), name="pay out")]
        things += [goloop.go(empty.recv) for _ in range(5)]
        things += [await asyncio.open_connection(*server.sockets[0].getsockname()) for _ in range(3)]
        for reader, writer in things[-3:]:
            writer.write(b"hello\\n")
            await reader.readline()
        print(door.url, flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        print("stuck", flush=True)
        sys.stdin.readline()
        print("free", flush=True)
        await asyncio.to_thread(sys.stdin.readline)

    goloop.run(main())
"""


class Browser:
    """Headless Chromium, and what these tests do with it."""

    def __init__(self, *options):
        wanted = webdriver.ChromeOptions()
        wanted.binary_location = CHROMIUM
        wanted.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        for option in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", *options):
            wanted.add_argument(option)
        self.driver = webdriver.Chrome(options=wanted, service=Service(DRIVER))

    def close(self):
        self.driver.quit()

    def until(self, condition):
        """Wait until the condition holds for the page, and return what it returned."""
        wait = WebDriverWait(self.driver, SECONDS, 0.05, ignored_exceptions=[StaleElementReferenceException])
        return wait.until(lambda driver: condition())

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def the(self, selector):
        found = self.until(lambda: self.all(selector))
        assert len(found) == 1, f"{len(found)} of {selector}"
        return found[0]

    def text(self, selector):
        return self.the(selector).text

    def shows(self, selector, *words):
        try:
            self.until(lambda: all(word in self.text(selector) for word in words))
        except TimeoutException:
            raise AssertionError(f"{selector} shows {self.text(selector)!r}, and not {words}") from None

    def turn_to(self, view):
        self.driver.find_element(By.LINK_TEXT, VIEWS[view]).click()
        self.until(lambda: self.the(f"#view-{view}").is_displayed())
        assert [s for s in VIEWS if self.the(f"#view-{s}").is_displayed()] == [view]
        assert self.text("nav a[aria-current]") == VIEWS[view]

    def looks(self, width, height, scheme):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def complaints(self):
        """What the browser complained of since the last call: errors in the script, what its policy forbade."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture(scope="module")
def browser():
    opened = Browser("--host-resolver-rules=MAP evil.example 127.0.0.1")
    yield opened
    opened.close()


@pytest.fixture
def service(door_folder, browser):
    with Program(SERVICE) as program:
        try:
            program.url = program.says()
            browser.looks(1300, 900, "light")
            browser.driver.get(program.url)
            yield program
        finally:
            program.kill()
    browser.driver.get("about:blank")
    browser.complaints()


def test_the_overview_shows_the_program_and_draws_its_graphs(browser, service):
    browser.shows("#program", str(service.pid))
    browser.shows("#tiles", "18\ntasks", "5\ngoroutines", "6\nconnections")
    browser.shows("#alarms", "Deadlock: ", "pay in", "pay out")
    assert [each.text for each in browser.all(".graph h2")] == [
        *("Lag", "Throughput", "Bytes", "Goroutines and tasks", "Connections", "Processor")
    ]
    # The newest values stand in the legends once the pointer is over a graph.
    drawn = (
        "return [...document.querySelectorAll('.graph canvas')].map((c) => c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data.some((x) => x))"
    )
    browser.until(lambda: browser.driver.execute_script(drawn) == [True] * 6)
    browser.shows("#loops", "MainThread", "goloop-worker-1")
    browser.shows("#slowest", "wait_for_work", "12")
    assert browser.complaints() == []


def test_tasks_and_goroutines_fold_unfold_and_filter(browser, service):
    browser.turn_to("tasks")
    table = "#tasks-table .tabulator-group"
    browser.until(lambda: any("12 × task wait_for_work [queue get (empty)" in g.text for g in browser.all(table)))
    assert "23 shown" in browser.text("#tasks-count")
    rows = "#tasks-table .tabulator-row:not(.tabulator-group)"
    folded = [row.text for row in browser.all(rows)]
    assert not any("wait_for_work" in text for text in folded)
    next(g for g in browser.all(table) if "12 ×" in g.text).click()
    browser.until(lambda: sum("wait_for_work" in row.text for row in browser.all(rows)) == 12)
    browser.the("#filter").send_keys("TRANSFER lock")
    browser.shows("#tasks-count", "2 shown")
    browser.the("#fold").click()
    browser.until(lambda: len(browser.all(rows)) == 2 and not browser.all(table))
    browser.all(f"{rows} .tabulator-cell")[0].click()
    browser.shows("#stack", "pay ", "lock: lock ", "held by task pay ", "<string>:11")
    browser.the("#filter").clear()
    browser.the("#filter").send_keys("no such thing")
    browser.shows("#tasks-count", "0 shown")
    assert browser.complaints() == []


def test_a_circle_of_waits_is_drawn_and_named(browser, service):
    browser.turn_to("waits")
    browser.until(lambda: browser.all("#graph canvas"))
    browser.shows("#node", "Deadlock: ", "pay in", "pay out")
    browser.shows("#waits-count", " shown")
    assert browser.complaints() == []


def test_time_connections_and_dump(browser, service):
    browser.turn_to("time")
    browser.until(lambda: browser.all("#time-table .tabulator-col"))
    browser.the("#recent").click()
    browser.turn_to("connections")
    browser.until(lambda: len(browser.all("#connections-table .tabulator-row")) == 6)
    browser.the("#connections-filter").send_keys("StreamReaderProtocol")
    browser.shows("#connections-count", "6 shown")
    browser.the("#connections-filter").send_keys("?")
    browser.shows("#connections-count", "0 shown")
    browser.shows("#servers-table", "127.0.0.1:")
    browser.turn_to("dump")
    browser.shows("#dump-text", "wait_for_work", "pay in")
    assert browser.complaints() == []


def test_a_trace_is_recorded_and_can_be_saved(browser, service, tmp_path):
    browser.turn_to("trace")
    browser.the("#trace-seconds").clear()
    browser.the("#trace-seconds").send_keys("1")
    browser.the("#trace-start").click()
    browser.until(lambda: browser.the("#trace-file").is_displayed())
    assert browser.text("#trace-file").startswith("Save trace.json (")
    browser.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    browser.the("#trace-file").click()
    browser.until((tmp_path / "trace.json").exists)
    assert "traceEvents" in json.loads((tmp_path / "trace.json").read_text())
    assert browser.complaints() == []


def test_all_of_it_works_while_the_loop_is_stuck(browser, service):
    service.hears("be stuck")
    assert service.says() == "stuck"
    browser.driver.refresh()
    browser.shows("#alarms", "The loop of MainThread has been in step of Task-1 for ")
    browser.shows("#tiles", "18\ntasks")
    browser.turn_to("tasks")
    browser.until(lambda: any("12 ×" in g.text for g in browser.all("#tasks-table .tabulator-group")))
    browser.turn_to("waits")
    browser.until(lambda: browser.all("#graph canvas"))
    browser.turn_to("connections")
    browser.until(lambda: len(browser.all("#connections-table .tabulator-row")) == 6)
    browser.turn_to("dump")
    browser.shows("#dump-text", "main")
    browser.turn_to("trace")
    browser.the("#trace-seconds").clear()
    browser.the("#trace-seconds").send_keys("1")
    browser.the("#trace-start").click()
    browser.until(lambda: browser.the("#trace-file").is_displayed())
    service.hears("be free")
    assert service.says() == "free"  # it was stuck all the time
    browser.turn_to("overview")
    browser.until(lambda: browser.text("#alarms").count("has been in") == 0)
    assert browser.complaints() == []


def test_a_program_that_has_ended_is_said_to_have(browser, service):
    browser.shows("#program", str(service.pid))
    service.kill()
    service.wait()
    browser.shows("#trouble", "The program does not answer: it has ended, is stopped, ")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1600])
def test_nothing_sticks_out_in_light_and_dark_narrow_and_wide(browser, service, scheme, width):
    browser.looks(width, 800, scheme)
    for view in VIEWS:
        browser.turn_to(view)
        assert browser.driver.execute_script("return document.scrollingElement.scrollWidth") <= width, view
    # What is written can be read: text and ground are far apart.
    lightness = (
        "const c = getComputedStyle(document.body)[arguments[0]].match(/\\d+/g).map(Number);"
        "return (c[0] + c[1] + c[2]) / 765"
    )
    ground, text = (browser.driver.execute_script(lightness, name) for name in ("backgroundColor", "color"))
    assert abs(ground - text) > 0.7 and (ground < 0.5) == (scheme == "dark")


def test_a_name_that_was_made_to_lead_here_gets_nothing(browser, service):
    browser.driver.get(service.url.replace("127.0.0.1", "evil.example"))
    assert browser.text("body") == "This page is asked for by the IP address of the machine, or as localhost."
