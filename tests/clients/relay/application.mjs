// A ConversationRelay application as they are written with the `ws` library: it greets, says back what it hears word by
// word, lets itself be interrupted, and gives the call back when it hears a goodbye. PORT: where it listens; TOKEN: the
// auth token by which whoever connects must have signed.
import { createHmac, timingSafeEqual } from 'node:crypto';
import { createServer } from 'node:http';
import { WebSocketServer } from 'ws';

const { PORT, TOKEN } = process.env;

function genuine(request) {
  const url = `ws://${request.headers.host}${request.url}`;
  const wanted = createHmac('sha1', TOKEN).update(Buffer.from(url, 'utf-8')).digest();
  const shown = Buffer.from(request.headers['x-twilio-signature'] ?? '', 'base64');
  return shown.length === wanted.length && timingSafeEqual(shown, wanted);
}

const server = createServer((_, response) => response.writeHead(404).end());
const sockets = new WebSocketServer({ noServer: true });

server.on('upgrade', (request, socket, head) => {
  if (!genuine(request)) {
    socket.end('HTTP/1.1 403 Forbidden\r\n\r\n');
    return;
  }
  sockets.handleUpgrade(request, socket, head, (ws) => sockets.emit('connection', ws));
});

sockets.on('connection', (ws) => {
  const say = (text) => {
    for (const token of text.match(/\S+\s*/g)) {
      ws.send(JSON.stringify({ type: 'text', token, last: false }));
    }
    ws.send(JSON.stringify({ type: 'text', token: '', last: true }));
  };
  ws.on('error', console.error);
  ws.on('close', (code) => console.log(`closed ${code}`));
  ws.on('message', (data) => {
    const message = JSON.parse(data);
    console.log(`${message.type} ${JSON.stringify(message)}`);
    switch (message.type) {
      case 'setup':
        say(`Hello, ticket ${message.customParameters.ticket}. How can I help you?`);
        break;
      case 'prompt':
        if (!message.last) break;
        if (/goodbye/i.test(message.voicePrompt)) {
          say('Goodbye.');
          ws.send(JSON.stringify({ type: 'end', handoffData: JSON.stringify({ reasonCode: 'done' }) }));
        } else {
          say(`You said: ${message.voicePrompt}`);
        }
        break;
      case 'dtmf':
        ws.send(JSON.stringify({ type: 'sendDigits', digits: message.digit }));
        break;
      case 'interrupt':
      case 'error':
      case 'info':
        break;
      default:
        throw new Error(`unknown message ${message.type}`);
    }
  });
});

server.listen(Number(PORT), '127.0.0.1', () => console.log('listening'));
