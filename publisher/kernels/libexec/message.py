"""message.py CONNECTION_FILE LANGUAGE SENTENCE [COMMAND] - a Jupyter kernel that only says why the real one is not there.

It runs where the real kernel cannot: with any Python from 2.7 on, of the host or of the image, and nothing else. So it
speaks ZMTP 3.0 (https://rfc.zeromq.org/spec/23/) and the Jupyter protocol 5.3 by itself, each as far as a kernel needs:
it listens, with the NULL mechanism. Messages that are not signed with the key of the connection file are dropped. For a
server that wants CurveZMQ it takes a Python with pyzmq, such as the server's own.
"""

from __future__ import print_function

import hashlib
import hmac
import importlib
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
import uuid

DELIMITER = b"<IDS|MSG>"
MORE, LONG, COMMAND = 1, 2, 4  # flags of a frame
MAX_FRAME_BYTES = 1 << 26
GREETING = b"\xff\0\0\0\0\0\0\0\0\x7f" + b"\3\0" + b"NULL".ljust(20, b"\0") + b"\0" * 32
CHANNELS = {"shell": b"ROUTER", "control": b"ROUTER", "stdin": b"ROUTER", "hb": b"REP", "iopub": b"PUB"}
LANGUAGES = {
    "python": {"mimetype": "text/x-python", "file_extension": ".py", "pygments_lexer": "python"},
    "c++": {"mimetype": "text/x-c++src", "file_extension": ".C", "pygments_lexer": "c++"},
}


# ---------------------------------------------------------------- ZMTP


class Peer(object):
    """A connection of a client to one of the kernel's sockets."""

    def __init__(self, connection):
        self.connection = connection
        self.lock = threading.Lock()
        self.topics = []

    def greet(self, socket_type):
        """Exchanges greetings and READY commands."""
        self.connection.sendall(GREETING)
        greeting = self.read_bytes(64)
        if greeting[:1] != b"\xff" or greeting[10:11] < b"\3" or greeting[12:32].rstrip(b"\0") != b"NULL":
            raise ValueError("no ZMTP 3 peer with the mechanism NULL")
        ready = b"\5READY\x0bSocket-Type" + struct.pack("!I", len(socket_type)) + socket_type
        self.connection.sendall(struct.pack("!BB", COMMAND, len(ready)) + ready)

    def read_bytes(self, size):
        parts = []
        while size:
            part = self.connection.recv(min(size, 1 << 16))
            if not part:
                raise EOFError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def read(self):
        """The frames of the next message; commands (READY, PING of later versions) are passed over."""
        frames = []
        while True:
            flags, size = struct.unpack("!BB", self.read_bytes(2))
            if flags & LONG:
                (size,) = struct.unpack("!Q", struct.pack("!B", size) + self.read_bytes(7))
            if size > MAX_FRAME_BYTES:
                raise ValueError("a frame of %d bytes" % size)
            frame = self.read_bytes(size)
            if flags & COMMAND:
                continue
            frames.append(frame)
            if not flags & MORE:
                return frames

    def send(self, frames):
        with self.lock:
            self.connection.sendall(encode(frames))


def encode(frames):
    """A message as bytes."""
    parts = []
    for number, frame in enumerate(frames, 1):
        more = MORE if number < len(frames) else 0
        if len(frame) > 255:
            parts.append(struct.pack("!BQ", more | LONG, len(frame)))
        else:
            parts.append(struct.pack("!BB", more, len(frame)))
        parts.append(frame)
    return b"".join(parts)


class EncryptedSocket(object):
    """One of the kernel's sockets, with all its clients, where the connection file holds keys for CurveZMQ."""

    topics = [b""]

    def __init__(self, connection_info, channel, socket_type):
        zmq = importlib.import_module("zmq")
        self.socket = zmq.Context.instance().socket(getattr(zmq, socket_type.decode("ascii")))
        self.socket.curve_server = True
        self.socket.curve_publickey = connection_info["curve_publickey"].encode("ascii")
        self.socket.curve_secretkey = connection_info["curve_secretkey"].encode("ascii")
        self.socket.bind("tcp://%s:%d" % (connection_info["ip"], connection_info[channel + "_port"]))
        self.read = self.socket.recv_multipart
        self.lock = threading.Lock()

    def send(self, frames):
        with self.lock:
            self.socket.send_multipart(frames)


def listen(connection_info, channel):
    """The socket at which a channel of the connection file is to be served."""
    port = connection_info[channel + "_port"]
    if connection_info.get("transport") == "ipc":
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind("%s-%d" % (connection_info["ip"], port))
    else:
        family = socket.AF_INET6 if ":" in connection_info["ip"] else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((connection_info["ip"].replace("*", "") or "0.0.0.0", port))
    listener.listen(64)
    return listener


def in_background(function, *arguments):
    thread = threading.Thread(target=function, args=arguments)
    thread.daemon = True
    thread.start()


# ---------------------------------------------------------------- the kernel


class MessageKernel(object):
    """Answers every request; a cell that is run shows the sentence."""

    def __init__(self, connection_info, language, sentence, command):
        self.info = connection_info
        self.key = connection_info.get("key", "").encode("ascii")
        scheme = connection_info.get("signature_scheme") or "hmac-sha256"
        self.digest = getattr(hashlib, scheme.partition("-")[2])
        self.language = language
        self.sentence = sentence
        self.command = command
        self.session = uuid.uuid4().hex
        self.count = 0
        self.subscribers = []

    def serve(self):
        """Opens all channels and returns."""
        for channel, socket_type in CHANNELS.items():
            if "curve_secretkey" not in self.info:
                in_background(self.accept, listen(self.info, channel), channel, socket_type)
                continue
            encrypted = EncryptedSocket(self.info, channel, socket_type)
            if channel == "iopub":
                self.subscribers.append(encrypted)
            else:
                in_background(self.read_encrypted, encrypted, channel)

    def read_encrypted(self, encrypted, channel):
        while True:
            self.take(encrypted, channel, encrypted.read())

    def accept(self, listener, channel, socket_type):
        while True:
            connection, _ = listener.accept()
            in_background(self.attend, Peer(connection), channel, socket_type)

    def attend(self, peer, channel, socket_type):
        """Reads what one client sends until it goes."""
        try:
            peer.greet(socket_type)
            if channel == "iopub":
                self.subscribers.append(peer)
            while True:
                self.take(peer, channel, peer.read())
        except (EOFError, ValueError, socket.error):
            peer.connection.close()
        finally:
            if peer in self.subscribers:
                self.subscribers.remove(peer)

    def take(self, peer, channel, frames):
        if channel == "hb":
            peer.send(frames)
        elif channel == "iopub":
            verb, topic = frames[0][:1], frames[0][1:]
            if verb == b"\1":
                peer.topics.append(topic)
            elif verb == b"\0" and topic in peer.topics:
                peer.topics.remove(topic)
        elif DELIMITER in frames:
            start = frames.index(DELIMITER)
            signature, parts = frames[start + 1], frames[start + 2 : start + 6]
            if len(parts) == 4 and hmac.compare_digest(signature, self.sign(parts)):
                self.answer(peer, frames[:start], parts[0], json.loads(parts[3].decode("utf-8")))

    def answer(self, peer, route, request, content):
        """Handles one request; ``request`` is its header as it came."""
        kind = json.loads(request.decode("utf-8"))["msg_type"]
        self.publish(request, "status", {"execution_state": "busy"})
        if kind == "comm_open":
            self.publish(request, "comm_close", {"comm_id": content.get("comm_id", ""), "data": {}})
        reply = self.reply(kind, request, content)
        if reply is not None:
            peer.send(route + self.pack(request, kind.replace("_request", "_reply"), reply))
        self.publish(request, "status", {"execution_state": "idle"})
        if kind == "shutdown_request":
            time.sleep(0.1)  # what was sent must leave
            os._exit(0)

    def reply(self, kind, request, content):
        if kind == "execute_request":
            return self.execute(request, content)
        position = content.get("cursor_pos", 0)
        return {
            "kernel_info_request": dict(
                status="ok",
                protocol_version="5.3",
                implementation="afpub-message",
                implementation_version="1",
                language_info=dict(LANGUAGES.get(self.language, {}), name=self.language, version=""),
                banner=self.text(),
                help_links=[],
            ),
            "complete_request": dict(status="ok", matches=[], cursor_start=position, cursor_end=position, metadata={}),
            "inspect_request": dict(status="ok", found=False, data={}, metadata={}),
            "is_complete_request": dict(status="complete"),
            "history_request": dict(status="ok", history=[]),
            "comm_info_request": dict(status="ok", comms={}),
            "interrupt_request": dict(status="ok"),
            "shutdown_request": dict(status="ok", restart=bool(content.get("restart"))),
        }.get(kind)

    def execute(self, request, content):
        if not content.get("silent"):
            self.count += 1
            code = content.get("code", "")
            self.publish(request, "execute_input", {"code": code, "execution_count": self.count})
            self.publish(request, "stream", {"name": "stderr", "text": self.text() + "\n"})
        error = {
            "ename": "KernelNotStarted",
            "evalue": self.sentence,
            "traceback": ["The cell was not run. When the cause is mended, restart the kernel."],
        }
        self.publish(request, "error", error)
        return dict(error, status="error", execution_count=self.count)

    def text(self):
        return self.sentence + ("\n\n    " + self.command if self.command else "")

    # -------------------------------------------------------- messages

    def sign(self, parts):
        if not self.key:
            return b""
        signer = hmac.new(self.key, digestmod=self.digest)
        for part in parts:
            signer.update(part)
        return signer.hexdigest().encode("ascii")

    def pack(self, request, kind, content):
        header = {
            "msg_id": uuid.uuid4().hex,
            "session": self.session,
            "username": "kernel",
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "msg_type": kind,
            "version": "5.3",
        }
        parts = [json.dumps(header).encode("ascii"), request, b"{}", json.dumps(content).encode("ascii")]
        return [DELIMITER, self.sign(parts)] + parts

    def publish(self, request, kind, content):
        frames = [("kernel.%s.%s" % (self.session, kind)).encode("ascii")] + self.pack(request, kind, content)
        for peer in list(self.subscribers):
            if any(frames[0].startswith(topic) for topic in list(peer.topics)):
                try:
                    peer.send(frames)
                except socket.error:
                    pass  # it went; its own thread sees it too


def words():
    """The arguments as text, in whatever locale."""
    for word in sys.argv[1:]:
        raw = word if isinstance(word, bytes) else os.fsencode(word)
        yield raw.decode("utf-8", "replace")


def main():
    """Serves until a shutdown request, a signal, or the end of the server."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection_file, language, sentence, command = (list(words()) + [""])[:4]
    parent = os.getppid()
    with open(connection_file, "rb") as file:
        connection_info = json.loads(file.read().decode("utf-8"))
    MessageKernel(connection_info, language, sentence, command).serve()
    while os.getppid() == parent:
        time.sleep(1)


if __name__ == "__main__":
    main()
