"""Two Syncthings that know each other and nobody else, and share one folder."""

import json
import urllib.request
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from harness import wait_until
from servers import LOOPBACK, Programs, free_port, need

_FOLDER = "pictures"
_API_KEY = "a key of the test's"
_QUIET = {  # nothing that asks or tells others on the net
    "globalAnnounceEnabled": "false",
    "localAnnounceEnabled": "false",
    "relaysEnabled": "false",
    "natEnabled": "false",
    "startBrowser": "false",
    "urAccepted": "-1",
    "crashReportingEnabled": "false",
    "autoUpgradeIntervalH": "0",
    "stunServer": "",
    "reconnectionIntervalS": "1",
    "limitBandwidthInLan": "true",  # loopback counts as LAN
    "setLowPriority": "false",
}


class Syncthing:
    """One of them, with its home and its side of the folder. Prepared here; `start` runs it."""

    def __init__(self, programs: Programs, name: str, folder: Path, **options: str) -> None:
        self.folder = folder
        self._programs, self._name, self._options = programs, name, options
        self._words = [need("syncthing", "syncthing")]
        self._home = programs.folder / name
        self.port, self._gui = free_port(), free_port()
        programs.run(*self._words, "generate", f"--home={self._home}", STNODEFAULTFOLDER="1")
        device = ElementTree.parse(self._home / "config.xml").find("device")
        assert device is not None
        self.device, self._version = device.attrib["id"], self._config_version()

    def start(self, other: "Syncthing") -> None:
        """Run it; returns when it answers."""
        self._write_config(other)
        words = ("serve", f"--home={self._home}", "--no-browser", "--no-restart")
        self.program = self._programs.serve(self._gui, *self._words, *words, STNOUPGRADE="1", STNODEFAULTFOLDER="1")
        wait_until(lambda: self._ask("GET", "system/ping"), f"{self._name} to answer", 20)

    def pause(self, other: "Syncthing") -> None:
        """Don't talk to the other one before `resume`."""
        self._ask("POST", f"system/pause?device={other.device}")

    def resume(self, other: "Syncthing") -> None:
        self._ask("POST", f"system/resume?device={other.device}")

    def wait_connected(self, other: "Syncthing") -> None:
        def connected() -> bool:
            return bool(self._ask("GET", "system/connections")["connections"][other.device]["connected"])

        wait_until(connected, f"{self._name} to be connected", 30)

    def scan(self) -> None:
        """Look through the folder now, as its own watching of it takes its time; returns when it has."""
        self._ask("POST", f"db/scan?folder={_FOLDER}")

    def _config_version(self) -> str:
        return ElementTree.parse(self._home / "config.xml").getroot().attrib["version"]

    def _write_config(self, other: "Syncthing") -> None:
        options = {**_QUIET, "listenAddress": f"tcp://{LOOPBACK}:{self.port}", **self._options}
        devices = "".join(
            f'<device id="{one.device}" name="{one._name}"><address>tcp://{LOOPBACK}:{one.port}</address></device>'
            for one in (self, other)
        )
        sharing = "".join(f'<device id="{one.device}"/>' for one in (self, other))
        chosen = "".join(f"<{key}>{value}</{key}>" for key, value in options.items())
        (self._home / "config.xml").write_text(
            f'<configuration version="{self._version}">'
            f'<folder id="{_FOLDER}" path="{self.folder}" type="sendreceive" rescanIntervalS="60"'
            f' fsWatcherEnabled="true" fsWatcherDelayS="1">{sharing}<maxConflicts>10</maxConflicts></folder>{devices}'
            f'<gui enabled="true" tls="false"><address>{LOOPBACK}:{self._gui}</address>'
            f"<apikey>{_API_KEY}</apikey></gui><options>{chosen}</options></configuration>"
        )

    def _ask(self, method: str, what: str) -> Any:
        """Its REST interface, past any proxy; None while it does not answer."""
        request = urllib.request.Request(f"http://{LOOPBACK}:{self._gui}/rest/{what}", method=method)
        request.add_header("X-API-Key", _API_KEY)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=30) as answer:
                text = answer.read()
        except OSError:
            return None
        return json.loads(text) if text else {}
