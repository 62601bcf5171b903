"""The page in headless Chromium, by what a visitor can see and do."""

import base64
import io
import re
import shutil

import numpy as np
import pytest
from PIL import Image

try:
    from selenium import webdriver
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait
except ImportError:
    webdriver = ActionChains = Keys = None

PATIENCE_S = 30
# What Chromium itself complains about where the service refuses something, as tests ask it to.
REFUSED = re.compile(r"/v1/\S* - Failed to load resource: the server responded with a status of (4|503)")
# Counts the object URLs that are alive, and what the content security policy refused.
WATCH = """
window.urls = new Set(); window.refused = [];
const create = URL.createObjectURL, revoke = URL.revokeObjectURL;
URL.createObjectURL = (blob) => { const url = create(blob); window.urls.add(url); return url; };
URL.revokeObjectURL = (url) => { window.urls.delete(url); revoke(url); };
document.addEventListener("securitypolicyviolation", (event) => window.refused.push(event.blockedURI));
"""
# RGBA of the picture in a layer of the frame.
PIXELS = """
const image = document.querySelector(`${arguments[0]} img`);
const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
const context = canvas.getContext("2d");
context.drawImage(image, 0, 0);
return [image.naturalHeight, image.naturalWidth, [...context.getImageData(0, 0, canvas.width, canvas.height).data]];
"""
# Drops or pastes files.
TRANSFER = """
const transfer = new DataTransfer();
for (const [name, data] of arguments[1]) {
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  transfer.items.add(new File([bytes], name, { type: "image/jpeg" }));
}
const options = { bubbles: true, cancelable: true };
document.body.dispatchEvent(arguments[0] === "paste"
  ? new ClipboardEvent("paste", { ...options, clipboardData: transfer })
  : new DragEvent(arguments[0], { ...options, dataTransfer: transfer }));
"""
# What has the focus, and whether that is seen: on it, or on what stands for it.
FOCUS = """
const at = document.activeElement;
const marks = [at, at.parentElement, at.parentElement.querySelector(".handle svg")].filter(Boolean);
const outlined = ({ outlineStyle, outlineWidth }) => outlineStyle === "solid" && parseFloat(outlineWidth) >= 2;
return [at.id || at.className || at.tagName, marks.some((mark) => outlined(getComputedStyle(mark)))];
"""
BEYOND = """
return [...document.querySelectorAll("button, input, select")]
  .filter((control) => control.offsetParent && control.getBoundingClientRect().right > arguments[0])
  .map((control) => control.outerHTML);
"""


def open_browser():
    """Return a headless Chromium; skips the test where that is not installed."""
    if webdriver is None:
        pytest.skip("no selenium; run pip install selenium")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no Chromium; run apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument("--window-size=1200,900")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
    return browser


class Page:
    """The page in a browser, by what a visitor can see and do."""

    def __init__(self, browser, url, downloads):
        self.browser, self.url, self.downloads = browser, url, downloads
        browser.get(url)
        self.wait_for(lambda: self.js("return document.readyState") == "complete")

    def js(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def find(self, selector):
        return self.browser.find_element("css selector", selector)

    def all(self, selector):
        return self.browser.find_elements("css selector", selector)

    def wait_for(self, condition):
        passing = [StaleElementReferenceException]  # the page replaces elements
        return WebDriverWait(self.browser, PATIENCE_S, 0.02, passing).until(lambda _: condition())

    def choose(self, *paths, within="#files"):
        self.find(within).send_keys("\n".join(map(str, paths)))

    def bring(self, event, files):
        """Drop or paste files, given as {name: path}."""
        self.js(TRANSFER, event, [[name, base64.b64encode(path.read_bytes()).decode()] for name, path in files.items()])

    def states(self):
        return self.js("return [...document.querySelectorAll('#photos li')].map((item) => item.dataset.state)")

    def finish(self, count):
        """Wait until all of `count` photos are done or have failed, and the selected one is shown."""
        self.wait_for(lambda: len(self.states()) == count and set(self.states()) <= {"done", "failed"})
        self.wait_for(lambda: self.js("return !document.querySelector('#frame').matches('.revealing, .working')"))
        return self.states()

    def show_cut_out(self, *paths):
        """Choose photos and wait for the first to be compared."""
        self.choose(*paths)
        self.finish(len(paths))
        self.wait_for(lambda: self.all("#frame.compared .after img"))
        self.wait_for(lambda: not self.all("#frame.revealing"))

    def pixels(self, layer):
        height, width, data = self.js(PIXELS, layer)
        return np.array(data, np.uint8).reshape(height, width, 4)

    def seen(self):
        """Return what the frame shows, RGB, as large as it is on the screen."""
        png = self.find("#frame").screenshot_as_png
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))

    def click(self, selector):
        self.js("document.querySelector(arguments[0]).click()", selector)

    def set(self, selector, value, event):
        """Set a control that opens a window of its own when it is clicked."""
        script = "const [at, value, type] = arguments; const control = document.querySelector(at);"
        script += "control.value = value; control.dispatchEvent(new Event(type, { bubbles: true }))"
        self.js(script, selector, value, event)

    def focus(self):
        """Return the name of what has the focus, and whether the focus is visible."""
        return self.js(FOCUS)

    def controls_beyond(self, width):
        """Return the visible controls that reach over a width in pixels."""
        return self.js(BEYOND, width)

    def download(self, selector, name):
        """Press a button and return the bytes of the file that is saved."""
        path = self.downloads / name
        path.unlink(missing_ok=True)
        self.click(selector)
        self.wait_for(lambda: path.exists() and path.stat().st_size > 0)
        return path.read_bytes()

    def emulate(self, what, **options):
        """Pretend another screen or other wishes of the visitor."""
        self.browser.execute_cdp_cmd(f"Emulation.{what}", options)

    def requests(self):
        """Return the addresses of all that was loaded."""
        return self.js("return performance.getEntriesByType('resource').map(({ name }) => name)")
