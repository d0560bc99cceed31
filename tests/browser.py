#!/usr/bin/env python3
"""Reports in a real browser: a run that passes, one that fails, a sweep, and a recording, at two widths, by day and by night.

    tests/browser.py TAIPEI_SIM [--shots DIR] [--self-test]

Looks for errors in the console, for anything fetched from elsewhere, for shapes without size, for text that leaves its box
or stands on other text, and for text that can hardly be read on its ground. `--self-test` gives it pages with each of these
and wants them found. Exit status: 0 all is well, 1 not, 2 no browser (told as a skip).
"""

import argparse
import base64
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
WIDTHS = (1280, 400)
SCHEMES = ("light", "dark")
WRONG_SHOWN = 6

# Runs in the page; gives what is wrong with it.
LOOK = r"""
(() => {
  const wrong = [];
  const say = (what, element) => wrong.push(what + ": " + (element.textContent.trim().slice(0, 60) || element.outerHTML.slice(0, 90)));
  const page = document.documentElement;
  if (page.scrollWidth > innerWidth) wrong.push(`the page is ${page.scrollWidth} px wide`);
  const svgs = [...document.querySelectorAll("svg")];
  let shapes = 0;
  for (const svg of svgs) {
    const box = svg.getBoundingClientRect();
    if (box.width < 20 || box.height < 5) say("a drawing without size", svg);
    for (const shape of svg.querySelectorAll("path, rect")) {
      shapes += 1;
      const box = shape.getBBox();
      const isBar = shape.tagName === "rect" && shape.getAttribute("width") === "0" || shape.getAttribute("height") === "0";
      if (box.width + box.height === 0 && !isBar && !shape.classList.contains("dots")) say("a shape without size", shape);
    }
  }
  const visible = element => element.getClientRects().length > 0;
  const own = element => [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
  const luminance = color => {
    const [r, g, b] = color.match(/[\d.]+/g).map(Number).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const ground = element => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (!/, 0\)$/.test(color) && color !== "transparent") return color;
    }
    return "rgb(255, 255, 255)";
  };
  for (const element of document.body.querySelectorAll("*")) {
    if (!own(element) || !visible(element) || ["STYLE", "TITLE", "SCRIPT", "title"].includes(element.tagName)) continue;
    const style = getComputedStyle(element);
    const scrolls = element.closest(".scroll") !== null;
    if (element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 0 && style.overflowX === "visible") say("text leaves its box", element);
    const box = element.getBoundingClientRect();
    if (!scrolls && (box.left < -1 || box.right > innerWidth + 1)) say("text leaves the page", element);
    const color = element instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [luminance(color), luminance(ground(element))].sort((a, b) => b - a);
    if ((a + .05) / (b + .05) < 4.5) say("text can hardly be read", element);
  }
  for (const axis of document.querySelectorAll(".x, .y")) {
    const labels = [...axis.querySelectorAll("span")].filter(visible).map(label => [label, label.getBoundingClientRect()]);
    for (const [index, [label, a]] of labels.entries())
      for (const [, b] of labels.slice(index + 1))
        if (a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom) say("labels stand on each other", label);
  }
  return {wrong: [...new Set(wrong)], svgs: svgs.length, shapes, ground: getComputedStyle(document.body).backgroundColor, height: page.scrollHeight,
          heading: document.querySelector("h1")?.textContent ?? "", verdict: document.querySelector(".verdict")?.textContent ?? ""};
})()
"""


class Browser:
    """Chromium, spoken to over a pipe."""

    def __init__(self, program, profile):
        to_browser, from_browser = os.pipe(), os.pipe()
        # It reads descriptor 3 and writes descriptor 4.
        arguments = [
            program, "--headless", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-dev-shm-usage",
            "--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}", "--remote-debugging-pipe",
        ]
        if os.geteuid() == 0:
            arguments.append("--no-sandbox")
        read, write = to_browser[0], from_browser[1]
        shell = ["sh", "-c", f'exec "$@" 3<&{read} 4>&{write}', "sh", *arguments]
        self.process = subprocess.Popen(
            shell, pass_fds=(read, write), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(read)
        os.close(write)
        self.to, self.of = os.fdopen(to_browser[1], "wb", 0), os.fdopen(from_browser[0], "rb")
        self.number, self.buffer, self.events, self.session = 0, b"", [], None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        self.to.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self.hear()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def hear(self):
        while b"\0" not in self.buffer:
            more = os.read(self.of.fileno(), 1 << 16)
            if not more:
                raise RuntimeError("the browser is gone")
            self.buffer += more
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def open(self, path, width, scheme):
        """Opens a file and gives what is seen there, and what the console said."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events.clear()
        self.ask("Page.navigate", url=path.resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self.hear())
        seen = self.ask("Runtime.evaluate", expression=LOOK, returnByValue=True)
        if "exceptionDetails" in seen:
            raise RuntimeError(json.dumps(seen["exceptionDetails"])[:500])
        loud = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        said = [json.dumps(event["params"])[:200] for event in self.events if event.get("method") in loud]
        asked = [event["params"]["request"]["url"] for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        fetched = [url for url in asked if not url.startswith("data:")][1:]
        seen = seen["result"]["value"]
        seen["wrong"] += [f"something was fetched: {url}" for url in fetched]
        return seen, said

    def shoot(self, path, width, height):
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self.ask("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def late(scenario, within, folder):
    """The same scenario with less time than it takes."""
    text = (ROOT / "scenarios" / f"{scenario}.toml").read_text()
    text, count = re.subn(r'^within = ".*"$', f'within = "{within}"', text, flags=re.MULTILINE)
    assert count == 1, f"{scenario} has no deadline to shorten"
    path = folder / f"{scenario}.toml"
    path.write_text(text)
    return path


def make_pages(sim, folder):
    """Gives name, file, and the word that its verdict must have."""
    failing = late("partition-heal-swizzle", "80 s", folder)
    run = ["run", "--world", "events", "--seed", "1"]
    commands = [
        ("passing", [*run, ROOT / "scenarios" / "crash-resume-leecher.toml"], 0, "Passed"),
        ("dht", [*run, ROOT / "scenarios" / "dht-finds-the-swarm.toml"], 0, "Passed"),
        ("poison", [*run, ROOT / "scenarios" / "poison-puppets.toml"], 0, "Passed"),
        ("failing", [*run, failing], 1, "Failed"),
        ("sweep", ["sweep", "--profile", "fuzz-small", "--seeds", "120"], 0, "passed"),
        ("recording", ["replay", make_recording(sim, folder)], 0, "Repeated"),
        ("failing-sweep", ["sweep", failing, "--world", "events", "--seeds", "30"], 1, "failed"),
    ]
    for name, arguments, status, word in commands:
        page = folder / f"{name}.html"
        done = subprocess.run([sim, *arguments, "--report", page], capture_output=True, text=True, timeout=300)
        if done.returncode != status or not page.exists():
            sys.exit(f"{name}: status {done.returncode}\n{done.stdout[-600:]}\n{done.stderr[-600:]}")
        text = page.read_text()
        again = folder / "again.html"
        if name == "passing":
            subprocess.run([sim, *arguments, "--report", again], capture_output=True, timeout=300, check=True)
            assert again.read_text() == text, "the same run has two pages"
        assert "http:" not in text and "https:" not in text and "127.0.0.1" not in text, f"{name} names something elsewhere"
        yield name, page, word


def make_recording(sim, folder):
    """Records a download on this machine alone, of two seeders, one of which is killed. Gives the file."""
    cli = sim.with_name("taipei-cli")
    content, torrent, recording = folder / "content.bin", folder / "content.torrent", folder / "down.rec"
    content.write_bytes(os.urandom(16 << 20))
    env = {**os.environ, "HOME": str(folder), "TAIPEI_NO_DHT": "1", "TAIPEI_NO_LSD": "1", "TAIPEI_NO_UPNP": "1"}
    trackers = ["-t", "http://127.0.0.1:9/announce"]
    subprocess.run([cli, "create", content, "-o", torrent, "-s", "64K", *trackers], env=env, stdout=subprocess.DEVNULL, check=True)
    processes, peers = [], []
    try:
        for name in ("one", "two"):
            (folder / name).mkdir()
            os.link(content, folder / name / content.name)
            command = [cli, "seed", torrent, "--data", folder / name, "--bind", "127.0.0.1", "--port", "0", "--max-upload", "1M", "--json"]
            processes.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True))
            said = map(json.loads, processes[-1].stdout)
            peers += ["--peer", f"127.0.0.1:{next(event['port'] for event in said if event['event'] == 'listening')}"]
            next(event for event in said if event.get("state") == "Seeding")
        command = [cli, "download", torrent, "-o", folder / "out", "--bind", "127.0.0.1", "--port", "0", "--record", recording, *peers]
        processes.append(subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        time.sleep(3)
        processes[0].kill()
        assert processes[-1].wait(120) == 0, "the download that is recorded failed"
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return recording


def check(browser, sim, shots, folder):
    failures = []
    for name, page, word in make_pages(sim, folder):
        grounds = {}
        for width in WIDTHS:
            for scheme in SCHEMES:
                seen, said = browser.open(page, width, scheme)
                grounds[scheme] = seen["ground"]
                what = f"{name}, {width} px, {scheme}"
                wrong = seen["wrong"] + [f"console: {line}" for line in said]
                # A recording is of one host with two peers.
                if seen["shapes"] < (12 if name == "recording" else 30) or not seen["heading"]:
                    wrong.append(f"hardly anything is drawn: {seen['svgs']} drawings, {seen['shapes']} shapes")
                if word not in seen["verdict"]:
                    wrong.append(f"the verdict is {seen['verdict']!r}")
                print(f"{what}: {seen['svgs']} drawings, {seen['shapes']} shapes, {seen['height']} px high, {len(wrong)} wrong")
                failures += [f"{what}: {line}" for line in wrong[:WRONG_SHOWN]]
                if shots:
                    browser.shoot(shots / f"{name}-{width}-{scheme}.png", width, seen["height"])
        if grounds["light"] == grounds["dark"]:
            failures.append(f"{name}: day and night look the same")
    return failures


BAD_PAGES = {
    "console": "<h1>x</h1><script>throw new Error('planted')</script>",
    "a drawing without size": '<svg style="width:200px;height:0"><path d="M0 0h9v9"/></svg>',
    "a shape without size": '<svg style="width:200px;height:50px"><path d="M5 5"/></svg>',
    "text leaves its box": '<div style="width:40px;white-space:nowrap">more than forty pixels of it</div>',
    "text leaves the page": '<p style="position:absolute;left:-50px">out there</p>',
    "the page is": '<div style="width:3000px;height:1px"></div>',
    "text can hardly be read": '<p style="color:#ccc;background:#fff">pale</p>',
    "labels stand on each other": '<div class="x"><span style="position:absolute">one</span><span style="position:absolute">two</span></div>',
    "something was fetched": '<img src="missing.png">',
}


def self_test(browser, folder):
    failures = []
    for want, body in BAD_PAGES.items():
        page = folder / "bad.html"
        page.write_text(f"<!doctype html><meta charset=utf-8><link rel=icon href='data:,'><title>x</title>{body}")
        seen, said = browser.open(page, 1280, "light")
        found = seen["wrong"] + [f"console: {line}" for line in said]
        if not any(line.startswith(want) for line in found):
            failures.append(f"`{want}` was not noticed: {found}")
    print(f"{len(BAD_PAGES)} bad pages, {len(BAD_PAGES) - len(failures)} noticed")
    return failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sim", type=pathlib.Path)
    parser.add_argument("--shots", type=pathlib.Path, help="write pictures of all pages there")
    parser.add_argument("--self-test", action="store_true", help="only: pages with faults are noticed")
    args = parser.parse_args()
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        print("!! SKIPPED browser: chromium is not installed")
        if skips := os.environ.get("TAIPEI_SKIPS"):
            with open(skips, "a", encoding="utf-8") as file:
                file.write("browser: chromium is not installed\n")
        return 2
    if args.shots:
        args.shots.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        folder = pathlib.Path(folder)
        browser = Browser(program, folder / "profile")
        try:
            failures = self_test(browser, folder)
            if not args.self_test:
                failures += check(browser, args.sim.resolve(), args.shots, folder)
        finally:
            browser.close()
    for line in failures:
        print(f"!! {line}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
