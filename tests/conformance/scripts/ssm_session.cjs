// Opens a shell with the npm package `ssm-session`, an independent and old client of the protocol: it
// answers every message with an acknowledgement, pads names on the left and digests wrongly. Types a
// sum, waits for the answer, leaves, and waits for the end. The answer of StartSession is in argv 2.
"use strict";

const { ssm } = require("ssm-session");
const WebSocket = require("ws");

const session = JSON.parse(process.argv[2]);
const PATIENCE_MS = 60_000;

const text = new TextDecoder();
const bytes = new TextEncoder();
const socket = new WebSocket(session.StreamUrl);
socket.binaryType = "arraybuffer";

let shown = "";
let asked = false;
let answered = false;

function end(status, why) {
  process.stdout.write(`${why}\n${shown}\n`);
  process.exit(status);
}

setTimeout(() => end(1, "nothing more came"), PATIENCE_MS).unref();

socket.on("open", () => {
  ssm.init(socket, { token: session.TokenValue, termOptions: { rows: 34, cols: 97 } });
});

socket.on("message", (data) => {
  const message = ssm.decode(data);
  ssm.sendACK(socket, message);
  if (message.messageType.includes("channel_closed")) {
    end(answered ? 0 : 1, "the session was closed");
  }
  if (message.payloadType !== 1) {
    return;
  }
  shown += text.decode(message.payload);
  if (!asked) {
    asked = true;
    ssm.sendText(socket, bytes.encode('echo "<$((6 * 7)):$(tput cols)>"\r'));
  } else if (!answered && shown.includes("<42:97>")) {
    answered = true;
    ssm.sendText(socket, bytes.encode("exit\r"));
  }
});

socket.on("close", () => end(answered ? 0 : 1, "the socket was closed"));
socket.on("error", (error) => end(1, `the socket failed: ${error.message}`));
