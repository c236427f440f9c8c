"""In front of moto: what EC2 does and moto does not, and the faults. A WSGI application."""

import contextlib
import io
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qsl, urlencode
from xml.sax.saxutils import escape, unescape

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from scripts.sandbox import rules
from scripts.sandbox.account import LIVE, Account, state_of
from scripts.sandbox.faults import PLACING, Fault, Faults
from scripts.sandbox.hypervisor import Hypervisor
from scripts.sandbox.modifications import Modifications
from scripts.sandbox.refusal import Refusal
from scripts.sandbox.tokens import Reply, Tokens
from scripts.sandbox.visibility import Visibility

StartResponse = Callable[[str, list[tuple[str, str]]], object]
API_VERSION = "2016-11-15"
ERROR = (
    '<?xml version="1.0" encoding="UTF-8"?><Response><Errors><Error><Code>{}</Code><Message>{}</Message></Error></Errors>'
    "<RequestID>sandbox</RequestID></Response>"
)
XML = [("Content-Type", "text/xml;charset=UTF-8")]
READS = ("Describe", "Get", "List")
CALLS_KEPT = 20_000
RESOURCE = re.compile(r"(?:i|vol|vpc|subnet|sg|igw|rtb|snap|ami|eni)-[0-9a-f]+")


class Shim:
    """The sandbox's EC2 endpoint. Calls to other services go to moto as they are."""

    def __init__(
        self,
        account: Account,
        hypervisor: Hypervisor,
        faults: Faults,
        tokens: Tokens,
        modifications: Modifications,
        saved: Callable[[], None],
    ) -> None:
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._account, self._hypervisor, self._faults = account, hypervisor, faults
        self._tokens, self._modifications = tokens, modifications
        self._visibility = Visibility()
        self._saved = saved
        self.calls: deque[dict[str, Any]] = deque(maxlen=CALLS_KEPT)

    def __call__(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        parameters = dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
        action = parameters.get("Action", "")
        call = {
            "time": time.time(),
            "action": action or environ.get("HTTP_X_AMZ_TARGET", ""),
            "resources": [value for value in parameters.values() if RESOURCE.fullmatch(value)],
            "outcome": "",
        }
        self.calls.append(call)
        if parameters.get("Version") != API_VERSION:
            status, headers, reply = self._ask_moto(environ, body)
            call["outcome"] = status
            start(status, headers)
            return [reply]
        try:
            headers, reply = self._answer(environ, action, parameters)
        except Refusal as refusal:
            call["outcome"] = refusal.code
            return _error(start, refusal)
        call["outcome"] = "ok"
        start("200 OK", headers)
        return [reply]

    def _answer(self, environ: dict[str, Any], action: str, parameters: dict[str, str]) -> Reply:
        zone, instance_type = self._place(action, parameters)
        fault = self._faults.hit(action, zone, instance_type)
        kind = fault.kind if fault is not None else ""
        if fault is not None and kind == "slow":
            threading.Event().wait(fault.seconds)
        if fault is not None and kind == "error":
            raise Refusal(fault.code, "injected by the sandbox", fault.status)
        if kind == "lost_reply":
            with contextlib.suppress(Refusal):  # a refusal is lost as any other reply
                self._carry_out(environ, action, parameters, fault)
            raise Refusal("InternalError", "injected by the sandbox: the reply was lost", 500)
        if kind == "capacity" and self._recall(action, parameters) is None:
            where = zone or "the region"
            raise Refusal("InsufficientInstanceCapacity", f"no capacity for {instance_type} in {where}", 500)
        return self._carry_out(environ, action, parameters, fault)

    def _carry_out(
        self, environ: dict[str, Any], action: str, parameters: dict[str, str], fault: Fault | None
    ) -> Reply:
        if action.startswith(READS):
            return self._read(environ, action, parameters)
        with self._account.lock:  # changes one after the other, as their order is saved
            return self._recall(action, parameters) or self._change(environ, action, parameters, fault)

    def _place(self, action: str, parameters: dict[str, str]) -> tuple[str, str]:
        """Zone and instance type that a call is about, as far as it says."""
        started = rules.every(parameters, "InstanceId") if action in PLACING else []
        instance = self._account.instance(started[0]) if started else None
        if instance is not None:
            return str(instance.placement.zone), str(instance.instance_type)
        zone = self._account.zone_of(rules.first(parameters, "SubnetId"))
        return zone or rules.first(parameters, "AvailabilityZone"), parameters.get("InstanceType", "")

    def _read(self, environ: dict[str, Any], action: str, parameters: dict[str, str]) -> Reply:
        self._visibility.check(parameters)
        headers, reply = self._forward(environ, self._without_token_filter(action, parameters))
        reply = self._visibility.rewrite(action, reply)
        if action == "DescribeVolumesModifications":
            reply = self._modifications.rewrite(reply)
        return headers, reply

    def _without_token_filter(self, action: str, parameters: dict[str, str]) -> dict[str, str]:
        """moto fails on the filter client-token; a filter by the ids of those instances says the same."""
        changed = dict(parameters)
        for key, value in parameters.items():
            found = re.fullmatch(r"(Filter\.\d+)\.Name", key)
            if action != "DescribeInstances" or not found or value != "client-token":
                continue
            prefix = f"{found.group(1)}.Value."
            tokens = [changed.pop(name) for name in parameters if name.startswith(prefix)]
            ids = [id for token in tokens for id in self._account.launched_with(token)] or ["i-none"]
            changed |= {key: "instance-id"} | {f"{prefix}{number}": id for number, id in enumerate(ids, 1)}
        return changed

    def _recall(self, action: str, parameters: dict[str, str]) -> Reply | None:
        earlier = self._tokens.recall(action, parameters)
        if earlier is not None and action == "RunInstances":
            found = re.search(rb"<instanceId>(i-[0-9a-f]+)</instanceId>", earlier[1])
            instance = self._account.instance(found.group(1).decode()) if found else None
            if instance is None or state_of(instance) not in LIVE:
                raise Refusal("IdempotentInstanceTerminated", "the instance of this client token was terminated")
        return earlier

    def _change(self, environ: dict[str, Any], action: str, parameters: dict[str, str], fault: Fault | None) -> Reply:
        rules.check(action, parameters, self._account, self._modifications)
        asked = rules.every(parameters, "InstanceId")
        before = {id: state_of(item) for id in asked if (item := self._account.instance(id)) is not None}
        headers, reply = self._forward(environ, parameters)
        if fault is not None and fault.kind == "delay":
            self._visibility.hide(action, reply, fault.seconds)
        reply = self._after(action, parameters, before, reply)
        self._tokens.remember(action, parameters, (headers, reply))
        self._hypervisor.settle()
        self._saved()
        return headers, reply

    def _after(self, action: str, parameters: dict[str, str], before: dict[str, str], reply: bytes) -> bytes:
        """What EC2 does after it has said yes; the reply with what only we know."""
        instances = [(self._account.instance(id), state) for id, state in before.items()]
        match action:
            case "StopInstances":
                for instance, state in instances:
                    if state != "stopped":
                        self._hypervisor.shut_down(instance)
            case "RebootInstances":
                for instance, _ in instances:
                    self._hypervisor.reboot(instance)
            case "DetachVolume":
                self._withdraw(parameters.get("VolumeId", ""), _tag(reply, "instanceId"))
            case "CreateSnapshot":
                self._hypervisor.snapshot(parameters["VolumeId"], _tag(reply, "snapshotId"))
            case "CreateVolume":
                if parameters.get("SnapshotId"):
                    self._hypervisor.disks.copy(parameters["SnapshotId"], _tag(reply, "volumeId"))
            case "ModifyVolume":
                self._modifications.begin(parameters["VolumeId"])
                return self._modifications.rewrite(reply)
        return reply

    def _withdraw(self, volume_id: str, instance_id: str) -> None:
        self._hypervisor.disks.withdraw(volume_id, self._hypervisor.root_of(instance_id))

    def _forward(self, environ: dict[str, Any], parameters: dict[str, str]) -> Reply:
        """moto's answer; its errors as they are."""
        status, headers, reply = self._ask_moto(environ, urlencode(parameters).encode())
        if not status.startswith("200"):
            code = _tag(reply, "Code") or "InternalError"
            raise Refusal(code, unescape(_tag(reply, "Message")) or "moto failed", int(status.split()[0]))
        return headers, reply

    def _ask_moto(self, environ: dict[str, Any], body: bytes) -> tuple[str, list[tuple[str, str]], bytes]:
        seen: dict[str, Any] = {}

        def start(status: str, headers: list[tuple[str, str]], _info: object = None) -> None:
            seen.update(status=status, headers=headers)

        asked = {**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        reply = b"".join(self._moto(asked, start))
        headers = [(name, value) for name, value in seen["headers"] if name.lower() != "content-length"]
        return seen["status"], headers, reply


def _error(start: StartResponse, refusal: Refusal) -> list[bytes]:
    start(f"{refusal.status} {'Bad Request' if refusal.status < 500 else 'Server Error'}", XML)
    return [ERROR.format(escape(refusal.code), escape(str(refusal))).encode()]


def _tag(reply: bytes, name: str) -> str:
    """Text of the first element of that name, "" if there is none."""
    found = re.search(rb"<%b>(.*?)</%b>" % (name.encode(), name.encode()), reply, re.DOTALL)
    return found.group(1).decode() if found else ""
