"""A kernel that a server has started, and what its cells show."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from compat.machine_image import Published
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

from publisher.kernels.render import KERNELS


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """The reply to a cell, and the messages that it showed."""

    reply: dict
    messages: list[tuple[str, dict]]

    @property
    def streams(self) -> list[tuple[str, str]]:
        """What was printed: the stream and the text."""
        return [(content["name"], content["text"]) for kind, content in self.messages if kind == "stream"]


@contextlib.contextmanager
def started(
    published: Published, kernel: str, transport: str = "tcp", encryption: str = "disabled"
) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    """A kernel that a server has started, and its client."""
    specs = KernelSpecManager(kernel_dirs=[str(published.prefix / "channels/stable" / KERNELS)])
    manager = KernelManager(
        kernel_name=kernel, kernel_spec_manager=specs, transport=transport, transport_encryption=encryption
    )
    with Path(os.devnull).open("w") as nowhere:
        manager.start_kernel(stderr=nowhere)
        client = manager.client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=60)
            yield manager, client
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
            manager.cleanup_resources()


def run_cell(client: BlockingKernelClient, code: str) -> Shown:
    """Runs a cell."""
    messages = []
    reply = client.execute_interactive(code, timeout=30, output_hook=messages.append)
    return Shown(reply=reply["content"], messages=[(row["msg_type"], row["content"]) for row in messages])
