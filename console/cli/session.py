"""Session: what a command needs to reach the control plane and to answer."""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import grpc
import stamina.instrumentation
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text
from wap.control.v1.cluster_pb2 import Cluster, GetClusterRequest
from wap.control.v1.project_pb2 import ListProjectsRequest, Project

from console.cli.failures import DENIED, CommandError
from console.cli.text import safe
from console.client import Client, WapError
from console.client.config import Config, ConfigError, load

PIPE_WIDTH = 220
"""Columns where the output is not a terminal: wide enough that nothing is cut for grep and awk."""


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    # Markup stays off: a cluster named "[red]" is a name, not an order to the terminal.
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, width=width, soft_wrap=False)


@dataclass
class Session:
    """One run of one command. `json` is True where the output is for a program."""

    json: bool = False
    out: Console = field(default_factory=lambda: _console(stderr=False))
    err: Console = field(default_factory=lambda: _console(stderr=True))
    _config: Config | None = None

    @property
    def config(self) -> Config:
        """File and environment, read once."""
        if self._config is None:
            try:
                self._config = load(os.environ)
            except ConfigError as error:
                raise CommandError(str(error), reason="CONFIG") from None
        return self._config

    def use(self, config: Config) -> None:
        """Go on with this configuration."""
        self._config = config

    @contextlib.contextmanager
    def client(self, *, with_token: bool = True) -> Iterator[Client]:
        """A connection as the logged-in user."""
        config = self.config
        if not config.endpoint:
            raise CommandError(
                "It is not known where the control plane is.", "Log in with `wap login`, or set WAP_ENDPOINT."
            )
        if with_token and not config.token:
            raise CommandError("You are not logged in.", "wap login", exit_code=DENIED, reason="UNAUTHENTICATED")
        try:
            ca_pem = config.ca_bytes()
        except ConfigError as error:
            raise CommandError(str(error), reason="CONFIG") from None
        # gRPC writes its own lines about failed handshakes to stderr; the error says it in words.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        # Retries are told by the final error; a log line for each would end up in the output of programs.
        stamina.instrumentation.set_on_retry_hooks([])
        token = config.token if with_token else None
        client = Client(config.endpoint, ca_pem=ca_pem, token=token, client_name="wap-cli")
        try:
            yield client
        except KeyboardInterrupt:
            # Not closed: where Ctrl-C came while a call was being made, gRPC would wait for that call for ever.
            raise
        except BaseException:
            client.close()
            raise
        client.close()

    def project(self, client: Client, given: str | None) -> Project:
        """The project that was named, or the default one, or the only one there is."""
        name = given or self.config.project
        if name:
            return client.project(name)
        projects = client.projects.ListProjects(ListProjectsRequest()).projects
        if len(projects) == 1:
            return projects[0]
        raise CommandError("It is not clear which project is meant.", "Use --project NAME, or `wap project use NAME`.")

    def project_id(self, client: Client, given: str | None) -> str:
        """The id of the named or default project; empty (all visible projects) where neither is set."""
        name = given or self.config.project
        return client.project(name).id if name else ""

    def cluster(self, client: Client, name: str, project: str | None) -> Cluster:
        """The cluster with this name in the project, or else with this id."""
        try:
            found = self.project(client, project)
            return client.clusters.GetCluster(GetClusterRequest(project_id=found.id, name=name)).cluster
        except (WapError, CommandError) as unknown:
            if not name.startswith("cl-") or (isinstance(unknown, WapError) and not _may_be_id(unknown)):
                raise
            try:
                return client.clusters.GetCluster(GetClusterRequest(cluster_id=name)).cluster
            except WapError as error:
                if not _may_be_id(error):
                    raise
                raise unknown from error

    def answer(self, message: Message, *tables: Callable[[], RenderableType]) -> None:
        """Print the message for a program, or the tables for a person."""
        if self.json:
            self.print_json(as_dict(message))
            return
        for table in tables:
            self.out.print(table())

    def print_json(self, value: object, *, indent: int | None = 2) -> None:
        """Plain JSON, never wrapped or coloured."""
        self.out.file.write(json.dumps(value, indent=indent, ensure_ascii=False) + "\n")
        self.out.file.flush()

    def print_plain(self, text: str) -> None:
        """One line on stdout as it is, never wrapped: for command substitution."""
        self.out.file.write(safe(text) + "\n")

    def say(self, text: str, style: str = "") -> None:
        """One line for a person; a program does not see it."""
        if not self.json:
            self.out.print(Text(safe(text), style=style), soft_wrap=True)

    def warn(self, text: str) -> None:
        """One line on stderr."""
        self.err.print(Text(safe(text)), soft_wrap=True)

    @property
    def can_ask(self) -> bool:
        """True when a person sits in front and can answer."""
        return sys.stdin.isatty() and not self.json


def as_dict(message: Message) -> dict[str, object]:
    """A message as JSON values: names as in the proto files, unset fields included, 64-bit numbers as text."""
    return dict(MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True))


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, empty: str) -> RenderableType:
    """A plain table; a column title that begins with ">" is set to the right."""
    made = Table(box=None, pad_edge=False, header_style="bold", show_edge=False, padding=(0, 2, 0, 0))
    for title in columns:
        made.add_column(title.removeprefix(">"), justify="right" if title.startswith(">") else "left", overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else safe(cell) for cell in row))
    return made if made.row_count else Text(empty, style="dim")


def facts(rows: Iterable[tuple[str, str | Text]]) -> RenderableType:
    """Names and values of one thing."""
    made = Table.grid(padding=(0, 3, 0, 0))
    for name, value in rows:
        made.add_row(
            Text(name, style="dim"), value if isinstance(value, Text) else safe(value) or ("-" if name else "")
        )
    return made


def _may_be_id(error: WapError) -> bool:
    return error.code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)
