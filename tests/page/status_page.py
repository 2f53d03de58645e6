"""The status page in a real headless Chromium: token, figures, keyboard, and names that are markup.

Usage: python status_page.py SERVICE_BINARY [FOLDER]. Starts the service on a free port with models and
accounts whose names try to run scripts, sends it traffic as a filter does, and looks at the page.
With FOLDER it leaves screenshots there. Exits 0 only if everything holds; prints one line per check.
"""

import base64
import hashlib
import hmac
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

DEADLINE_S = 20
TOKEN = "page-test-token"
TEXT_TYPE = "application/vnd.prompt-cache.classify-text"
MARKUP = [
    "<script>window.ran='script'</script>",
    "\"><img src=x onerror=\"window.ran='attribute'\">",
    "<svg onload=\"window.ran='svg'\">",
    "'-(window.ran='quote')-'",
    "javascript:window.ran='url'",
]
UNKNOWN = "<b>nobody-configured-this-model</b>"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage",
]


def fingerprint(name):
    return hmac.new(b"page test", name.encode(), hashlib.sha256).hexdigest()


def configure(folder):
    """A configuration as JSON, which is YAML. Names that are markup, and two that are not."""
    models = [
        {"model": name, "encoding": "o200k_base", "min_prefix_tokens": 16, "tiers": ["5m", "1h"],
         "prices": {"input": 2.5, "read": 0.25, "write_5m": 3.125, "write_1h": 5.0}}
        for name in ["chat-large", "chat-small", *MARKUP]
    ]
    accounts = {"accounts": [
        {"account": name, "keys": [fingerprint(name)]}
        for name in ["search", "support-desk", "research", *MARKUP]
    ]}
    (folder / "accounts.yaml").write_text(json.dumps(accounts))
    config = {"listen": "127.0.0.1:0", "auth_token": TOKEN, "models": models, "currency": "USD",
              "accounts_file": "accounts.yaml", "store": {"embedded": {"data_dir": str(folder / "data")}}}
    (folder / "index.yaml").write_text(json.dumps(config))
    return folder / "index.yaml"


class Filter:
    """Speaks the wire as the filter does."""

    def __init__(self, base):
        self.base = base

    def call(self, path, body=None, kind="application/json"):
        headers = {"authorization": f"Bearer {TOKEN}", "content-type": kind}
        request = urllib.request.Request(self.base + path, data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
            return json.loads(answer.read())

    def exchange(self, account, model, topic, words, tier):
        """One request whose prefix has about so many words; what it earned is committed."""
        who = fingerprint(account)
        head = {"v": 1, "principal": who, "model": model, "breakpoints": [{"block": 0, "tier": tier}],
                "candidates": [{"block": 0, "hash": hashlib.sha256(f"{topic}{words}".encode()).hexdigest()}]}
        text = {"model": model, "messages": [{"role": "user", "content": f"{topic} " * words}]}
        body = f"{json.dumps(head)}\n{json.dumps(text)}".encode()
        answer = self.call("/v1/classify", body, TEXT_TYPE)
        if answer.get("writes"):
            ours = answer.get("counted_prompt_tokens")
            self.call("/v1/commit", json.dumps({"v": 1, "commits": [{
                "principal": who, "model": model, "tokenizer_version": answer["tokenizer_version"], "age_ms": 0,
                "prompt_tokens": ours and ours + 7, "counted_prompt_tokens": ours, "writes": answer["writes"],
            }]}).encode())
        return answer

    def traffic(self, rounds):
        for turn in range(rounds):
            for n, account in enumerate(["search", "support-desk", "research"]):
                for _ in range(5 - n):
                    self.exchange(account, ["chat-large", "chat-small"][n % 2], f"topic {n}", 300 + 40 * n,
                                  ["5m", "1h"][n % 2])
                self.exchange(account, "chat-large", f"turn {turn} of {account}", 120, "5m")
            self.exchange("search", "chat-small", "short", 3, "5m")
            time.sleep(0 if rounds < 10 else 1)
        for name in MARKUP:
            for _ in range(2):
                self.exchange(name, name, "markup", 100, "1h")
        self.exchange("search", UNKNOWN, "lost", 50, "5m")
        self.exchange("lone-wolf", "chat-large", "alone", 200, "5m")


class Page:
    def __init__(self, driver, base):
        self.driver = driver
        self.base = base

    def until(self, what):
        return WebDriverWait(self.driver, DEADLINE_S).until(lambda _: what())

    def script(self, text, *values):
        return self.driver.execute_script(text, *values)

    def state(self):
        return self.script("return document.documentElement.dataset.state")

    def give(self, token):
        field = self.driver.find_element(By.ID, "token")
        field.send_keys(token, Keys.ENTER)

    def text(self, selector):
        return self.script("return document.querySelector(arguments[0]).innerText", selector)


def check(page):
    driver = page.driver
    driver.get(f"{page.base}/status")
    page.until(lambda: page.state() == "asking")
    html = driver.page_source
    assert "chat-large" not in html and "support-desk" not in html, html
    page.give("wrong")
    page.until(lambda: "not accepted" in page.text("#problem"))
    assert page.script("return document.activeElement.id") == "token"
    page.give(TOKEN)
    page.until(lambda: page.state() == "shown")
    print("token: asked for, a wrong one refused, the right one shows the figures")

    names = page.script("return [...document.querySelectorAll('#models tbody th.name, #accounts th, #accounts td.name')].map(c => c.textContent)")
    for name in MARKUP:
        assert names.count(name) == 3, (name, names)
    ran = page.script("return window.ran ?? null")
    assert ran is None, f"a name ran: {ran}"
    made = page.script("return [...document.querySelectorAll('main script, main img, main a, main [onload], main [onerror]')].map(e => e.outerHTML)")
    assert made == [], made
    whole = page.script("return document.documentElement.textContent")
    assert UNKNOWN not in whole and "lone-wolf" not in whole
    for name in ["search", "lone-wolf"]:
        assert fingerprint(name)[:8] not in whole
    assert "unknown_model" in page.text("#reasons") and "below_floor" in page.text("#reasons")
    print(f"markup: {len(MARKUP)} names of models and accounts are shown as text, none ran")

    blocked = page.script("""
        const script = document.createElement('script');
        const tried = [];
        try { script.textContent = "window.ran = 'inline'"; document.body.append(script); } catch (error) { tried.push(error.name); }
        try { document.querySelector('#models').innerHTML = '<i>x</i>'; } catch (error) { tried.push(error.name); }
        return [tried, window.ran ?? null];""")
    assert blocked == [["TypeError", "TypeError"], None], blocked
    origins = page.script("return performance.getEntriesByType('resource').map(e => new URL(e.name).origin)")
    assert origins and set(origins) == {page.base}, origins
    print("policy: scripts in markup are refused, nothing is fetched from elsewhere")

    report = page.script("return fetch('v1/status', {headers: {authorization: arguments[0]}}).then(a => a.json())", f"Bearer {TOKEN}")
    models = {model["model"]: model for model in report["models"]}
    large = models["chat-large"]
    assert large["read"] > large["created"] > 0 and large["counts"]["state"] == "trusted", large
    saved = sum(t["read"] * 2.25 - t["created"] * {"5m": 0.625, "1h": 2.5}[t["tier"]] for t in large["tiers"]) / 1e6
    assert abs(large["saved"] - saved) < 1e-9, (large, saved)
    row = page.script("return [...document.querySelectorAll('#models tbody tr')].find(r => r.cells[0].textContent === 'chat-large').innerText")
    assert f"{large['read']:,}" in row and f"{large['created']:,}" in row, (row, large)
    assert report["reasons"][0]["total"] > 0 and report["store"]["answers"] is True
    print(f"figures: {large['read']:,} tokens read of {large['model']}, {large['saved']:.4f} USD saved")

    chart = driver.find_element(By.CSS_SELECTOR, "#tokens svg")
    before = page.text("#tokens .readout")
    page.script("arguments[0].focus()", chart)
    chart.send_keys(Keys.ARROW_LEFT)
    page.until(lambda: page.text("#tokens .readout") not in (before, ""))
    assert "read" in page.text("#tokens .readout")
    page.script("document.querySelector('input[value=hour]').focus()")
    driver.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    page.until(lambda: "last day" in page.text("#tiles"))
    print("keyboard: the cursor of a chart and the window move by arrow keys")

    errors = [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    unexpected = [e for e in errors if "401" not in e["message"] and "Content Security Policy" not in e["message"] and "TrustedHTML" not in e["message"] and "TrustedScript" not in e["message"]]
    assert unexpected == [], unexpected
    driver.find_element(By.ID, "forget").click()
    page.until(lambda: page.state() == "asking")
    assert page.script("return sessionStorage.length") == 0
    print("forget: the token is gone from the tab")


def screenshots(page, folder):
    folder.mkdir(parents=True, exist_ok=True)
    page.driver.refresh()
    page.until(lambda: page.state() == "asking")
    page.give(TOKEN)
    page.until(lambda: page.state() == "shown")
    for scheme in ["light", "dark"]:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        for name, width in [("wide", 1280), ("narrow", 390)]:
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
            page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            page.script("dispatchEvent(new Event('resize'))")
            shot = page.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "format": "png", "clip": {
                "x": 0, "y": 0, "width": width, "height": page.script("return document.documentElement.scrollHeight"), "scale": 1}})
            (folder / f"{scheme}-{name}.png").write_bytes(base64.b64decode(shot["data"]))


def browser(profile):
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in [*FLAGS, f"--user-data-dir={profile}", "--window-size=1280,1000"]:
        options.add_argument(flag)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        command = [sys.argv[1], "serve", "--config", str(configure(folder))]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as service:
            try:
                lines = (json.loads(line) for line in service.stderr)
                base = next(f"http://{line['addr']}" for line in lines if line["message"] == "listening")
                next(line for line in lines if line["message"] == "ready")
                drain = threading.Thread(target=service.stderr.read)
                drain.start()
                wire = Filter(base)
                wire.call("/v1/policy")
                wire.traffic(int(os.environ.get("PAGE_ROUNDS", "8")))
                driver = browser(folder / "profile")
                try:
                    page = Page(driver, base)
                    check(page)
                    if len(sys.argv) > 2:
                        screenshots(page, pathlib.Path(sys.argv[2]))
                finally:
                    driver.quit()
            finally:
                service.terminate()
                service.wait(DEADLINE_S)


if __name__ == "__main__":
    main()
